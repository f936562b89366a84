"""The section `train`: how one model is trained."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from eagleray.learn import losses, optimizers
from eagleray.learn.models.options import Rate, Section, Size
from eagleray.spec import terms
from eagleray.spec.terms import NotNegative, Part, Positive, Seed


class EarlyStopping(Section):
    """Stops a trial that no longer improves."""

    patience: Size = Field(5, description="Epochs without improvement before a trial is stopped.")
    min_delta: NotNegative = Field(0.0, description="Smaller changes are no improvement.")


class Plateau(Section):
    """Lowers the learning rate when the metric no longer improves, under `schedule: plateau`."""

    patience: Size = Field(3, description="Epochs without a better metric before it falls.")
    factor: Part = Field(0.5, description="What it is multiplied with then.")


class Train(Section):
    """How one model is trained.

    Attributes:
        alike: keys in which trials may differ that are trained in one pass, or go on from each
            other's weights.
    """

    alike: ClassVar[frozenset[str]] = frozenset({"lr", "weight_decay", "clip_norm"})
    lr: Positive = Field(1e-3, description="Learning rate; the highest of its schedule.")
    batch_size: Size = Field(64, description="Rows of one step.")
    epochs: Size = Field(20, description="Passes over the training part.")
    optimizer: Annotated[str, terms.OneOf(optimizers.REGISTRY, own=True, auto=False)] = Field(
        "adam", description="Step rule."
    )
    weight_decay: NotNegative = Field(0.0, description="Strength of weight decay.")
    momentum: Rate = Field(0.9, description="Momentum of `sgd`.")
    schedule: Literal["constant", "cosine", "one_cycle", "linear", "plateau"] = Field(
        "constant",
        description="Schedule of the learning rate over all steps; `plateau` goes by the metric "
        "on the validation part.",
    )
    plateau: Plateau = Field(Plateau(), description="When the rate falls under `plateau`.")
    warmup: NotNegative = Field(
        0.0,
        description="Epochs in which the rate rises to `lr` at first, such as 0.5; under "
        "`one_cycle` the length of its rise.",
    )
    clip_norm: Positive | None = Field(
        None, description="Largest norm of the gradient; a larger one is scaled down."
    )
    ema: Rate = Field(
        0.0,
        description="Decay of a moving average of the weights, such as 0.99; the averages are "
        "evaluated and saved. 0 for none.",
    )
    loss: Annotated[str, terms.OneOf(losses.REGISTRY, own=True)] = Field(
        "auto",
        description="`auto` is cross_entropy for classes, mse for numbers, quantile for quantiles, "
        "softmax for recommendations.",
    )
    label_smoothing: Rate = Field(0.0, description="Label smoothing of the cross-entropy losses.")
    focal_gamma: NotNegative = Field(
        2.0, description="How much less a row counts in `focal` the surer it is predicted."
    )
    class_weights: terms.ClassWeights = Field(
        "none",
        description="How much rows of a class count in the loss, such as `{fraud: 10}`, others 1; "
        "`balanced`: all classes the same in all, as `weighted_cross_entropy` has it by default.",
    )
    sampling: Literal["none", "balanced"] = Field(
        "none",
        description="`balanced` draws each row of an epoch from a class by chance, all alike: rare "
        "rows come again and again.",
    )
    mixup: NotNegative = Field(
        0.0,
        description="Mix the pictures and the losses of two rows, by a share of Beta(`mixup`, "
        "`mixup`) for each batch; 0 mixes none.",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Stops a trial that no longer improves; without it, all epochs run."
    )
    seed: Seed = Field(0, description="Seed of the initial weights and of the order of rows.")
