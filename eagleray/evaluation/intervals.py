"""Confidence intervals of metrics by the bootstrap, and the verdict on two models.

Resamples are drawn from a seed that follows from the truth, so two models on the same rows have the
same ones: the interval of a difference is a paired one. Intervals are BCa (Efron 1987), whose
acceleration comes from a jackknife over groups of rows. Of many rows fewer are drawn, and the
interval is narrowed by the root of the shares (m out of n; Bickel, Götze and van Zwet 1997).

Legend: B rows, N resamples, K groups of the jackknife.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from eagleray.learn import metrics, schema, tasks
from eagleray.state.diagrams import Bin
from eagleray.state.evaluations import Estimate, Verdict

LEVEL = 0.95
RESAMPLES = 1000
MOST_DRAWN = 10_000
"""Maximum number of rows of a resample."""
MOST_CELLS, LEAST_RESAMPLES = 400_000, 200
"""Cells (rows times classes) above which there are fewer resamples, and their least number."""
MOST_CLASSES = 50
"""With more classes, metrics that go class by class have no interval."""
GROUPS = 40
"""Groups of rows that the jackknife leaves out, one after another."""
_ENOUGH = 0.9  # share of the resamples that define a metric, else it has no interval
_SURE = 30  # rows from which a difference that all resamples have is its own interval


@dataclass(frozen=True)
class Judged:
    """One model on the rows of a part.

    Attributes:
        target: what is predicted.
        truth_B: see `metrics.Rows`.
        outputs: likewise.
        names: the metrics, all that fit the task by default.
        unit_B: the unit of each row, such as its user, if units and not rows are independent:
            they are drawn with all of their rows.
    """

    target: schema.Target
    truth_B: np.ndarray
    outputs: np.ndarray
    names: Sequence[str] = ()
    unit_B: np.ndarray | None = None

    def beside(
        self, outputs: np.ndarray, *, target: schema.Target | None = None, names: Sequence[str] = ()
    ) -> "Judged":
        """Another model on the same rows."""
        return Judged(target or self.target, self.truth_B, outputs, names, self.unit_B)

    def some(self, inside_B: np.ndarray, names: Sequence[str]) -> "Judged":
        """The rows (B) that are true."""
        unit_B = None if self.unit_B is None else self.unit_B[inside_B]
        return Judged(self.target, self.truth_B[inside_B], self.outputs[inside_B], names, unit_B)

    @cached_property
    def units(self) -> int:
        """The number of units; of rows, where each is one."""
        return len(self.truth_B) if self.unit_B is None else len(self._rows_of[0])

    @cached_property
    def values(self) -> dict[str, float]:
        """The metrics, NaN where the rows do not define one."""
        names = self.names or metrics.fitting(tasks.REGISTRY[self.target.task])
        return self._score(np.arange(self.units), names)

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """The metrics of each resample (N), NaN where its rows do not define one."""
        random, size = np.random.default_rng(self._seed), min(self.units, MOST_DRAWN)
        classes = self.outputs.shape[1] if self.outputs.ndim > 1 else 1
        rows = size * len(self.truth_B) // max(1, self.units)
        fewer = RESAMPLES * MOST_CELLS // ((rows + classes) * classes)
        count = min(RESAMPLES, max(LEAST_RESAMPLES, fewer))
        drawn = (random.integers(0, self.units, size) for _ in range(count))
        return _columns([self._score(places, self.quick) for places in drawn])

    @cached_property
    def quick(self) -> list[str]:
        """The metrics that are resampled."""
        many, known = len(self.target.classes) > MOST_CLASSES, metrics.REGISTRY
        able = [name for name in self.values if known[name].resampled]
        return [name for name in able if not (many and known[name].by_class)]

    @cached_property
    def without(self) -> dict[str, np.ndarray]:
        """The metrics without each group of rows (K)."""
        units = self.units
        if units < 2:
            return dict.fromkeys(self.quick, np.zeros(0))
        parts = np.array_split(
            np.random.default_rng(self._seed).permutation(units), min(units, GROUPS)
        )
        keep = np.ones(units, bool)
        found = []
        for part in parts:
            keep[part] = False
            found.append(self._score(np.flatnonzero(keep), self.quick))
            keep[part] = True
        return _columns(found)

    @property
    def _seed(self) -> int:
        return zlib.crc32(np.ascontiguousarray(self.truth_B).data)

    @cached_property
    def _rows_of(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each unit its first row and the number of its rows, in an order of rows by unit."""
        assert self.unit_B is not None
        ordered = np.argsort(self.unit_B, kind="stable")
        _, first, count = np.unique(self.unit_B[ordered], return_index=True, return_counts=True)
        return first, count, ordered

    def _drawn(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows of units, and of each the place of its unit among these."""
        if self.unit_B is None:
            return places, None
        first, counts, ordered = self._rows_of
        count = counts[places]
        unit = np.repeat(np.arange(len(places)), count)
        within = np.arange(len(unit)) - np.repeat(np.cumsum(count) - count, count)
        return ordered[np.repeat(first[places], count) + within], unit

    def _score(self, places: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        drawn, unit = self._drawn(places)
        rows = metrics.Rows.of(self.target, self.truth_B[drawn], self.outputs[drawn], unit)
        with np.errstate(all="ignore"):
            return {name: float(metrics.REGISTRY[name].measure(rows)) for name in names}


def estimates(judged: Judged) -> dict[str, Estimate]:
    """Metrics with their intervals, those that the rows do not define left out."""
    rows, found = judged.units, {}
    for name, value in judged.values.items():
        if name not in judged.quick:
            found[name] = Estimate(value=value)
        elif np.isfinite(value):
            found[name] = _estimate(value, judged.resampled[name], judged.without[name], rows)
            if found[name].low is None and metrics.REGISTRY[name].proportion:
                found[name] = proportion(value, rows)
    return {name: one for name, one in found.items() if np.isfinite(one.value)}


def proportion(value: float, rows: int) -> Estimate:
    """A proportion of rows, with its 95 % Wilson score interval."""
    low, high = Bin(said=0.0, was=value, rows=rows).sides
    return Estimate(value=value, low=max(0.0, low), high=min(1.0, high))


def verdict(ours: Judged, theirs: Judged, metric: str) -> Verdict | None:
    """Whether one model scores higher than another on the same rows, beyond noise.

    None where these rows do not define the metric.
    """
    difference = ours.values[metric] - theirs.values[metric]
    if not np.isfinite(difference):
        return None
    if metric not in ours.quick:
        return Verdict(
            outcome="no difference", metric=metric, difference=Estimate(value=difference)
        )
    resampled_N = ours.resampled[metric] - theirs.resampled[metric]
    without_K = ours.without[metric] - theirs.without[metric]
    found = change(difference, resampled_N, without_K, ours.units)
    return Verdict(outcome=_outcome(found, metric), metric=metric, difference=found)


def _outcome(difference: Estimate, metric: str) -> str:
    """The interval decides: without one, or with one around zero, there is no difference."""
    if difference.low is None or difference.high is None:
        return "no difference"
    above, below = difference.low > 0, difference.high < 0
    if not above and not below:
        return "no difference"
    return "better" if above == (metrics.REGISTRY[metric].mode == "max") else "worse"


def change(value: float, resampled_N: np.ndarray, without_K: np.ndarray, rows: int) -> Estimate:
    """Difference of models on the same rows: its interval by resamples (N) and jackknife (K).

    Where all resamples of enough rows are equal, it is its own interval.
    """
    if rows >= _SURE and np.isfinite(resampled_N).all() and np.ptp(resampled_N) == 0:
        return Estimate(value=value, low=value, high=value)
    return _estimate(value, resampled_N, without_K, rows)


def _estimate(value: float, resampled_N: np.ndarray, without_K: np.ndarray, rows: int) -> Estimate:
    finite_N, finite_K = (one[np.isfinite(one)] for one in (resampled_N, without_K))
    if len(finite_N) < _ENOUGH * len(resampled_N) or np.ptp(finite_N) == 0:
        return Estimate(value=value)
    bounds = np.quantile(finite_N, _levels(value, finite_N, finite_K, rows))
    narrowed = np.sqrt(min(rows, MOST_DRAWN) / rows)
    low, high = (value + (bounds - value) * narrowed).tolist()
    return Estimate(value=value, low=low, high=high)


def _levels(value: float, resampled_N: np.ndarray, without_K: np.ndarray, rows: int) -> np.ndarray:
    """The two shares of the resamples that bound the interval.

    BCa, expanded for few rows by Student's t (Hesterberg 2015, section 5.4).
    """
    below = float((resampled_N < value).mean() + (resampled_N == value).mean() / 2)
    least = 1 / len(resampled_N)
    bias = stats.norm.ppf(min(max(below, least), 1 - least))
    off_K = without_K.mean() - without_K if len(without_K) else np.zeros(1)
    spread = float((off_K**2).sum()) ** 1.5
    skew = float((off_K**3).sum()) / (6 * spread) if spread else 0.0
    reach = stats.t.ppf((1 + LEVEL) / 2, max(1, rows - 1)) * np.sqrt(rows / max(1, rows - 1))
    edges = bias + np.array([-reach, reach])
    levels: np.ndarray = stats.norm.cdf(bias + edges / (1 - skew * edges))
    return levels


def _columns(scores: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([one[name] for one in scores]) for name in scores[0]}
