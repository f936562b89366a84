"""Signs of over- and under-fitting, from the curves of a trial and its metrics on training rows."""

from collections.abc import Mapping, Sequence

from eagleray import messages
from eagleray.learn import metrics
from eagleray.state.evaluations import Baseline, Estimate, Fit

RISEN = 1.05  # validation loss at the end, divided by its smallest, from which it has risen
FALLING = 0.99  # the same of the last tenth of the epochs, below which it still falls
TOO_WEAK = "it does not even fit the training rows"
LEAST_EPOCHS = 10  # with fewer epochs curves say nothing


def judge(
    metric: str,
    train: Mapping[str, float],
    rows: int,
    test: Estimate | None,
    history: Sequence[Mapping[str, float]],
    plain: Sequence[Baseline] = (),
) -> Fit:
    """What a model's metrics on training rows, its curves and the baselines say together."""
    sign, says = _sign(metric, train.get(metric), test, history)
    if sign == "none" and (stronger := _stronger(metric, train.get(metric), plain)):
        sign, says = "under-fit", f"{says}; {stronger}"
    return Fit(sign=sign, says=says, train=dict(train), rows=rows)


def _sign(
    metric: str, train: float | None, test: Estimate | None, history: Sequence[Mapping[str, float]]
) -> tuple[str, str]:
    losses = [epoch["loss"] for epoch in history if "loss" in epoch]
    if train is None or test is None:
        return "none", f"the rows do not define {metric}, so nothing is said"
    seen, new = messages.number(train), messages.number(test.value)
    gap = f"{metric} is {seen} on training rows and {new} on the test part"
    if _risen(losses) and _apart(metric, train, test):
        return "over-fit", (
            f"{gap}, and the validation loss rose after its best epoch: more regularisation,"
            " a smaller model, or more rows may help"
        )
    if _falls(losses):
        return "under-fit", (
            f"{gap}, and the validation loss still fell when training ended: more epochs"
            " or a larger learning rate may help"
        )
    if _apart(metric, train, test):
        known = f"{gap}: it knows its training rows better than new ones"
        flat = ", but the validation loss did not rise by 5 % after its best epoch"
        return "none", known + flat * (len(losses) >= LEAST_EPOCHS)
    return "none", f"{gap}; the curves show neither over- nor under-fitting"


def _stronger(metric: str, train: float | None, plain: Sequence[Baseline]) -> str:
    """A baseline that is better on the test part than the model on its own training rows."""
    highest = metrics.REGISTRY[metric].mode == "max"
    for one in plain:
        if train is None or one.verdict is None or one.verdict.outcome != "worse":
            continue
        theirs = one.metrics[metric].value
        if theirs > train if highest else theirs < train:
            return (
                f"{TOO_WEAK}: a baseline, {one.name}, reaches {messages.number(theirs)} on rows"
                " that it has not seen; a larger model, another one, or other features may help"
            )
    return ""


def _apart(metric: str, train: float, test: Estimate) -> bool:
    """Whether the metric on training rows is better than all of the test part's interval."""
    if test.low is None or test.high is None:
        return False
    return train > test.high if metrics.REGISTRY[metric].mode == "max" else train < test.low


def _risen(losses: Sequence[float]) -> bool:
    return len(losses) >= LEAST_EPOCHS and losses[-1] > RISEN * min(losses) > 0


def _falls(losses: Sequence[float]) -> bool:
    """Whether the best loss is the last one, and the last tenth of the epochs improved it."""
    if len(losses) < LEAST_EPOCHS or losses[-1] > min(losses):
        return False
    earlier = min(losses[: -max(1, len(losses) // 10)])
    return losses[-1] < FALLING * earlier
