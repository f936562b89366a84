"""`regression`: a number for each row. Legend: B rows, C outputs of the model."""

import bisect
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np

from eagleray import errors, messages
from eagleray.learn import schema
from eagleray.learn.columns import CATEGORICAL, NUMERIC
from eagleray.learn.tasks import diagrams, peers, sanity
from eagleray.learn.tasks.classes import LEAST_OF_A_CLASS
from eagleray.learn.tasks.task import Alternative, Evaluation, Scale, TargetColumn, Task
from eagleray.state.diagrams import Diagram

STRATA = 10  # maximum number of strata
FEW_VALUES = 100  # maximum number of different whole numbers that may be classes
TENTHS = NormalDist().quantiles(10)
MAX_FLOAT32 = float(np.finfo(np.float32).max)


class Regression(Task):
    """A number for each row, standardised in training."""

    name, kind, loss, metric = "regression", NUMERIC, "mse", "rmse"
    width = 1
    telling: ClassVar[tuple[str, ...]] = ("rmse", "mae", "r2")
    unit: ClassVar[Scale] = {"mean": 0.0, "deviation": 1.0}
    miss = "distance of the prediction from the truth"

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        return column.quantity and not column.quantiles

    @classmethod
    def describe(cls, column: TargetColumn) -> schema.Target:
        name, comma = column.column.name, column.column.decimal_comma
        beyond = int((np.abs(column.array) > MAX_FLOAT32).sum())
        if beyond:
            raise errors.DataError(
                f"{name}: numbers up to {MAX_FLOAT32:.2g} are needed, but {beyond:,} of"
                f" {len(column.array):,} are larger or infinite; leave out such rows"
            )
        numbers = _bounded(column.array)
        if len(np.unique(numbers)) < 2:
            raise errors.DataError(
                f"{name}: different values are needed, but all are {numbers[0]:g}"
            )
        return schema.Target(
            name=name, task=cls.name, decimal_comma=comma, quantiles=column.quantiles
        )

    @classmethod
    def serves(cls, outputs: int, classes: int) -> bool:
        return classes == 0 and outputs == 1

    def encode(self, raw: schema.Raw) -> np.ndarray:
        return _bounded(schema.parse_column(self.column, raw))

    def strata(self, targets_B: np.ndarray, smallest: int) -> np.ndarray | None:
        """Equally filled bins: each part has high and low values. No gain on diabetes, 20 seeds."""
        count = min(STRATA, smallest // 2)
        if count < 2:
            return None
        ranks = np.argsort(np.argsort(targets_B, kind="stable"), kind="stable")
        return ranks * count // len(targets_B)

    def summary(self, targets_B: np.ndarray) -> str:
        low, middle, high = np.quantile(targets_B, (0, 0.5, 1))
        return f"{self.name}, {low:g} to {high:g}, median {middle:g}"

    def alternative(self, targets_B: np.ndarray, smallest: int) -> Alternative | None:
        """A few whole numbers, each with rows for every part, may be classes."""
        different, counts = np.unique(targets_B, return_counts=True)
        few = len(different) <= min(FEW_VALUES, smallest) and counts.min() >= LEAST_OF_A_CLASS
        if not few or not (different == np.floor(different)).all():
            return None
        fact = f"{len(different)} different whole numbers are quantities"
        return Alternative(fact, CATEGORICAL.name, "classification")

    def scale(self, targets_B: np.ndarray) -> Scale:
        numbers_B = targets_B.astype(np.float64)
        return {"mean": float(numbers_B.mean()), "deviation": float(numbers_B.std()) or 1.0}

    def scaled(self, targets_B: np.ndarray, scale: Scale) -> np.ndarray:
        scaled_B: np.ndarray = (targets_B - scale["mean"]) / scale["deviation"]
        return scaled_B.astype(np.float32)

    def rescaled(self, raw_BC: np.ndarray, scale: Scale, other: Scale) -> np.ndarray:
        value_BC = raw_BC * scale["deviation"] + scale["mean"]
        rescaled_BC: np.ndarray = (value_BC - other["mean"]) / other["deviation"]
        return rescaled_BC

    def activate(self, raw_BC: np.ndarray, scale: Scale) -> np.ndarray:
        return raw_BC[:, 0] * scale["deviation"] + scale["mean"]

    def evaluate(
        self, truth_B: np.ndarray, outputs: np.ndarray, scores: Mapping[str, float]
    ) -> Evaluation:
        return Evaluation(list(sanity.value_warnings(truth_B.astype(float), scores)))

    def headline(self, truth_B: np.ndarray, outputs: np.ndarray) -> str:
        near = np.quantile(self.misses(truth_B, outputs), (0.5, 0.9)).tolist()
        half, nearly_all = (messages.number(one, ".3g") for one in near)
        return (
            f"is within {half} of the true {self.target.name} for half of the rows,"
            f" within {nearly_all} for 9 of 10"
        )

    def misses(self, truth_B: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        distance_B: np.ndarray = np.abs(outputs.astype(float) - truth_B.astype(float))
        return distance_B

    def diagrams(self, truth_B: np.ndarray, outputs: np.ndarray) -> Iterator[Diagram]:
        yield from diagrams.of_values(self.target.name, truth_B, outputs)

    def constant(self, targets_B: np.ndarray, rows: int) -> np.ndarray:
        """The mean."""
        return np.full(rows, targets_B.astype(np.float64).mean())

    def estimators(self) -> dict[str, Any]:
        return peers.regressors()

    def estimate(self, fitted: Any, matrix: Any) -> np.ndarray:
        value_B: np.ndarray = np.asarray(fitted.predict(matrix), np.float64)
        return value_B

    def table(self, truth_B: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
        return {"truth": truth_B.astype(float), "prediction": outputs}

    def answers(self, outputs: np.ndarray) -> Iterator[dict[str, Any]]:
        yield from ({"value": value} for value in outputs.tolist())

    def outcome(self, answer: Mapping[str, Any], scale: Scale) -> str:
        """The tenth of the training targets that the value is in, as if these were normal."""
        tenth = bisect.bisect(TENTHS, (answer["value"] - scale["mean"]) / scale["deviation"])
        return f"tenth {tenth + 1}"

    @property
    def outcomes(self) -> tuple[str, ...]:
        return tuple(f"tenth {number}" for number in range(1, 11))

    def reward(self, predicted: object, truth: object, scale: Scale) -> float:
        """1 without an error, 0 from two standard deviations of the training targets on."""
        first, second = self.encode([predicted, truth]).tolist()
        if not math.isfinite(first + second):
            raise errors.DataError(f"{self.target.name}: a number is needed, but got a missing one")
        return max(0.0, 1.0 - abs(float(first - second)) / (2 * scale["deviation"]))

    def outcome_counts(self, outputs: np.ndarray, scale: Scale) -> Counter[str]:
        tenths = np.searchsorted(TENTHS, (outputs - scale["mean"]) / scale["deviation"], "right")
        counts = enumerate(np.bincount(tenths).tolist(), 1)
        return Counter({f"tenth {tenth}": count for tenth, count in counts if count})

    def answer_schema(self) -> dict[str, Any]:
        return {"value": {"type": "number"}}


def _bounded(numbers_B: np.ndarray) -> np.ndarray:
    bounded_B: np.ndarray = np.clip(numbers_B, -MAX_FLOAT32, MAX_FLOAT32)
    return bounded_B.astype(np.float32)
