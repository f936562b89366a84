"""Checks of how rows are parted: groups and times that a random split tears apart.

The evidence is a measured one: how well the same rows are predicted by models that have seen others
of their group or time, and by models that have not.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from eagleray import messages
from eagleray.audit import estimates
from eagleray.audit.table import Table
from eagleray.findings import Finding, warned, wrong

LEAST_GAP, LARGE_GAP = 0.05, 0.1
"""Skill beyond that of honest folds that is warned of, and that is an error."""
BLOCKS = 25
"""Runs of neighbouring rows that keep together, a fifth of them in each fold."""
NEWEST = 0.2
"""Share of the rows that is predicted from all earlier ones."""
MOST_COLUMNS = 3
"""Groups and times that are tried."""
_BIRTH = re.compile(r"(?i)birth|born|\bdob\b|_dob$")


def groups(table: Table) -> Iterator[Finding]:
    """Rows of one person or thing in several parts, whose target is learned by heart.

    An error where the rows are alike beside the column itself: without it, the column may as well
    be a category that later rows have too.
    """
    split = table.experiment.data.split
    if split.group or split.time:
        return
    known = {name: codes for name, codes in table.entities.items() if name not in table.leaks}
    for name, group_B in list(known.items())[:MOST_COLUMNS]:
        fold_B, every = estimates.grouped(group_B[table.modelled]), np.arange(len(table.modelled))
        apart, together = _skills(table, fold_B, every)
        if apart - together < LEAST_GAP:
            continue
        without = _skills(table, fold_B, every, without=name)
        alike = without[0] - without[1] >= LARGE_GAP
        shared = np.isin(group_B[table.parts["test"]], group_B[table.parts["training"]]).mean()
        unless = "" if alike else ", unless later rows are of the same ones"
        tell = wrong if alike else warned
        yield tell(
            f"{name}: {messages.percent(float(shared))} of the rows of the test part share it with "
            f"training rows, which a model learns by heart: {_gap(table, apart, together)} once "
            f"its rows stay together{unless}",
            _split(table, group=name),
            evidence=table.scope(len(table.modelled)),
            column=name,
            numbers={
                "shared": float(shared),
                "apart": apart,
                "together": together,
                "apart without it": without[0],
                "together without it": without[1],
            },
        )


def times(table: Table) -> Iterator[Finding]:
    """Rows that are like their neighbours in time, or in the source, and stand in other parts."""
    split = table.experiment.data.split
    if split.group or split.time:
        return
    candidates = list(_times(table))[:MOST_COLUMNS]
    for name, time_B, is_time in candidates:
        modelled_B = time_B[table.modelled]
        apart, blocks = _skills(table, _blocks(modelled_B), np.arange(len(modelled_B)))
        newest = np.argsort(modelled_B, kind="stable")[-int(NEWEST * len(modelled_B)) :]
        now, later = _skills(table, _forward(modelled_B, newest), newest) if is_time else (0.0, 0.0)
        gap = max(apart - blocks, now - later)
        if gap < LEAST_GAP:
            continue
        what = "from earlier rows alone" if now - later >= apart - blocks else "from other times"
        shown = (now, later) if now - later >= apart - blocks else (apart, blocks)
        tell = wrong if gap >= LARGE_GAP and is_time else warned
        yield tell(
            f"{_described(table, name, time_B)}: {_gap(table, *shown)} {what}",
            _split(table, time=name) if name else "",
            evidence=table.scope(len(table.modelled)),
            column=name,
            numbers={"apart": apart, "blocks": blocks, "now": now, "later": later},
        )


def _times(table: Table) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Columns of time, each with a number for every row (B), and whether it surely is a time.

    Where there are none, a counter of rows; else the order of rows, without a name.
    """
    known = [
        (column.name, array, True)
        for column, array in table
        if column.name in table.clocks and column.kind.is_time and not _BIRTH.search(column.name)
    ]
    inputs = [(column, array) for column, array in table if column.name in table.clocks]
    counters = [
        (column.name, array, False)
        for column, array in [*table.keys, *inputs]
        if column.kind.is_ordered and not column.kind.is_time and (np.diff(array) > 0).all()
    ]
    yield from known or counters[:1] or [("", np.arange(len(table), dtype=np.float64), False)]


def _described(table: Table, name: str, time_B: np.ndarray) -> str:
    if not name:
        return "rows are like those before and after them, some of which are in other parts"
    test, train = (time_B[table.parts[part]] for part in ("test", "training"))
    older = messages.percent(float(np.mean(test < np.quantile(train, 0.95))))
    return (
        f"{name}: {older} of the rows of the test part are older than the newest training rows, "
        "so that a model is told the future"
    )


def _skills(
    table: Table, fold_B: np.ndarray, places: np.ndarray, without: str = ""
) -> tuple[float, float]:
    """Skill on these modelled rows by folds drawn by chance, and by `fold_B`, whose -1 is no fold.

    Zero for both where the second is not surely worse. Models are not given the column `without`.
    """
    truth = table.truths(table.modelled)
    apart = table.predict(table.folds, without) if without else table.predicted
    together = None if apart is None else table.predict(fold_B, without)
    if apart is None or together is None or len(places) < estimates.LEAST_ROWS:
        return 0.0, 0.0
    truth, apart, together = truth[places], apart[places], together[places]
    if not estimates.surely_worse(truth, apart, together, table.classes):
        return 0.0, 0.0
    scores = [estimates.skill(truth, one, table.classes) for one in (apart, together)]
    return (0.0, 0.0) if None in scores else (float(scores[0] or 0), float(scores[1] or 0))


def _blocks(time_B: np.ndarray) -> np.ndarray:
    """Folds of runs of neighbouring times."""
    place_B = np.argsort(np.argsort(time_B, kind="stable"), kind="stable")
    return place_B * BLOCKS // max(1, len(time_B)) % estimates.FOLDS


def _forward(time_B: np.ndarray, newest: np.ndarray) -> np.ndarray:
    fold_B = np.full(len(time_B), -1)
    fold_B[newest] = 0
    return fold_B


def _gap(table: Table, first: float, second: float) -> str:
    measure = "2·ROC-AUC-1" if table.classes else "R²"
    return f"{measure} {first:.2f} by rows drawn by chance, {second:.2f}"


def _split(table: Table, **keys: Any) -> str:
    return "" if table.streamed else messages.setting({"data": {"split": keys}}).strip("`")
