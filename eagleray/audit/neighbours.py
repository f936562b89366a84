"""A check of rows that copy others but for noise.

At points of a cloud of dimension D, the distances to the k-th and to the next neighbour have a
ratio below r with a probability of r^(k·D), however dense the cloud is there (Facco, d'Errico,
Rodriguez and Laio 2017, doi:10.1038/s41598-017-11873-y). Copies have smaller ratios, and D is
taken from neighbours that are farther away.

Legend: B rows, F coordinates, N numbers of a column, U rows that are looked at, K neighbours.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eagleray import messages
from eagleray.audit import estimates
from eagleray.audit.repeats import FEW, MANY, MOST
from eagleray.audit.table import COLUMN_ROWS, Table
from eagleray.findings import Finding, noted, warned, wrong
from eagleray.learn import columns, repeats
from eagleray.learn.schema import Column

WORK = 4e10
"""Most multiplications: rows that are looked at times all rows times coordinates."""
MOST_COORDINATES = 100
NEAR, FAR = 6, 12
"""Neighbours that the dimension is taken from."""
COPIES = NEAR - 1
"""Most copies of a row."""
RATIOS = (0.3, 0.1, 0.03, 0.01, 0.003)
"""Ratios below which rows are copies, but for the last; that counts which most are below, beyond
chance."""
FLAT = 0.35
"""Share of the rows below a ratio that are below the next one too, where columns are names: rows
of the same few names lie near each other in few dimensions, and thin out."""
MARGIN, UNLIKELY, LEAST = 2.0, 1e-3, 3
"""How many times as many rows as expected may be below a ratio, the probability of so many by
chance below which they are told, and fewest pairs of rows: of two copies each is near the other."""
TRIMMED, GAP = 0.001, 4.0
"""Share of a column's numbers at either end that is not told apart, and what stands for a missing
one, in standard deviations."""


class _Near(NamedTuple):
    """Rows that are looked at, and their neighbours, the nearest first."""

    place_U: np.ndarray
    near_UK: np.ndarray
    distance_UK: np.ndarray


class _Copies(NamedTuple):
    """Rows that copy others, the closest first, and which others each is like."""

    places: np.ndarray
    others: list[np.ndarray]  # the nearest first
    ratio: float
    chance: float  # share of the rows that are expected below this ratio


def noisy_copies(table: Table) -> Iterator[Finding]:
    """Rows that are much nearer to another one than chance explains."""
    near = _look(table)
    if near is None or (found := _copies(table, near)) is None:
        return
    count, looked = len(found.places), len(near.place_U)
    share = count / looked - found.chance
    shares = {part: _across(table, near, found, part) for part in ("validation", "test")}
    worst = max(shares.values()) - found.chance
    leaks = wrong if worst >= MOST else warned
    tell = leaks if worst >= MANY and count >= FEW else warned if share >= MANY else noted
    torn = (
        f"; {messages.percent(shares['test'])} of the rows of the test part and "
        f"{messages.percent(shares['validation'])} of the validation part nearly repeat a "
        "training row, so that a model that remembers rows looks better than it is"
    )
    yield tell(
        f"{count:,} of {looked:,} rows ({messages.percent(count / looked)}, by chance "
        f"{messages.percent(found.chance)}) nearly repeat another row, at least "
        f"{1 / found.ratio:.0f} times nearer than the next"
        + (torn if any(shares.values()) else ""),
        evidence=(*table.scope(looked), *_pairs(table, found)),
        numbers={
            "rows": count,
            "share": share,
            "by chance": found.chance,
            "validation share": shares["validation"],
            "test share": shares["test"],
        },
        rows=table.numbers(found.places[:100]),
    )


def _look(table: Table) -> _Near | None:
    """Neighbours of rows that are drawn by chance, among all that differ; None of too few."""
    from sklearn.neighbors import NearestNeighbors

    point_BF = _points(table)
    among = np.flatnonzero(columns.first_of_each(table.hashes.inputs_B))
    if point_BF is None or len(among) < estimates.LEAST_ROWS:
        return None
    most = max(estimates.LEAST_ROWS, int(WORK / (len(among) * point_BF.shape[1])))
    place_U = np.sort(np.random.default_rng(0).permutation(among)[:most])
    model = NearestNeighbors(n_neighbors=FAR + 1, algorithm="brute").fit(point_BF[among])
    distance_UK, found_UK = model.kneighbors(point_BF[place_U])
    near_UK = among[found_UK]
    itself_UK = near_UK == place_U[:, None]
    itself_UK[~itself_UK.any(axis=1), -1] = True
    shape = (len(place_U), FAR)
    return _Near(
        place_U, near_UK[~itself_UK].reshape(shape), distance_UK[~itself_UK].reshape(shape)
    )


def _copies(table: Table, near: _Near) -> _Copies | None:
    """The rows below one of the ratios; None where chance explains them."""
    from scipy.stats import binom

    dimension = _dimension(near.distance_UK)
    ratio_U, size_U = _ratios(near.distance_UK)
    copies_U = ratio_U <= RATIOS[0]
    copies_U[copies_U] = _telling(table, near.place_U[copies_U], near.near_UK[copies_U, 0])
    looked = len(ratio_U)
    chances = {one: _chance(one, dimension) for one in RATIOS}
    counts = {one: int((copies_U & (ratio_U <= one)).sum()) for one in RATIOS}
    flat = [
        one
        for one, lower in itertools.pairwise(RATIOS)
        if not _named(table) or counts[lower] >= FLAT * counts[one]
    ]
    if not flat:
        return None
    ratio = max(flat, key=lambda one: counts[one] - MARGIN * chances[one] * looked)
    pairs, likely = counts[ratio] // 2, min(1.0, MARGIN * chances[ratio])
    if pairs < LEAST or binom.sf(pairs - 1, looked // 2, likely) > UNLIKELY:
        return None
    chosen = np.flatnonzero(copies_U & (ratio_U <= ratio))
    chosen = chosen[np.argsort(ratio_U[chosen], kind="stable")]
    others = [near.near_UK[at, : size_U[at]] for at in chosen.tolist()]
    return _Copies(near.place_U[chosen], others, ratio, chances[ratio])


def _named(table: Table) -> bool:
    return any(array.dtype == object for _, array in _compared(table))


def _chance(ratio: float, dimension: float) -> float:
    """The share of rows that are expected below a ratio, for any number of copies."""
    return float(sum(ratio ** (dimension * size) for size in range(1, COPIES + 1)))


def _dimension(distance_UK: np.ndarray) -> float:
    """The dimension of the cloud; 0 where distances do not tell.

    The share of the farther ball's points that the nearer one has is half in the median.
    """
    near_U, far_U = distance_UK[:, NEAR - 1], distance_UK[:, FAR - 1]
    apart_U = near_U > 0
    if not apart_U.any():
        return 0.0
    growth = float(np.median(np.log(far_U[apart_U] / near_U[apart_U])))
    return float(np.log(2) / growth) if growth > 0 else 0.0


def _ratios(distance_UK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest ratio of a distance to the next one (U), and how many neighbours are nearer."""
    nearer_UK, next_UK = distance_UK[:, :COPIES], distance_UK[:, 1 : COPIES + 1]
    ratio_UK = np.divide(nearer_UK, next_UK, out=np.ones_like(next_UK), where=next_UK > 0)
    return ratio_UK.min(axis=1), ratio_UK.argmin(axis=1) + 1


def _across(table: Table, near: _Near, found: _Copies, part: str) -> float:
    """The share of the rows of a part that copy a training row."""
    trained_B, of_part_B = (np.zeros(len(table), bool) for _ in range(2))
    trained_B[table.parts["training"]] = True
    of_part_B[table.parts[part]] = True
    copied = sum(
        bool(of_part_B[place] and trained_B[others].any())
        for place, others in zip(found.places.tolist(), found.others, strict=True)
    )
    return copied / max(1, int(of_part_B[near.place_U].sum()))


def _compared(table: Table) -> Iterator[tuple[Column, np.ndarray]]:
    """The inputs by which rows are compared."""
    width = 0
    for column, array in table:
        if width >= MOST_COORDINATES:
            return
        width += _numbers(column, array[:1]).shape[1] if array.dtype != object else 2
        yield column, array


def _numbers(column: Column, array: np.ndarray) -> np.ndarray:
    """The numbers of a column (B, N)."""
    numbers = array[:, None] if array.ndim == 1 else column.kind.traits(array)
    bounded_BN: np.ndarray = np.clip(numbers, -1e30, 1e30)
    return bounded_BN


def _points(table: Table) -> np.ndarray | None:
    """Coordinates of the rows (B, F), each with a deviation of about 1; None without numbers."""
    random, sample = np.random.default_rng(0), table.sample(COLUMN_ROWS)
    names, numbers = list[np.ndarray](), list[np.ndarray]()
    for column, array in _compared(table):
        if array.dtype == object:
            names.append(_scattered(column.kind.blurred(array), random))
        else:
            numbers.append(_scaled(_numbers(column, array), sample))
    if not sum(one.shape[1] for one in numbers):
        return None
    point_BF: np.ndarray = np.concatenate([*numbers, *names], axis=1)
    return point_BF


def _scattered(names_B: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A point by chance for each name."""
    import pandas as pd

    code_B, names = pd.factorize(names_B)  # -1 where missing, which is the last one
    points = random.normal(scale=0.5**0.5, size=(len(names) + 1, 2)).astype(np.float32)
    point_BF: np.ndarray = points[code_B]
    return point_BF


def _scaled(number_BN: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """The numbers that differ, in standard deviations of the bulk."""
    known = number_BN[sample].astype(np.float64)
    known_N = ~np.isnan(known).all(axis=0)
    number_BN, known = number_BN[:, known_N], known[:, known_N]
    low_N, high_N = np.nanquantile(known, (TRIMMED, 1 - TRIMMED), axis=0)
    bulk = np.clip(known, low_N, high_N)
    center_N, spread_N = np.nanmean(bulk, axis=0), np.nanstd(bulk, axis=0)
    wide_N = spread_N > 0
    bounded_BN = np.clip(number_BN, low_N, high_N)[:, wide_N]
    scaled_BN: np.ndarray = ((bounded_BN - center_N[wide_N]) / spread_N[wide_N]).astype(np.float32)
    scaled_BN[np.isnan(scaled_BN)] = GAP
    return scaled_BN


def _telling(table: Table, place_U: np.ndarray, other_U: np.ndarray) -> np.ndarray:
    """Whether a row can hardly have a row as similar as that other one by chance (U).

    Columns are taken for less independent than they look, see `repeats`. Names are the same.
    """
    bits_U, sample = np.zeros(len(place_U)), table.sample(COLUMN_ROWS)
    for column, array in _compared(table):
        parts = array[place_U], array[other_U], array[sample]
        if array.dtype == object:
            bits_U += _of_names(*map(column.kind.blurred, parts))
        else:
            mine, other, known = (_numbers(column, part) for part in parts)
            for one in zip(mine.T, other.T, known.T, strict=True):
                bits_U += _of_numbers(*one)
    telling_U: np.ndarray = bits_U * repeats.DEPENDENT >= (np.log2(len(table)) + repeats.SPARE_BITS)
    return telling_U


def _of_names(mine_U: np.ndarray, other_U: np.ndarray, known_B: np.ndarray) -> np.ndarray:
    """How rare a name is, in bits (U); minus infinity where the other one is another name."""
    import pandas as pd

    codes, names = pd.factorize(np.concatenate([known_B, mine_U, other_U]), use_na_sentinel=False)
    known, mine, other = np.split(codes, [len(known_B), len(known_B) + len(mine_U)])
    rows = np.bincount(known, minlength=len(names))[mine]
    bits_U: np.ndarray = np.where(mine == other, _bits(rows, len(known_B)), -np.inf)
    return bits_U


def _of_numbers(mine_U: np.ndarray, other_U: np.ndarray, known_B: np.ndarray) -> np.ndarray:
    """How rare numbers are that are as close, in bits (U); see `_of_names` for gaps."""
    ordered = np.sort(known_B[~np.isnan(known_B)])
    gap_U = np.abs(mine_U - other_U)
    rows = np.searchsorted(ordered, mine_U + gap_U, "right") - np.searchsorted(
        ordered, mine_U - gap_U
    )
    no_mine, no_other = np.isnan(mine_U), np.isnan(other_U)
    rows = np.where(no_mine, len(known_B) - len(ordered), rows)
    bits_U: np.ndarray = np.where(no_mine == no_other, _bits(rows, len(known_B)), -np.inf)
    return bits_U


def _bits(rows: np.ndarray, of: int) -> np.ndarray:
    bits: np.ndarray = -np.log2(np.maximum(rows, 1) / of)
    return bits


def _pairs(table: Table, found: _Copies) -> tuple[str, ...]:
    """Sample rows, each with the number of the row that it nearly repeats."""
    shown = table.shown(found.places)
    return tuple(
        text.replace(": ", f" is nearly row {table.rows[others[0]]:,}: ", 1)
        for text, others in zip(shown, found.others, strict=False)
    )
