"""Protocol of a task: all code that depends on what is predicted. Legend: B rows, C outputs."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from eagleray import errors
from eagleray.learn import schema
from eagleray.learn.columns import CATEGORICAL, NUMERIC, ColumnKind, values
from eagleray.state.diagrams import Bin, Diagram

MOST_INFERRED_CLASSES = 20  # more different whole numbers than this are a quantity, not classes

Scale = Mapping[str, float]
"""Statistics of the training targets, stored in `bundle.json`."""

Averaged = Literal["raw", "probabilities"]
"""What an ensemble takes the mean of: raw outputs, or the probabilities whose logits these are."""


@dataclass(frozen=True)
class TargetColumn:
    """The column to predict, before its task is known."""

    column: schema.Column  # of the inferred kind
    array: np.ndarray  # canonical values (B) of `raw`
    raw: schema.Raw
    declared: ColumnKind | None = None  # the kind that the experiment file sets
    positive: str | None = None  # `data.positive`
    quantiles: tuple[float, ...] = ()  # `data.quantiles`
    user: str = ""  # `data.recommend.user`: values are items that users have chosen
    k: int = 10  # `data.recommend.k`

    @cached_property
    def quantity(self) -> bool:
        """Whether its values are quantities; few different whole numbers are classes."""
        if self.declared is not None:
            return self.declared is NUMERIC
        if self.column.kind is not NUMERIC or self.positive is not None:
            return False
        if self.quantiles:
            return True
        distinct = len(np.unique(self.array))
        if self.column.integer:
            return distinct > min(MOST_INFERRED_CLASSES, max(2, len(self.raw) // 5))
        return distinct > 2

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Distinct values as text, numbers ascending; empty where they cannot be classes."""
        if self.quantity or self.column.kind.target is None:
            return ()
        column = schema.Column(name=self.column.name, type=CATEGORICAL.name)
        return tuple(sorted(set(schema.parse_column(column, self.raw).tolist()), key=_order))


class Alternative(NamedTuple):
    """Another task that the user may intend, and the column `type` that selects it."""

    fact: str
    type: str
    task: str


class Interval(NamedTuple):
    """A prediction interval on the rows of a part."""

    level: float  # share of the true values that it is made to hold
    bin: Bin  # the share that it holds
    width: float  # mean


class Evaluation(NamedTuple):
    """Results on the test part, beside its metrics."""

    warnings: list[str]  # sentences without their subject, the model
    confusion: list[list[int]] | None = None  # truth by prediction; None for values, many classes
    confused: Sequence[tuple[str, str, int]] = ()  # most frequent mistakes: truth, prediction, rows
    intervals: Sequence[Interval] = ()  # the widest first


class Task(Protocol):
    """A task with its target. `outputs` are what `activate` returns: an entry for each row."""

    target: schema.Target
    name: ClassVar[str]  # in schemas, manifests and messages
    kind: ClassVar[ColumnKind]  # of its targets and predictions
    loss: ClassVar[str]  # the default of `train.loss`
    metric: ClassVar[str]  # the default of `tune.metric`
    losses: ClassVar[frozenset[str]] = frozenset()  # that fit, beside those registered for the task
    metrics: ClassVar[frozenset[str]] = frozenset()  # the same for metrics
    positive: ClassVar[int | None] = None  # index of the class that `data.positive` names
    telling: ClassVar[tuple[str, ...]] = ()  # metrics that say most to people
    miss: ClassVar[str] = ""  # what `misses` are, for people
    takes_quantiles: ClassVar[bool] = False  # whether `data.quantiles` says what it predicts
    # of `decide.calibrate`; `auto` is the first, that of classes where it pays
    calibrations: ClassVar[tuple[str, ...]] = ("none",)
    unaudited: ClassVar[frozenset[str]] = frozenset()  # checks of the audit that say nothing of it
    explains: ClassVar[bool] = True  # whether outputs can be explained column by column
    remembers: ClassVar[bool] = False  # whether what a model has learned from is no output of it
    averaged: ClassVar[Averaged] = "raw"
    unit: ClassVar[Scale] = {}  # the scale on which raw outputs are in the target's unit

    def __init__(self, target: schema.Target) -> None:
        self.target = target

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        """Whether the column can be the target; `tasks.infer` chooses among several tasks."""

    @classmethod
    def describe(cls, column: TargetColumn) -> schema.Target:
        """The target; DataError where nothing can be learned from the column."""

    @classmethod
    def serves(cls, outputs: int, classes: int) -> bool:
        """Whether a model with so many outputs and classes, 0 for values, may be of this task."""

    @property
    def width(self) -> int:
        """The number of outputs, C."""

    @property
    def column(self) -> schema.Column:
        """The target as a column, to parse it and to measure its drift."""
        name, comma = self.target.name, self.target.decimal_comma
        return schema.Column(name=name, type=self.kind.name, decimal_comma=comma)

    def encode(self, raw: schema.Raw) -> np.ndarray:
        """Targets (B) of raw values; DataError for one that the target cannot have."""

    def strata(self, targets_B: np.ndarray, smallest: int) -> np.ndarray | None:
        """The stratum of each row (B), or None for a split without strata.

        DataError if the smallest part, with `smallest` rows, cannot have rows of each stratum.
        """

    def check_part(self, part: str, targets_B: np.ndarray) -> None:
        """Raise DataError if a part of the data cannot be used to train or to evaluate."""

    def summary(self, targets_B: np.ndarray) -> str:
        """One line on the task and its targets."""

    def alternative(self, targets_B: np.ndarray, smallest: int) -> Alternative | None:
        """Another task that the user may intend; `smallest` as in `strata`."""
        return None

    def reproducible(self, outputs: np.ndarray) -> np.ndarray:
        """The part of outputs that is the same to rounding wherever a model runs."""
        return outputs

    def units(self, columns: schema.Columns) -> np.ndarray | None:
        """What rows are judged by together (B), such as their user; None for each by itself."""
        return None

    def scale(self, targets_B: np.ndarray) -> Scale:
        """Statistics of the training targets, for `scaled` and `activate`."""
        return {}

    def scaled(self, targets_B: np.ndarray, scale: Scale) -> np.ndarray:
        """Targets as the loss takes them."""
        return targets_B

    def rescaled(self, raw_BC: np.ndarray, scale: Scale, other: Scale) -> np.ndarray:
        """Raw outputs on a scale as they are on another one; linear in them."""
        return raw_BC

    def activate(self, raw_BC: np.ndarray, scale: Scale) -> np.ndarray:
        """Outputs in the target's unit (values or probabilities) from the model's raw ones."""

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """What is predicted (B) by outputs: class indices, or the values themselves."""
        return outputs

    def explained(self, outputs: np.ndarray) -> int | None:
        """Which output of a row an explanation is of; None where outputs are (B)."""
        return None

    def bins(self, truth_B: np.ndarray, outputs: np.ndarray) -> list[Bin]:
        """What outputs say of how often they are true, and how often they are."""
        return []

    def evaluate(
        self, truth_B: np.ndarray, outputs: np.ndarray, scores: Mapping[str, float]
    ) -> Evaluation:
        """Evaluate the test part, whose metrics are `scores`."""

    def headline(self, truth_B: np.ndarray, outputs: np.ndarray) -> str:
        """One clause on the test part for people who know no metrics; empty for none."""
        return ""

    def misses(self, truth_B: np.ndarray, outputs: np.ndarray) -> np.ndarray | None:
        """How wrong each prediction is (B), 0 if it is right; None if the task cannot say."""
        return None

    def diagrams(self, truth_B: np.ndarray, outputs: np.ndarray) -> Iterator[Diagram]:
        """The diagrams of a report, such as the ROC curve, without the confusion matrix."""
        yield from ()

    def constant(self, targets_B: np.ndarray, rows: int) -> np.ndarray | None:
        """Outputs for so many rows that are always the same, the best by the training targets."""
        return None

    def estimators(self) -> dict[str, Any]:
        """Plain models to compare with by name, not fitted, with scikit-learn's interface."""
        return {}

    def estimate(self, fitted: Any, matrix: Any) -> np.ndarray:
        """Outputs of one of the `estimators` for the rows of a matrix."""
        raise NotImplementedError

    def table(self, truth_B: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of `predictions.parquet`, `truth` and `prediction` among them."""

    def answers(self, outputs: np.ndarray) -> Iterator[dict[str, Any]]:
        """The endpoint's answer for each row."""

    def outcome(self, answer: Mapping[str, Any], scale: Scale) -> str:
        """What an answer counts as where two versions are compared: a class, or a range."""
        return ""

    @property
    def outcomes(self) -> tuple[str, ...]:
        """All that `outcome` may return."""
        return ()

    def reward(self, predicted: object, truth: object, scale: Scale) -> float:
        """How right a prediction was: 0 to 1. DataError for values that the target cannot have.

        `predicted` is the first value of an answer, see `answer_schema`.
        """
        raise errors.DataError(f"a label of {self.name} must come as a reward, but got a value")

    def outcome_counts(self, outputs: np.ndarray, scale: Scale) -> Counter[str]:
        """How many rows count as each outcome."""
        return Counter(self.outcome(answer, scale) for answer in self.answers(outputs))

    def confidence(self, outputs: np.ndarray) -> np.ndarray | None:
        """The probability (B) of each row's answer, if the task gives one."""
        return None

    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of each value of an answer, by key."""

    @property
    def blank(self) -> dict[str, Any]:
        """The answer for a row that cannot be predicted."""
        return dict.fromkeys(self.answer_schema())

    def flat(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """An answer, or `blank`, as cells of a table by heading."""
        return {key: answer[key] for key in self.answer_schema()}


def _order(name: str) -> tuple[float, str]:
    return values.number(name) if values.is_number(name) else float("inf"), name
