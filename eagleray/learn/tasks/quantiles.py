"""`quantiles`: several quantiles of a number. Legend: B rows, C quantiles, ascending."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from eagleray import messages
from eagleray.learn.tasks import diagrams, peers, sanity
from eagleray.learn.tasks.regression import Regression
from eagleray.learn.tasks.task import Evaluation, Interval, Scale, TargetColumn
from eagleray.state.diagrams import Bin, Diagram

MEDIAN = 0.5


class Quantiles(Regression):
    """The quantiles of `data.quantiles`; the prediction is the median.

    A row's quantiles are sorted (Chernozhukov et al. 2010, arXiv:0704.3649), which no more than
    lowers their loss. Those of a calibrated target are moved by its `shifts`, and outward where an
    inner one has passed them, so that no interval holds less.
    """

    name, loss, metric = "quantiles", "quantile", "pinball"
    metrics = frozenset({"mae", "r2"})
    telling = ("pinball", "coverage", "interval_width", "mae")
    miss = "mean pinball loss of the quantiles"
    calibrations = ("conformal", "none")
    takes_quantiles = True

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        return column.quantity and bool(column.quantiles)

    @classmethod
    def serves(cls, *_: int) -> bool:
        return False  # a model's file does not say which levels it gives

    @property
    def width(self) -> int:  # type: ignore[override] # of a number it is 1
        return len(self.target.quantiles)

    @property
    def intervals(self) -> list[tuple[int, int]]:
        """Pairs of quantiles, the outermost first."""
        return [(one, self.width - 1 - one) for one in range(self.width // 2)]

    def alternative(self, targets_B: np.ndarray, smallest: int) -> None:
        """Return None: whoever asks for quantiles means a number."""

    def activate(self, raw_BC: np.ndarray, scale: Scale) -> np.ndarray:
        value_BC = np.sort(raw_BC * scale["deviation"] + scale["mean"], axis=1)
        if not self.target.shifts:
            return value_BC
        value_BC += np.array(self.target.shifts)
        middle = self._median
        lower_BC, upper_BC = value_BC[:, middle::-1], value_BC[:, middle:]
        np.minimum.accumulate(lower_BC, axis=1, out=lower_BC)
        np.maximum.accumulate(upper_BC, axis=1, out=upper_BC)
        return value_BC

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """The median."""
        median_B: np.ndarray = outputs[:, self._median]
        return median_B

    def explained(self, outputs: np.ndarray) -> int:
        return self._median

    def bins(self, truth_B: np.ndarray, outputs: np.ndarray) -> list[Bin]:
        return diagrams.levels(self.target.quantiles, truth_B.astype(float), outputs)

    def evaluate(
        self, truth_B: np.ndarray, outputs: np.ndarray, scores: Mapping[str, float]
    ) -> Evaluation:
        truth_B = truth_B.astype(float)
        warnings = list(sanity.value_warnings(truth_B, scores))
        return Evaluation(warnings, intervals=[*self._held(truth_B, outputs)])

    def headline(self, truth_B: np.ndarray, outputs: np.ndarray) -> str:
        name, half_B = self.target.name, self._distance(truth_B, outputs)
        half = messages.number(float(np.median(half_B)), ".3g")
        near = f"its median is within {half} of the true {name} for half of the rows"
        found = next(self._held(truth_B.astype(float), outputs), None)
        if found is None:
            return near
        width = messages.number(found.width, ".3g")
        return (
            f"holds the true {name} in its {100 * found.level:.3g} % interval for"
            f" {100 * found.bin.was:.0f} of 100 rows, {width} wide on average; {near}"
        )

    def misses(self, truth_B: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return pinball(self.target.quantiles, truth_B, outputs)

    def diagrams(self, truth_B: np.ndarray, outputs: np.ndarray) -> Iterator[Diagram]:
        yield diagrams.of_quantiles(self.target.name, self.bins(truth_B, outputs))
        yield from super().diagrams(truth_B, self.decide(outputs))

    def constant(self, targets_B: np.ndarray, rows: int) -> np.ndarray:
        """The quantiles of the training targets."""
        quantile_C = np.quantile(targets_B.astype(np.float64), self.target.quantiles)
        return np.tile(quantile_C, (rows, 1))

    def estimators(self) -> dict[str, Any]:
        return peers.quantiles(self.target.quantiles)

    def table(self, truth_B: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
        known = super().table(truth_B, self.decide(outputs))
        return known | dict(zip(self._headings, outputs.T, strict=True))

    def answers(self, outputs: np.ndarray) -> Iterator[dict[str, Any]]:
        """The median, the lowest and the highest quantile, and all of them by level."""
        names, middle = self._names, self._median
        for row in outputs.tolist():
            yield {
                "value": row[middle],
                "lower": row[0],
                "upper": row[-1],
                "quantiles": dict(zip(names, row, strict=True)),
            }

    def outcome_counts(self, outputs: np.ndarray, scale: Scale) -> Counter[str]:
        return super().outcome_counts(self.decide(outputs), scale)

    def answer_schema(self) -> dict[str, Any]:
        names, number = self._names, {"type": "number"}
        every = {"type": "object", "properties": dict.fromkeys(names, number)}
        return {
            **dict.fromkeys(("value", "lower", "upper"), number),
            "quantiles": {**every, "additionalProperties": False, "required": names},
        }

    def flat(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        cells = {key: answer[key] for key in ("value", "lower", "upper")}
        every = answer["quantiles"] or {}
        pairs = zip(self._headings, self._names, strict=True)
        return cells | {heading: every.get(name) for heading, name in pairs}

    @property
    def _median(self) -> int:
        return self.target.quantiles.index(MEDIAN)

    @property
    def _names(self) -> list[str]:
        return [str(level) for level in self.target.quantiles]

    @property
    def _headings(self) -> list[str]:
        return [f"quantile {name}" for name in self._names]

    def _distance(self, truth_B: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        distance_B: np.ndarray = np.abs(self.decide(outputs) - truth_B.astype(float))
        return distance_B

    def _held(self, truth_B: np.ndarray, outputs: np.ndarray) -> Iterator[Interval]:
        """Each interval and how many true values it holds."""
        levels = self.target.quantiles
        for low, high in self.intervals:
            low_B, high_B = outputs[:, low], outputs[:, high]
            held_B = (low_B <= truth_B) & (truth_B <= high_B)
            level = round(levels[high] - levels[low], 9)
            found = Bin(said=level, was=float(held_B.mean()), rows=len(truth_B))
            yield Interval(level, found, float((high_B - low_B).mean()))


def pinball(level_C: tuple[float, ...], truth_B: np.ndarray, quantile_BC: np.ndarray) -> np.ndarray:
    """The mean pinball loss (B) of each row's quantiles (Koenker and Bassett 1978)."""
    off_BC, level = truth_B.astype(float)[:, None] - quantile_BC, np.array(level_C)
    loss_B: np.ndarray = np.maximum(level * off_BC, (level - 1) * off_BC).mean(1)
    return loss_B
