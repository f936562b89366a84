"""The sections of the experiment file, each a closed and strict model.

A field's law is with the field, and a law between two fields with the later one, at whose key it is
reported. Laws between sections are in `eagleray.spec.validation`.
"""

import functools
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import pydantic
from pydantic import Discriminator, Field, Tag, ValidationInfo
from pydantic_core import PydanticCustomError

from eagleray.learn import columns, features, losses, metrics, models, optimizers
from eagleray.learn.models.options import Many, Rate, Section, Size
from eagleray.spec import terms
from eagleray.spec.compute import Compute
from eagleray.spec.decide import Decide
from eagleray.spec.endpoint import Serve
from eagleray.spec.recommend import Recommend
from eagleray.spec.terms import Filled, NotNegative, Part, Positive, Seed
from eagleray.storage import EMBEDDED


class Split(Section):
    """How rows are split into training, validation and test."""

    validation: Part = Field(0.2, description="Part of the rows that trials are compared on.")
    test: Part = Field(
        0.2,
        description="Part of the rows that the winner is evaluated on, once.",
        validate_default=True,
    )
    group: Filled | None = Field(
        None, description="Column whose equal values stay in one part, such as a user."
    )
    time: Filled | None = Field(
        None, description="Column to sort by: training is the oldest part, test the newest."
    )
    stratify: bool = Field(
        default_factory=lambda split: not (split.get("group") or split.get("time")),
        description="Keep the shares of the classes, or of a number's tenths, in each part. "
        "Off under `group`, `time` and `data.recommend`.",
    )

    @pydantic.field_validator("test")
    @classmethod
    def _leaves_training(cls, test: float, info: ValidationInfo) -> float:
        total = info.data.get("validation", 0) + test
        if total >= 1:
            got = {"got": f"{total:g}"}
            raise PydanticCustomError("law", "validation and test must be below 1 together", got)
        return test

    @pydantic.field_validator("time", "stratify")
    @classmethod
    def _alone(cls, value: str | bool | None, info: ValidationInfo) -> str | bool | None:
        others = [key for key in ("group", "time") if info.data.get(key)]
        if value and others:
            raise PydanticCustomError("law", f"cannot stand beside {' and '.join(others)}")
        return value


class Data(Section):
    """Where rows come from, and what is predicted."""

    source: Filled = Field(
        description="Path of a file, a folder or a pattern with `*` (beside this file, or in the "
        "working directory), the same in `s3://…`, `dataset:NAME` of scikit-learn, or "
        "`module:function` that gives a pandas frame."
    )
    target: Filled = Field(description="Column to predict.")
    positive: Filled | None = Field(
        None, description="The positive one of two classes. Default: the later one."
    )
    quantiles: terms.Quantiles = Field(
        (),
        description="Quantiles of a number to predict, ascending, with the median, such as "
        "`[0.05, 0.5, 0.95]`. Default: its mean alone.",
    )
    split: Split = Field(Split(), description="How rows are split.")
    seed: Seed = Field(0, description="Seed of the split.")
    drop: Many[Filled] = Field((), description="Columns to leave out.")
    protected: Many[Filled] = Field(
        (),
        description="Columns, such as sex or age, by whose groups the winner's predictions are "
        "compared (docs/report.md). They are inputs unless `drop` has them too.",
    )
    duplicates: Literal["keep", "drop"] = Field(
        "keep",
        description="`drop` leaves out rows that repeat an earlier one, target included, and "
        "hardly by chance.",
    )
    missing: Many[str] = Field(
        (), description="Texts that mean a missing value, in addition to the usual ones."
    )
    encoding: terms.Encoding | None = Field(
        None,
        description="Encoding of a text file, such as `latin-1`. Default: that of its byte order "
        "mark, else UTF-8.",
    )
    delimiter: terms.Character | None = Field(
        None,
        description="Delimiter of a text file. Default: comma, semicolon, tab or bar, whichever "
        "gives the header most columns.",
    )
    memory: terms.Memory | None = Field(
        None,
        description="Memory for the rows, such as `4GB`; larger Parquet and CSV are streamed. "
        "Default: an eighth of the memory of the machine that reads them.",
    )

    recommend: Recommend | None = Field(
        None,
        description="Rows are choices of users: recommends values of the target to them, beside "
        "`model.type: recommender`.",
    )

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes."""
        if self.memory is None:
            return None
        return int(self.memory[:-2]) * {"MB": 10**6, "GB": 10**9}[self.memory[-2:]]

    @pydantic.field_validator("drop")
    @classmethod
    def _keeps_target(cls, drop: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("target") in drop:
            raise PydanticCustomError("law", "must leave the target in")
        return drop

    @pydantic.field_validator("protected")
    @classmethod
    def _are_no_target(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("target") in value:
            raise PydanticCustomError("law", "must be other columns than the target")
        return value

    @pydantic.model_validator(mode="before")
    @classmethod
    def _by_user(cls, value: object) -> object:
        """Items are no classes whose shares a split could keep: it is by user."""
        given = value if isinstance(value, dict) else {}
        split = given.get("split", {})
        if given.get("recommend") is None or not isinstance(split, dict):
            return value
        return {**given, "split": {"stratify": False, **split}}

    @pydantic.field_validator("recommend")
    @classmethod
    def _fits_rows(cls, value: Recommend | None, info: ValidationInfo) -> Recommend | None:
        """Rows are split by user, and both columns are needed."""
        if value is None:
            return None
        split, data = info.data.get("split", Split()), info.data
        if data.get("protected"):
            law = "compares lists, not groups, and cannot stand beside data.protected"
            raise PydanticCustomError("law", law, {"got": f"user: {value.user}"})
        if split.group:
            law = "splits the rows of each user, and cannot stand beside split.group"
            raise PydanticCustomError("law", law, {"got": f"user: {value.user}"})
        named = [("user", value.user), ("rating", value.rating)]
        taken = [data.get("target"), *data.get("drop", ())]
        for key, name in [*named, *(("items", name) for name in value.items)]:
            taken += [value.user, value.rating] if key == "items" else []
            if name is not None and name in taken:
                law = "needs a column for each key, neither the target nor in drop"
                raise PydanticCustomError("law", law, {"got": f"{key}: {name}"})
        return value


class _Feature(Section):
    """How one column is turned into numbers."""

    tag: ClassVar[str | None] = "COLUMN"

    type: Annotated[str, terms.OneOf(columns.REGISTRY)] = Field(
        "auto", description=f"Kind of the column; `{columns.IDENTIFIER.name}` leaves it out."
    )

    @property
    def kind(self) -> columns.ColumnKind | None:
        """The kind of the column; None where its values decide."""
        return None if self.type == "auto" else columns.REGISTRY[self.type]

    @classmethod
    def foreign(cls, kind: str) -> set[str]:
        """Options that a kind does not have."""
        return {name for name in cls.model_fields if kind not in (_owners(name) or [kind])}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_maker(cls, value: object) -> object:
        """A column that is made needs no type beside what makes it."""
        given = value if isinstance(value, dict) else {}
        own = features.made.OWN
        makers = [one for one in (*features.made.MAKERS, own) if given.get(one) is not None]
        if len(makers) > 1:
            got = {"got": " and ".join(makers)}
            raise PydanticCustomError("law", "a column must be made in one way", got)
        if (given.get("of") is None) != (own not in makers):
            got = {"got": "of" if given.get("of") is not None else own}
            raise PydanticCustomError("law", f"needs {own} and of together", got)
        if not makers or "type" in given:
            return value
        return {"type": _owners(makers[0])[0], **given}

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _belongs(cls, value: object, info: ValidationInfo) -> object:
        """Called for options that are set, not for defaults."""
        owners, kind = _owners(info.field_name), info.data.get("type")
        if owners and kind is not None and kind not in owners:
            got = {"got": f"type: {kind}"}
            raise PydanticCustomError("law", f"needs type: {' or '.join(owners)} beside it", got)
        return value


def _owners(option: str | None) -> list[str]:
    kinds = columns.REGISTRY
    return [name for name in kinds if option in kinds[name].options.model_fields]


MODEL = "mlp"
"""The model of a file that names none."""


def _model_tag(value: object) -> str:
    kind = value.get("type", MODEL) if isinstance(value, dict) else getattr(value, "type", MODEL)
    return "module:function" if ":" in str(kind) else str(kind)


if TYPE_CHECKING:
    ModelOptions = models.Options

    class FeatureOptions(_Feature):
        """Has the options of all column kinds."""

        of: tuple[str, ...] | None

        def __init__(self, **options: Any) -> None: ...

else:
    _parts = dict.fromkeys(columns.REGISTRY[name].options for name in columns.REGISTRY)
    FeatureOptions = pydantic.create_model(
        "FeatureOptions",
        __base__=(*reversed(_parts), _Feature),  # fields of the last come first
        __doc__=_Feature.__doc__,
        __module__=__name__,
    )
    _tagged = [Annotated[one, Tag(str(one.tag))] for one in models.sections()]
    ModelOptions = Annotated[functools.reduce(operator.or_, _tagged), Discriminator(_model_tag)]


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


def _of_model(train: Train, info: ValidationInfo) -> Train:
    """The section with the model's defaults for keys that are not set."""
    model = info.data.get("model")
    own = {} if model is None else type(model).train
    unset = {key: value for key, value in own.items() if key not in train.model_fields_set}
    return Train.model_construct(train.model_fields_set, **{**dict(train), **unset})


TrainOfModel = Annotated[Train, pydantic.AfterValidator(_of_model)]


class Configuration(Section):
    """The values of one trial."""

    features: dict[str, FeatureOptions] = Field({})
    model: ModelOptions = models.Mlp()
    train: TrainOfModel = Field(Train(), validate_default=True)


class Budget(Section):
    """Limits of a search over all of its runs; the first that is reached ends it.

    The best trial so far is the winner.
    """

    minutes: Positive | None = Field(None, description="Time that the search runs.")
    gpu_hours: Positive | None = Field(None, description="GPU-hours of its trials.")
    money: Positive | None = Field(None, description="Cost of its trials, by `compute.price`.")


class Ensemble(Section):
    """How many of the trials the winner may be the mean of, and how slow it may be."""

    members: terms.AutoOrSize = Field(
        "auto",
        description="Most trials whose predictions are averaged, where that is better than the "
        "best of them; `1` for none. `auto` is 5 beside `model.type: auto`, unless there is a "
        "`tune.cost`, and 1 elsewhere.",
    )
    latency_ms: Positive | None = Field(
        5.0,
        description="Longest median time of one row's prediction on one core; an ensemble loses "
        "members until it takes no longer.",
    )


class Tune(Section):
    """How configurations are searched."""

    trials: Size = Field(20, description="Maximum number of configurations, each tried once.")
    search: Literal["tpe", "cma", "random", "grid"] = Field(
        "tpe",
        description="Tree-structured Parzen estimator, CMA-ES (numbers only), random, or all "
        "combinations.",
    )
    scheduler: Literal["asha", "hyperband", "median", "pbt", "none"] = Field(
        "asha",
        description="`asha`, `hyperband` and `median` stop trials that fall behind early; `pbt` "
        "lets them go on from better ones, with changed values; `none` lets all finish.",
    )
    metric: Annotated[str, terms.OneOf(metrics.SELECTING)] = Field(
        "auto",
        description="What trials are compared by, on the validation part. `auto` is roc_auc for "
        "two classes, accuracy for more, rmse for numbers, pinball for quantiles and ndcg_at_k for "
        "recommendations.",
    )
    folds: Size = Field(
        1,
        description="Folds of cross-validation, of the rows of training and validation: trials are "
        "compared by the mean over folds, and poor ones stop after the first.",
    )
    refit: bool = Field(
        default_factory=lambda tune: tune.get("folds", 1) > 1,
        description="Train the winner's configuration anew on the rows of training and validation, "
        "for its best epoch, with folds the mean one. On with folds.",
    )
    cost: Literal["latency", "size"] | None = Field(
        None,
        description="What a model costs, lower is better, beside the metric: seconds of one row's "
        "prediction where it is trained (median), or bytes of its weights, of `boosting` those of "
        "its text, measured again at each best epoch.",
    )
    tolerance: terms.Tolerance = Field(
        0.0,
        description="Of the trials whose metric is at most this far from the best, that with the "
        "lowest `cost` wins. With folds it may be the best one's standard error.",
    )
    warm_start: terms.TrueOrSearch = Field(
        False,
        description="Tell the sampler of trials of earlier searches of this model in this storage, "
        "where they fit the space: of all searches, or of that with this id.",
    )
    pack: terms.AutoOrSize = Field(
        "auto",
        description="Most trials trained in one pass of one process. `auto` measures what pays.",
    )
    budget: Budget | None = Field(None, description="Limits of the search.")
    ensemble: Ensemble = Field(Ensemble(), description="What the winner may be made of.")
    seed: Seed = Field(0, description="Seed of the search.")

    @pydantic.field_validator("refit")
    @classmethod
    def _sees_all_rows(cls, refit: bool, info: ValidationInfo) -> bool:
        if not refit and info.data.get("folds", 1) > 1:
            law = "must be true beside folds above 1, where no model has seen all rows"
            raise PydanticCustomError("law", law)
        return refit

    @pydantic.field_validator("tolerance")
    @classmethod
    def _of_folds(cls, tolerance: float | str, info: ValidationInfo) -> float | str:
        if tolerance == terms.ONE_STANDARD_ERROR and info.data.get("folds", 1) == 1:
            law = f"{tolerance} needs folds above 1 beside it"
            raise PydanticCustomError("law", law, {"got": "1"})
        return tolerance

    @property
    def minutes(self) -> float | None:
        """Time limit of the search; None without one."""
        return self.budget.minutes if self.budget else None


class Audit(Section):
    """What the audit of the data does to a run."""

    fail_on: Literal["error", "warn", "never"] = Field(
        "never",
        description="Findings that end a run before its first trial: errors, or warnings too.",
    )


class File(Section):
    """The whole file, of which these keys stand outside of any section."""

    name: Annotated[str, Field(pattern=terms.NAME)] = Field(
        description="Name of the model; lowercase letters, digits and hyphens, at most 40."
    )
    data: Data = Field(description="Where rows come from, and what is predicted.")
    audit: Audit = Field(Audit(), description="What the audit of the data does to a run.")
    features: dict[str, FeatureOptions] = Field(
        {}, description="Columns that are not treated as their inferred type is by default."
    )
    model: ModelOptions = Field(models.Mlp(), description="What is trained.")
    train: TrainOfModel = Field(Train(), validate_default=True, description="How it is trained.")
    tune: Tune = Field(Tune(), description="How configurations are searched.")
    decide: Decide = Field(Decide(), description="How the winner predicts.")
    compute: Compute = Field(Compute(), description="What one trial gets.")
    storage: Annotated[str, Field(pattern=terms.STORAGE)] = Field(
        EMBEDDED,
        description="`s3://bucket`, `s3://bucket/prefix` or `file:///folder`; endpoint and "
        "credentials come from the usual AWS variables and files.",
    )
    serve: Serve = Field(Serve(), description="How the endpoint runs.")


def walk(
    section: type[pydantic.BaseModel] = File, at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[pydantic.BaseModel]]]:
    """Every section with its place; a tag stands in the place of a column or a model type."""
    yield at, section
    for name, field in section.model_fields.items():
        for inner in _sections_in(field.annotation):
            tag = getattr(inner, "tag", None)
            yield from walk(inner, (*at, name, *([tag] if tag else [])))


def _sections_in(annotation: object) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]
