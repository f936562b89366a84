"""Groups of rows that are predicted worse than the others, by a column or a pair of columns.

A group's mean miss is compared with that of all other rows by Welch's test; Holm's correction
accounts for all groups that could be looked at, those of pairs that are not chosen among them, and
intervals hold for all of them at once (Bonferroni).

Legend: B rows, K groups of a column or of a pair.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from eagleray import messages
from eagleray.evaluation import intervals
from eagleray.learn import schema
from eagleray.learn.columns import values
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
    places: tuple[tuple[Groups, int], ...]  # a group of one column, or of each of two
    rows: int
    p: float
    gap: float  # of the mean misses

    @property
    def where(self) -> dict[str, str]:
        return {of.column: of.names[place] for of, place in self.places}

    @property
    def inside_B(self) -> np.ndarray:
        """Whether each row is in the group; made when it is asked for."""
        inside_B: np.ndarray = np.all([of.place_B == place for of, place in self.places], axis=0)
        return inside_B


def worst(
    judged: intervals.Judged,
    metric: str,
    columns: Sequence[tuple[schema.Column, np.ndarray]],
    miss_B: np.ndarray,
) -> tuple[list[Slice], int]:
    """Groups that are worse beyond noise, the worst first, and how many were looked at."""
    found = [groups(column, array) for column, array in columns[:MOST_COLUMNS]]
    single = {one.column: list(_candidates(miss_B, one)) for one in found}
    telling = sorted(found, key=lambda one: min((c.p for c in single[one.column]), default=1.0))
    alone = [*itertools.chain(*single.values())]
    paired = [
        one
        for two in itertools.combinations(telling[:MOST_PAIRED], 2)
        for one in _candidates(miss_B, *two)
    ]
    every, possible = [*alone, *paired], len(paired)
    if len(found) > MOST_PAIRED:  # chosen by the same rows
        possible = max(possible, _pairs(found, len(miss_B)))
    tests = len(alone) + possible
    chosen = _distinct(_significant(every, tests))
    return [_slice(one, judged, metric, miss_B, tests) for one in chosen], len(every)


def groups(column: schema.Column, array_B: np.ndarray) -> Groups:
    """The rows of a column in groups: names, ranges of numbers, and missing values."""
    quantity_B = column.kind.quantity(array_B)
    if quantity_B.dtype == object:
        return _named(column.name, quantity_B)
    column = column.model_copy(update={"name": column.kind.measured.format(column.name)})
    return _ranged(column, quantity_B.astype(float))


def _named(name: str, word_B: np.ndarray) -> Groups:
    words, place_B, counts = np.unique(
        np.array([_MISSING if one is None else str(one) for one in word_B.tolist()], object),
        return_inverse=True,
        return_counts=True,
    )
    often = np.argsort(-counts, kind="stable")[:MOST_NAMES]
    renamed = np.full(len(words), len(often))
    renamed[often] = np.arange(len(often))
    return Groups(name, [*words[often].tolist(), _OTHERS], renamed[place_B].astype(np.int16))


def _ranged(column: schema.Column, number_B: np.ndarray) -> Groups:
    present = number_B[~np.isnan(number_B)]
    if not len(present):
        return Groups(column.name, [_MISSING], np.zeros(len(number_B), np.int16))
    levels = np.linspace(0, 1, QUANTILES + 1)[1:-1]
    edges = np.unique(np.quantile(present, levels, method="inverted_cdf"))
    edges = edges[edges < present.max()]
    place_B = np.searchsorted(edges, number_B).astype(np.int16)
    place_B[np.isnan(number_B)] = len(edges) + 1
    ranges = [_range(column, number_B[place_B == place]) for place in range(len(edges) + 1)]
    return Groups(column.name, [*ranges, _MISSING], place_B)


def _range(column: schema.Column, number_K: np.ndarray) -> str:
    """A group's own smallest and largest number or time."""
    ends = np.array([number_K.min(), number_K.max()])
    if column.kind.is_time:
        low, high = map(values.shown, column.kind.to_json(ends))
    else:
        low, high = map(_number, ends.tolist())
    return f"{low}" if low == high else f"{low} to {high}"


def _number(value: float) -> str:
    """A number with four digits; a year has no comma."""
    return f"{value:.4g}" if abs(value) < 10_000 else messages.number(value)


def _least(rows: int) -> float:
    return max(LEAST_ROWS, LEAST_SHARE * rows)


def _pairs(found: Sequence[Groups], rows: int) -> int:
    """How many groups all pairs of columns have at most."""
    able = [int((np.bincount(one.place_B) >= _least(rows)).sum()) for one in found]
    return (sum(able) ** 2 - sum(one**2 for one in able)) // 2


def _candidates(miss_B: np.ndarray, *of: Groups) -> Iterator[_Candidate]:
    """Yield each group of enough rows with the p-value of its being worse."""
    least, rows = _least(len(miss_B)), len(miss_B)
    sizes = [len(one.names) for one in of]
    place_B, size = np.ravel_multi_index([one.place_B for one in of], sizes), math.prod(sizes)
    count_K = np.bincount(place_B, minlength=size)
    sum_K, square_K = (
        np.bincount(place_B, weights, minlength=size) for weights in (miss_B, miss_B**2)
    )
    for place in np.flatnonzero((count_K >= least) & (count_K <= rows - LEAST_ROWS)).tolist():
        inside = count_K[place], sum_K[place], square_K[place]
        outside = rows - inside[0], sum_K.sum() - inside[1], square_K.sum() - inside[2]
        p, gap = _welch(inside, outside)
        places = tuple(zip(of, map(int, np.unravel_index(place, sizes)), strict=True))
        yield _Candidate(places, int(count_K[place]), p, gap)


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
    if variance <= 0:  # all rows of each side miss alike
        return float(gap <= 0), gap
    freedom = variance**2 / sum(freedoms)
    return float(stats.t.sf(gap / np.sqrt(variance), freedom)), gap


def _significant(every: Sequence[_Candidate], tests: int) -> list[_Candidate]:
    """Those that Holm's correction for so many leaves, the largest effect on the whole first."""
    ordered = sorted(every, key=lambda one: one.p)
    kept = []
    for place, one in enumerate(ordered):
        if one.p > LEVEL / (tests - place):
            break
        kept.append(one)
    return sorted(kept, key=lambda one: -one.gap * np.sqrt(one.rows))


def _distinct(ordered: Sequence[_Candidate]) -> list[_Candidate]:
    """The first without pairs of which a column alone tells as much, and without repeated rows."""
    kept: list[tuple[_Candidate, np.ndarray]] = []
    for one in ordered:
        inside_B = one.inside_B
        if not any(_alike(one, other, int((inside_B & its_B).sum())) for other, its_B in kept):
            kept.append((one, inside_B))
        if len(kept) == MOST_LISTED:
            break
    return [one for one, _ in kept]


def _alike(one: _Candidate, other: _Candidate, shared: int) -> bool:
    """Whether most rows of the smaller group are in the other, and that is no worse by a fourth."""
    return shared > 0.8 * min(one.rows, other.rows) and one.gap < 1.25 * other.gap


def _slice(
    one: _Candidate, judged: intervals.Judged, metric: str, miss_B: np.ndarray, tests: int
) -> Slice:
    inside_B = one.inside_B
    inside, rest = miss_B[inside_B], miss_B[~inside_B]
    reach = stats.norm.ppf(1 - LEVEL / (2 * tests)) * inside.std(ddof=1) / np.sqrt(len(inside))
    part = judged.some(inside_B, (metric,))
    mean = float(inside.mean())
    return Slice(
        where=one.where,
        rows=one.rows,
        miss=Estimate(value=mean, low=mean - float(reach), high=mean + float(reach)),
        others=float(rest.mean()),
        score=intervals.estimates(part).get(metric),
    )
