"""Numbers of the target that look wrong: far from what models of the other rows say.

Heavy tails thin out: of the residuals that are far from zero, most are not twice as far. Numbers
that were mistyped, or are of other rows, are as far as chance has it. Legend: B rows.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eagleray import messages
from eagleray.audit import estimates
from eagleray.audit.table import MOST_ROWS, MOST_SHOWN, Table
from eagleray.findings import Finding, warned
from eagleray.learn import losses

FAR, FARTHER = 4.0, 8.0
"""Robust standard deviations from which a residual is far, and much farther."""
FLAT = 0.35
"""Share of the far ones that is much farther, from which tails do not thin out."""
LEAST, LEAST_SURE, MOST = 0.004, 0.002, 0.1
"""Share of residuals that are much farther, its lower bound, and most of the far ones."""
LEAST_SKILL = 0.25
"""How much smaller than the spread the median residual is at least."""
BOUND = 3.0
"""Quartile distances beyond the quartiles to which models are given the target."""
BINS, LEAST_OF_BIN, LEAST_SPREAD = 20, 50, 0.25
"""Parts of the rows, by prediction, that have a spread of their own; fewest rows of one; and least
share of the whole one's spread."""
NORMAL = 1.4826
"""A standard deviation in median absolute deviations, of normal errors."""
ROBUST = "huber"


class _Residuals(NamedTuple):
    """Deviations of the rows from what is predicted, in their robust standard deviations (B)."""

    away_B: np.ndarray
    predicted_B: np.ndarray  # in the target's own unit


def wrong_numbers(table: Table) -> Iterator[Finding]:
    """Numbers that are much farther from their predictions than the tails of the others reach."""
    found = _residuals(table)
    if found is None or not _broken_off(found.away_B):
        return
    places = np.flatnonzero(found.away_B > FAR)
    places = places[np.argsort(-found.away_B[places], kind="stable")]
    looked = len(table.modelled)
    rows, share = table.modelled[places], len(places) / looked
    evidence = [
        f"predicted {found.predicted_B[place]:.6g}, {found.away_B[place]:.0f} deviations off: {row}"
        for place, row in zip(places[:MOST_SHOWN].tolist(), table.shown(rows), strict=True)
    ]
    yield warned(
        f"{table.schema.target.name}: {len(places):,} of {looked:,} numbers "
        f"({messages.percent(share)}) look wrong: more than {FAR:.0f} deviations from what models "
        "of the other rows predict, and many much more: a decimal point, a unit, another row's?",
        _robust(table),
        evidence=(*table.scope(looked), *evidence),
        numbers={
            "share": share,
            "much farther": float(np.mean(found.away_B > FARTHER)),
            "suspects": len(places),
        },
        rows=table.numbers(rows[:MOST_ROWS]),
    )


def _residuals(table: Table) -> _Residuals | None:
    """None where models explain too little, or half of the numbers hardly differ."""
    value_B, is_log = _evened(table.truths(table.modelled))
    low, middle, high = np.quantile(value_B, (0.25, 0.5, 0.75))
    if not high > low:
        return None
    margin = BOUND * (high - low)
    predicted_B = table.predict(table.folds, truth=np.clip(value_B, low - margin, high + margin))
    if predicted_B is None:
        return None
    off_B = np.abs(value_B - predicted_B)
    whole = float(np.median(off_B))
    if whole > (1 - LEAST_SKILL) * float(np.median(np.abs(value_B - middle))) or not whole:
        return None
    spread_B = np.maximum(_spread(off_B, predicted_B), LEAST_SPREAD * whole)
    return _Residuals(off_B / (NORMAL * spread_B), np.exp(predicted_B) if is_log else predicted_B)


def _evened(value_B: np.ndarray) -> tuple[np.ndarray, bool]:
    """Values, or their logarithms if these lie more evenly about their median, and which it is."""
    if value_B.min() <= 0:
        return value_B, False
    logs_B = np.log(value_B)
    return (logs_B, True) if _skew(logs_B) < _skew(value_B) else (value_B, False)


def _skew(value_B: np.ndarray) -> float:
    """How unevenly the middle eight tenths lie about the median, from 0 to 1."""
    low, middle, high = np.quantile(value_B, (0.1, 0.5, 0.9))
    return float(abs(high + low - 2 * middle) / (high - low)) if high > low else 1.0


def _spread(off_B: np.ndarray, predicted_B: np.ndarray) -> np.ndarray:
    """The median deviation of rows that are predicted alike (B)."""
    order = np.argsort(predicted_B, kind="stable")
    spread_B = np.empty(len(off_B))
    for rows in np.array_split(order, max(1, min(BINS, len(order) // LEAST_OF_BIN))):
        spread_B[rows] = np.median(off_B[rows])
    return spread_B


def _broken_off(away_B: np.ndarray) -> bool:
    """Whether there are residuals that the tails of the others do not reach."""
    far, farther = (int(np.count_nonzero(away_B > one)) for one in (FAR, FARTHER))
    rows = len(away_B)
    if far > MOST * rows or farther < LEAST * rows:
        return False
    return farther >= FLAT * far and estimates.lower_bound(farther, rows) >= LEAST_SURE


def _robust(table: Table) -> str:
    """The setting of a robust loss; empty where one is set, or the task has none."""
    fits = ROBUST in losses.fitting(type(table.task)) and set(table.experiment.losses) <= {
        "auto",
        type(table.task).loss,
    }
    return messages.setting({"train": {"loss": ROBUST}}).strip("`") if fits else ""
