"""Checks of inputs that tell the target. Legend: B rows."""

from collections.abc import Iterator

import numpy as np

from eagleray import messages
from eagleray.audit import estimates
from eagleray.audit.table import COLUMN_ROWS, Table
from eagleray.findings import Finding, noted, warned, wrong

ORDERED = 0.3
"""Skill of an identifier's order, at its lower bound, that is told."""
ALONG = 0.95
"""Rank correlation with the time of the split from which an order is that of time."""


def copies(table: Table) -> Iterator[Finding]:
    """Inputs that are the target under another name."""
    for name, one in table.giveaways.items():
        if one.copy:
            yield _leak(
                table,
                name,
                "is a copy of the target: its values and the target's go together one to one",
                one,
            )


def near_copies(table: Table) -> Iterator[Finding]:
    """Inputs that are the target but for some rows, or for noise."""
    for name, one in table.giveaways.items():
        if one.near and not one.copy:
            agreed = max(one.agreement, one.correlation)
            yield _leak(
                table,
                name,
                f"is nearly a copy of the target: they agree to {agreed:.3f} "
                "beyond chance (1 is a copy)",
                one,
            )


def giveaways(table: Table) -> Iterator[Finding]:
    """Inputs each of which predicts the target almost without an error."""
    alike = table.clocks | table.entities.keys()
    for name, one in table.giveaways.items():
        if one.copy or one.near or one.sure < estimates.STRONG or name in alike:
            continue
        if one.gives_away:
            yield _leak(table, name, f"alone gives the target away: {_skill(table, one)}", one)
            continue
        yield warned(
            f"{name}: alone predicts the target almost without an error: {_skill(table, one)}; "
            "is it known before the target is?",
            _drop(name),
            evidence=table.scope(COLUMN_ROWS),
            column=name,
            numbers=_numbers(one),
        )


def ordered(table: Table) -> Iterator[Finding]:
    """Identifiers whose order tells the target, such as rows numbered by class."""
    places = table.sample(COLUMN_ROWS)
    if len(places) < estimates.LEAST_ROWS:
        return
    truth = table.truths(places)
    left_out = {column.name for column, _ in table.keys}
    counters = [(column, array) for column, array in table if _counts_up(array)]
    for column, array in [*table.keys, *counters]:
        rank = _ranks(_order(array))
        if _follows(rank, table.time):  # parts in the order of time judge what the order tells
            continue
        skill, sure = estimates.alone(rank[places].astype(np.float64), truth, table.classes)
        if sure < ORDERED:
            continue
        name, out = column.name, column.name in left_out
        why = (
            "it is no input, but other columns may tell when or where a row was taken"
            if out
            else "a model would learn the order of the rows"
        )
        tell = noted if out else warned
        yield tell(
            f"{name}: its order predicts the target with a skill of {skill:.2f} (0 by chance, "
            f"1 without error): {why}",
            "" if out else messages.setting({"data": {"drop": [name]}}).strip("`"),
            evidence=table.scope(COLUMN_ROWS),
            column=name,
            numbers={"skill": skill, "lower bound": sure},
        )


def _leak(table: Table, name: str, fact: str, one: estimates.Closeness) -> Finding:
    places = table.sample(COLUMN_ROWS)[:3]
    evidence = (*table.scope(COLUMN_ROWS), *(_beside(table, name, int(place)) for place in places))
    message = f"{name}: {fact}"
    return wrong(message, _drop(name), evidence=evidence, column=name, numbers=_numbers(one))


def _beside(table: Table, name: str, place: int) -> str:
    value = next(
        column.kind.to_json(array[place : place + 1])[0]
        for column, array in table
        if column.name == name
    )
    shown = messages.shortened(str(value), 40)
    return f"row {table.rows[place]:,}: {name} {shown}, target {table.target_text(place)}"


def _skill(table: Table, one: estimates.Closeness) -> str:
    measure = "Cohen's kappa" if table.classes else "R²"
    return f"{measure} {one.skill:.3f} by cross-validation, at least {one.sure:.3f}"


def _numbers(one: estimates.Closeness) -> dict[str, float]:
    return {
        "agreement": one.agreement,
        "correlation": one.correlation,
        "skill": one.skill,
        "lower bound": one.sure,
    }


def _drop(name: str) -> str:
    return messages.setting({"data": {"drop": [name]}}).strip("`")


def _counts_up(array: np.ndarray) -> bool:
    """Whether numbers grow from row to row, or fall."""
    if array.ndim > 1 or array.dtype == object or len(array) < 2:
        return False
    steps = np.diff(array)
    return bool((steps > 0).all() or (steps < 0).all())


def _follows(rank_B: np.ndarray, time_B: np.ndarray | None) -> bool:
    """Whether an order of rows is that of time, or its reverse, nearly."""
    if time_B is None:
        return False
    return bool(abs(np.corrcoef(rank_B, _ranks(time_B))[0, 1]) >= ALONG)


def _ranks(array: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.argsort(np.argsort(array, kind="stable"), kind="stable")
    return found


def _order(array: np.ndarray) -> np.ndarray:
    """Keys by which values are ordered: words by length, then by letters."""
    if array.dtype != object:
        return array
    words = array.tolist()
    place = {word: at for at, word in enumerate(sorted(set(words), key=lambda w: (len(w), w)))}
    return np.array([place[word] for word in words])
