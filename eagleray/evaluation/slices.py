"""Groups of rows that are predicted worse than the others, by a column or a pair of columns.

A group's mean miss is compared with that of all other rows by Welch's test; Holm's correction
accounts for all groups that are looked at, and intervals hold for all of them at once (Bonferroni).

Legend: B rows, K groups of a column or of a pair.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from eagleray.evaluation import intervals
from eagleray.learn import schema
from eagleray.state.evaluations import Estimate, Slice

LEAST_ROWS, LEAST_SHARE = 25, 0.01
"""A group has at least this many rows, and this share of all."""
MOST_NAMES = 12  # maximum number of groups of a column of names; the others are one group
QUANTILES = 4  # groups of a column of numbers
MOST_COLUMNS = 200  # maximum number of columns that are looked at
MOST_PAIRED = 10  # maximum number of columns whose pairs are looked at
MOST_LISTED = 8
LEVEL = 0.05
_MISSING, _OTHERS = "missing", "other"


class Groups(NamedTuple):
    """A column's rows by group: `place_B` is an index of `names`."""

    column: str
    names: list[str]
    place_B: np.ndarray


@dataclass(frozen=True)
class _Candidate:
    where: dict[str, str]
    row_K: np.ndarray  # rows of the group
    p: float
    gap: float  # of the mean misses


def worst(
    judged: intervals.Judged,
    metric: str,
    columns: Sequence[tuple[schema.Column, np.ndarray]],
    miss_B: np.ndarray,
) -> tuple[list[Slice], int]:
    """Groups that are worse beyond noise, the worst first, and how many were looked at."""
    found = [groups(column, array) for column, array in columns[:MOST_COLUMNS]]
    single = {one.column: list(_candidates(one, miss_B)) for one in found}
    telling = sorted(found, key=lambda one: min((c.p for c in single[one.column]), default=1.0))
    pairs = itertools.combinations(telling[:MOST_PAIRED], 2)
    every = [*itertools.chain(*single.values())]
    for first, second in pairs:
        every += _candidates(_crossed(first, second), miss_B)
    chosen = _distinct(_significant(every))[:MOST_LISTED]
    return [_slice(one, judged, metric, miss_B, len(every)) for one in chosen], len(every)


def groups(column: schema.Column, array_B: np.ndarray) -> Groups:
    """The rows of a column in groups: names, ranges of numbers, and missing values."""
    quantity_B = column.kind.quantity(array_B)
    if quantity_B.dtype == object:
        return _named(column.name, quantity_B)
    return _ranged(column.name, quantity_B.astype(float))


def _named(name: str, word_B: np.ndarray) -> Groups:
    words, place_B, counts = np.unique(
        np.array([_MISSING if one is None else str(one) for one in word_B.tolist()], object),
        return_inverse=True,
        return_counts=True,
    )
    often = np.argsort(-counts, kind="stable")[:MOST_NAMES]
    renamed = np.full(len(words), len(often))
    renamed[often] = np.arange(len(often))
    return Groups(name, [*words[often].tolist(), _OTHERS], renamed[place_B])


def _ranged(name: str, number_B: np.ndarray) -> Groups:
    present = number_B[~np.isnan(number_B)]
    if not len(present):
        return Groups(name, [_MISSING], np.zeros(len(number_B), int))
    levels = np.linspace(0, 1, QUANTILES + 1)[1:-1]
    edges = np.unique(np.quantile(present, levels, method="inverted_cdf"))
    edges = edges[edges < present.max()]
    place_B = np.searchsorted(edges, number_B)
    place_B[np.isnan(number_B)] = len(edges) + 1
    bounds = [float(present.min()), *edges.tolist(), float(present.max())]
    ranges = [_range(low, high) for low, high in itertools.pairwise(bounds)]
    return Groups(name, [*ranges, _MISSING], place_B)


def _range(low: float, high: float) -> str:
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _crossed(first: Groups, second: Groups) -> Groups:
    width = len(second.names)
    names = [f"{one}\0{other}" for one in first.names for other in second.names]
    return Groups(f"{first.column}\0{second.column}", names, first.place_B * width + second.place_B)


def _candidates(of: Groups, miss_B: np.ndarray) -> Iterator[_Candidate]:
    """Yield each group of enough rows with the p-value of its being worse."""
    least, rows = max(LEAST_ROWS, LEAST_SHARE * len(miss_B)), len(miss_B)
    count_K = np.bincount(of.place_B, minlength=len(of.names))
    sum_K, square_K = (
        np.bincount(of.place_B, weights, minlength=len(of.names)) for weights in (miss_B, miss_B**2)
    )
    for place in np.flatnonzero((count_K >= least) & (count_K <= rows - LEAST_ROWS)).tolist():
        inside = count_K[place], sum_K[place], square_K[place]
        outside = rows - inside[0], sum_K.sum() - inside[1], square_K.sum() - inside[2]
        p, gap = _welch(inside, outside)
        where = dict(zip(of.column.split("\0"), of.names[place].split("\0"), strict=True))
        yield _Candidate(where, np.flatnonzero(of.place_B == place), p, gap)


def _welch(
    inside: tuple[float, float, float], outside: tuple[float, float, float]
) -> tuple[float, float]:
    """One-sided p-value that the first mean is not larger, and the difference of the means."""
    means, errors, freedoms = [], [], []
    for count, total, squares in (inside, outside):
        mean = total / count
        error = max(squares / count - mean**2, 0.0) / (count - 1)
        means.append(mean)
        errors.append(error)
        freedoms.append(error**2 / (count - 1))
    gap, variance = means[0] - means[1], sum(errors)
    if variance <= 0:
        return 1.0, gap
    freedom = variance**2 / sum(freedoms)
    return float(stats.t.sf(gap / np.sqrt(variance), freedom)), gap


def _significant(every: Sequence[_Candidate]) -> list[_Candidate]:
    """Those that Holm's correction leaves, the largest effect on the whole first."""
    ordered = sorted(every, key=lambda one: one.p)
    kept = []
    for place, one in enumerate(ordered):
        if one.p > LEVEL / (len(ordered) - place):
            break
        kept.append(one)
    return sorted(kept, key=lambda one: -one.gap * np.sqrt(len(one.row_K)))


def _distinct(ordered: Sequence[_Candidate]) -> list[_Candidate]:
    """Without pairs of which a column alone tells as much, and without repeated rows."""
    kept: list[_Candidate] = []
    for one in ordered:
        if not any(_alike(one, other) for other in kept):
            kept.append(one)
    return kept


def _alike(one: _Candidate, other: _Candidate) -> bool:
    """Whether most rows of the smaller group are in the other, and that is no worse by a fourth."""
    shared = len(np.intersect1d(one.row_K, other.row_K, assume_unique=True))
    inside = shared > 0.8 * min(len(one.row_K), len(other.row_K))
    return inside and one.gap < 1.25 * other.gap


def _slice(
    one: _Candidate, judged: intervals.Judged, metric: str, miss_B: np.ndarray, looked: int
) -> Slice:
    inside = miss_B[one.row_K]
    rest = np.delete(miss_B, one.row_K)
    reach = stats.norm.ppf(1 - LEVEL / (2 * looked)) * inside.std(ddof=1) / np.sqrt(len(inside))
    part = intervals.Judged(
        judged.target, judged.truth_B[one.row_K], judged.outputs[one.row_K], (metric,)
    )
    mean = float(inside.mean())
    return Slice(
        where=one.where,
        rows=len(one.row_K),
        miss=Estimate(value=mean, low=mean - float(reach), high=mean + float(reach)),
        others=float(rest.mean()),
        score=intervals.estimates(part).get(metric),
    )
