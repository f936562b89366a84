"""The protocol of a task: all that depends on what is predicted, from the target to the answer.

Legend: B rows, C outputs of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from eagleray.learn import schema
from eagleray.learn.columns import CATEGORICAL, NUMERIC, ColumnKind, values

MOST_CLASSES = 20
"""More different whole numbers than this are a quantity, not classes."""

Scale = Mapping[str, float]
"""Statistics of the training targets, as `bundle.json` holds them."""


@dataclass(frozen=True)
class TargetColumn:
    """The column to predict, before its task is known.

    Attributes:
        column: its name and its inferred kind.
        array: its canonical values (B).
        raw: its values in the table.
        declared: the kind that the experiment file sets.
        positive: `data.positive`.
    """

    column: schema.Column
    array: np.ndarray
    raw: schema.Raw
    declared: ColumnKind | None = None
    positive: str | None = None

    @cached_property
    def quantity(self) -> bool:
        """Whether its values are quantities; few different whole numbers are classes."""
        if self.declared is not None:
            return self.declared is NUMERIC
        if self.column.kind is not NUMERIC or self.positive is not None:
            return False
        distinct = len(np.unique(self.array))
        if self.column.integer:
            return distinct > min(MOST_CLASSES, max(2, len(self.raw) // 5))
        return distinct > 2

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Its different values as text, numbers by size; none where they cannot be classes."""
        if self.quantity or self.column.kind.target is None:
            return ()
        column = schema.Column(name=self.column.name, type=CATEGORICAL.name)
        return tuple(sorted(set(schema.parse_column(column, self.raw).tolist()), key=_order))


class Alternative(NamedTuple):
    """Another task that may be the intended one; it is chosen by the column type `type`."""

    fact: str
    type: str
    task: str


class Evaluation(NamedTuple):
    """The evaluation of a test part, beside its metrics.

    Attributes:
        warnings: sentences whose subject, the model, is left out.
        confusion: matrix of truth (rows) by prediction; None without classes, or of many.
        confused: the most frequent mistakes as truth, prediction and rows.
    """

    warnings: list[str]
    confusion: list[list[int]] | None = None
    confused: Sequence[tuple[str, str, int]] = ()


class Task(Protocol):
    """A task of one target. `outputs` are what `activate` returns: an entry for each row.

    Attributes:
        target: what is predicted.
        name: in schemas, manifests and messages.
        kind: the column kind of its targets and predictions.
        loss: the default of `train.loss`.
        metric: the default of `tune.metric`.
        losses: losses of other tasks that fit too; a loss of its own names the task.
        metrics: metrics of other tasks that fit too, likewise.
        positive: index of the class that `data.positive` names; None where there is none.
    """

    target: schema.Target
    name: ClassVar[str]
    kind: ClassVar[ColumnKind]
    loss: ClassVar[str]
    metric: ClassVar[str]
    losses: ClassVar[frozenset[str]] = frozenset()
    metrics: ClassVar[frozenset[str]] = frozenset()
    positive: ClassVar[int | None] = None

    def __init__(self, target: schema.Target) -> None:
        self.target = target

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        """Whether the column can be its target; of several tasks, see `tasks.infer`."""

    @classmethod
    def describe(cls, column: TargetColumn) -> schema.Target:
        """The target; DataError where nothing can be learned from the column."""

    @property
    def width(self) -> int:
        """The number of outputs, C."""

    @property
    def column(self) -> schema.Column:
        """The target as a column: `kind` parses it, and compares it for drift."""
        name, comma = self.target.name, self.target.decimal_comma
        return schema.Column(name=name, type=self.kind.name, decimal_comma=comma)

    def encode(self, raw: schema.Raw) -> np.ndarray:
        """Targets (B) of raw values; DataError for one that the target cannot have."""

    def strata(self, targets_B: np.ndarray, smallest: int) -> np.ndarray | None:
        """The stratum of each row, or None; DataError where the parts cannot be alike.

        Args:
            targets_B: of all rows.
            smallest: rows of the smallest part.
        """

    def check_part(self, part: str, targets_B: np.ndarray) -> None:
        """Refuse a part of the data, with a DataError, that cannot be learned from or evaluated."""

    def summary(self, targets_B: np.ndarray) -> str:
        """The task and its targets in a line."""

    def alternative(self, targets_B: np.ndarray, smallest: int) -> Alternative | None:
        """Another task that may be the intended one; `smallest` as in `strata`."""
        return None

    def scale(self, targets_B: np.ndarray) -> Scale:
        """Statistics of the training targets, for `scaled` and `activate`."""
        return {}

    def scaled(self, targets_B: np.ndarray, scale: Scale) -> np.ndarray:
        """Targets as the loss takes them."""
        return targets_B

    def activate(self, raw_BC: np.ndarray, scale: Scale) -> np.ndarray:
        """Outputs in the target's unit, from those of the model."""

    def evaluate(
        self, truth_B: np.ndarray, outputs: np.ndarray, scores: Mapping[str, float]
    ) -> Evaluation:
        """Evaluate the test part, whose metrics are `scores`."""

    def table(self, truth_B: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of `predictions.parquet`, `truth` and `prediction` among them."""

    def answers(self, outputs: np.ndarray) -> Iterator[dict[str, Any]]:
        """The endpoint's answer for each row."""

    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of each value of an answer, by key."""

    @property
    def blank(self) -> dict[str, Any]:
        """The answer for a row that cannot be predicted."""
        return dict.fromkeys(self.answer_schema())

    def flat(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """An answer, `blank` too, as cells of a table by heading."""
        return {key: answer[key] for key in self.answer_schema()}


def _order(name: str) -> tuple[float, str]:
    try:
        return values.number(name), name
    except ValueError:
        return float("inf"), name
