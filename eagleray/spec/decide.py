"""The section `decide` of the experiment file: what is made of a winner's outputs."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError

from eagleray import messages
from eagleray.learn import schema
from eagleray.learn.columns import values
from eagleray.learn.models.options import Section
from eagleray.learn.tasks import BINARY, CLASSES, REGISTRY, Task
from eagleray.names import near
from eagleray.spec.terms import NotNegative

Costs = dict[str, dict[str, NotNegative]]
"""Cost of a mistake by true class, then by predicted class."""

FITS = {"maximize": BINARY, "costs": CLASSES}
"""Keys and the tasks that they fit."""


class Decide(Section):
    """How the winner predicts: calibration, threshold and costs, found on rows held out."""

    calibrate: Literal["auto", "none", "platt", "temperature", "isotonic", "conformal"] = Field(
        "auto",
        description="Of classes: `temperature` divides the raw outputs by the number that gives "
        "the lowest log loss, `platt` also shifts those of two classes, `isotonic` fits a rising "
        "curve. Of quantiles: `conformal` moves them so that intervals hold what they say. `auto` "
        "is conformal for quantiles; for classes platt or temperature, where the log loss becomes "
        "lower by it beyond noise, and neither weights nor `sampling` bend probabilities on "
        "purpose; else none.",
    )
    maximize: Literal["accuracy", "balanced_accuracy", "f1", "mcc", "recall"] | None = Field(
        None,
        description="Metric by which the threshold of two classes is chosen. Default: the more "
        "probable class is predicted.",
    )
    precision: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Least precision beside `maximize: recall`.", validate_default=True
    )
    costs: Costs = Field(
        {},
        description="Cost of each mistake, true class first, such as "
        "`{fraud: {ok: 10}, ok: {fraud: 1}}`; the class that costs least is predicted.",
    )

    @property
    def decides(self) -> bool:
        """Whether classes are predicted in another way than as the most probable one."""
        return self.maximize is not None or bool(self.costs)

    def calibration(self, task: Task) -> str:
        """How the outputs of a task are calibrated."""
        return task.calibrations[0] if self.calibrate == "auto" else self.calibrate

    def matrix(self, target: schema.Target) -> tuple[tuple[float, ...], ...]:
        """`costs` in the order of the target's classes, truth by prediction."""
        by_class = _by_class(self.costs)
        return tuple(
            tuple(by_class[truth].get(other, 0.0) for other in target.classes)
            for truth in target.classes
        )

    def misfits(self, target: schema.Target) -> Iterator[str]:
        """Yield a message for each key that does not fit the target column."""
        for key, _, fitting in claims(dict(self)):
            if target.task not in fitting:
                law = f"must be left out unless the task is {' or '.join(sorted(fitting))}"
                yield f"decide.{key}: {law}, but it is {target.task}"
                return
        if self.costs:
            yield from _misfits(_by_class(self.costs), target.classes)

    @pydantic.field_validator("precision")
    @classmethod
    def _bounds_recall(cls, value: float | None, info: pydantic.ValidationInfo) -> float | None:
        recall = info.data.get("maximize") == "recall"
        if recall and value is None:
            got = {"got": "none"}
            raise PydanticCustomError("law", "is required beside maximize: recall", got)
        if value is not None and not recall:
            raise PydanticCustomError("law", "needs maximize: recall beside it")
        return value

    @pydantic.field_validator("costs")
    @classmethod
    def _alone(cls, costs: Costs, info: pydantic.ValidationInfo) -> Costs:
        if costs and info.data.get("maximize"):
            raise PydanticCustomError("law", "cannot stand beside maximize")
        if costs and not any(map(any, (row.values() for row in costs.values()))):
            raise PydanticCustomError("law", "must hold a cost above 0")
        return costs


def claims(chosen: Mapping[str, object]) -> Iterator[tuple[str, object, frozenset[str]]]:
    """Yield each key of the section that fits some tasks only, with its value and these tasks."""
    how = chosen.get("calibrate")
    able = frozenset(name for name in REGISTRY if how in REGISTRY[name].calibrations)
    if able and how != "none":
        yield "calibrate", how, able
    for key, fitting in FITS.items():
        if chosen.get(key) not in (None, {}):
            yield key, chosen[key], fitting


def _by_class(costs: Costs) -> Costs:
    """The costs by classes as the data have them: `1.0` is `1`."""
    return {
        values.category(truth): {values.category(other): cost for other, cost in row.items()}
        for truth, row in costs.items()
    }


def _misfits(costs: Costs, classes: tuple[str, ...]) -> Iterator[str]:
    """Yield what a cost matrix has too little or too much."""
    law = f"decide.costs: each of the {len(classes)} classes needs its costs"
    for name in dict.fromkeys([*costs, *(other for row in costs.values() for other in row)]):
        if name not in classes:
            yield f"decide.costs: must be of classes, but got {name!r}{near(name, classes)}"
    if lacking := [name for name in classes if name not in costs]:
        yield f"{law}, but there are none of {messages.listed(lacking, 5)}"
    for truth in classes:
        row = costs.get(truth, {})
        if row.get(truth):
            law = f"{truth!r} predicted as itself is no mistake"
            yield f"decide.costs: {law}, but costs {row[truth]:g}"
        lacking = [name for name in classes if name not in row and name != truth]
        if truth in costs and lacking:
            yield f"{law}, but {truth!r} has none of {messages.listed(lacking, 5)}"
