"""Checks of the values of one column. Legend: B rows."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from eagleray import messages
from eagleray.audit.table import Table
from eagleray.findings import Finding, noted, warned
from eagleray.learn import columns
from eagleray.learn.columns import Column, values, words
from eagleray.learn.columns.words import hints_at_identifier

MANY_GAPS, SOME_GAPS = 0.5, 0.05
"""Shares of missing rows that are warned of, and noted."""
NEARLY_ALL, LEAST_ROWS = 0.999, 1000
"""Share of rows with one value in a column that is nearly constant, of so many rows at least."""
RARE, MANY_RARE = 5, 0.01
"""Training rows below which a category is rare, and the share of rows in such that is noted."""
UNSEEN = 0.01
"""Share of the rows of a part whose category training lacks that is warned of."""
FAR, SQUASHED = 10.0, 20.0
"""Standard deviations of an outlier, and of one beside which all others are alike."""
TAME = ("quantile", "log")
"""Scales under which outliers are not far from the others."""
LEAST_SENTINELS = 0.0005
"""Share of rows with one far value from which it may stand for something else."""
UNIQUE, FEW_ROWS = 0.95, 20
"""Share of different names in an identifier, of so many rows at least."""
MOST_NAMES = 50_000
"""Names of a column whose spellings are compared."""
SPREADS = (0.01, 100.0)
"""Mean size and deviation of a number that a network takes as it is."""
DAY_S, FIRST_YEAR_S = 86_400, -2_208_988_800
"""The second date is 1 January 1900."""


def missing(table: Table) -> Iterator[Finding]:
    """Columns with gaps."""
    for column, array in table:
        missing_B = columns.missing_rows(array)
        share = float(missing_B.mean())
        if share < SOME_GAPS:
            continue
        fact = f"{column.name}: {messages.percent(share)} of its values are missing"
        numbers = {"rows": int(missing_B.sum()), "share": share}
        fix = _drop(column.name) if share >= MANY_GAPS else ""
        tell = warned if fix else noted
        yield tell(fact, fix, column=column.name, numbers=numbers)


def constant(table: Table) -> Iterator[Finding]:
    """Columns with one value."""
    for column, array in table:
        hashes_B = columns.hashed(array)
        name, share = column.name, _most(hashes_B)
        if share == 1.0:
            fact = f"{name}: all rows have the same value"
            yield warned(fact, _drop(name), column=name, numbers={"share": share})
        elif share >= NEARLY_ALL and len(array) >= LEAST_ROWS:
            rows = round((1 - share) * len(array))
            fact = f"{name}: all rows but {'one' if rows == 1 else f'{rows:,}'} have the same value"
            yield noted(fact, _drop(name), column=name, numbers={"share": share})


def mixed(table: Table) -> Iterator[Finding]:
    """Columns of numbers with other texts in them."""
    declared, usual = table.experiment.features, {*table.experiment.data.missing}
    for column, array in table:
        name = column.name
        found = column.kind.mixture(column, array)
        if found and not (name in declared or hints_at_identifier(name)):
            share, others = found
            shown = messages.listed([repr(messages.shortened(one, 20)) for one in others])
            yield warned(
                f"{name}: {messages.percent(share)} of its values are numbers, but not {shown}",
                _setting({"features": {name: {"type": columns.NUMERIC.name}}}),
                column=name,
                numbers={"share": share, "others": len(others)},
            )
        elif name not in declared and array.dtype == object and (word := words.shared_unit(array)):
            fact = f"{name}: its values are numbers with {word!r} behind them, which are"
            yield warned(f"{fact} {column.type}: write them without {word!r}", column=name)
        odd = [one for one in column.missing if one.casefold() not in values.PLACEHOLDERS]
        if odd := [one for one in odd if one not in usual]:
            shown = messages.listed([repr(messages.shortened(one, 20)) for one in odd])
            fact = f"{name}: {shown} among its values is taken as missing"
            yield noted(fact, _setting({"data": {"missing": odd}}), column=name)


def merging(table: Table) -> Iterator[Finding]:
    """Names that differ in case, in blanks, or in how a number is written."""
    target = table.schema.target
    known = [(column, _names(column, array)) for column, array in table]
    known.append((table.task.column, Counter(dict.fromkeys(target.classes, 0))))
    for column, counts in known:
        spelled: dict[str, list[str]] = {}
        for name in counts if len(counts) <= MOST_NAMES else ():
            spelled.setdefault(column.kind.simplified(name), []).append(name)
        groups = [names for names in spelled.values() if len(names) > 1]
        if not groups:
            continue
        shown = messages.listed([" and ".join(map(repr, names[:3])) for names in groups], 2)
        yield warned(
            f"{column.name}: names that may be one: {messages.shortened(shown)}",
            evidence=tuple(
                ", ".join(_counted(name, counts) for name in names) for names in groups[:5]
            ),
            column=column.name,
            numbers={"names": len(groups), "spellings": sum(map(len, groups))},
        )
    for name, same in table.spellings.items():
        shown = messages.listed([" and ".join(map(repr, some)) for some in same], 2)
        fact = f"{name}: spellings are read as one name: {messages.shortened(shown)}"
        yield noted(fact, column=name, numbers={"names": len(same)})


def rare(table: Table) -> Iterator[Finding]:
    """Categories of few training rows, and those that training lacks."""
    for column, array in table:
        quantity = column.kind.quantity(array)
        if quantity.dtype != object:
            continue
        train = Counter(quantity[table.parts["training"]].tolist())
        train.pop(None, None)
        few = {name: count for name, count in train.items() if count < RARE}
        share = sum(few.values()) / max(1, sum(train.values()))
        if few and share >= MANY_RARE:
            yield _rare(column, len(train), len(few), share)
        yield from _unseen(table, column, quantity, set(train))


def outliers(table: Table) -> Iterator[Finding]:
    """Numbers that are far from all others."""
    for column, array in table:
        if not column.kind.has_outliers or column.name in table.leaks:
            continue
        known = np.flatnonzero(~np.isnan(array))
        if len(known) >= FEW_ROWS and np.ptp(array[known]) > 0:
            yield from _outliers(table, column, array, known)


def future(table: Table) -> Iterator[Finding]:
    """Times that have not come yet, and those before 1900."""
    for column, array in table:
        if not column.kind.is_time:
            continue
        late = np.flatnonzero(array > table.now + DAY_S)
        early = np.flatnonzero(array < FIRST_YEAR_S)
        for places, when, tell in ((late, "in the future", warned), (early, "before 1900", noted)):
            if len(places):
                yield tell(
                    f"{column.name}: {len(places):,} of {len(array):,} dates are {when}",
                    evidence=table.shown(places),
                    column=column.name,
                    numbers={"rows": len(places)},
                    rows=table.numbers(places[:100]),
                )


def identifiers(table: Table) -> Iterator[Finding]:
    """Columns that tell rows apart, and nothing else."""
    for column, _ in table.keys:
        yield noted(f"{column.name}: only identifies rows, so it is no input", column=column.name)
    for column, array in table:
        count = 0 if len(array) < FEW_ROWS or array.ndim > 1 else _distinct(array)
        is_mixed = count and column.kind.mixture(column, array) is not None
        if count >= UNIQUE * len(array) and not is_mixed and _tells_apart(column, array):
            yield warned(
                f"{column.name}: {count:,} different values in {len(array):,} rows, so that it "
                "tells rows apart and nothing else",
                _setting({"features": {column.name: {"type": columns.IDENTIFIER.name}}}),
                column=column.name,
                numbers={"values": count, "share": count / len(array)},
            )


def unscaled(table: Table) -> Iterator[Finding]:
    """Numbers that enter the model as they are, though they are large, small or far from zero."""
    chosen = table.experiment.default().features
    for column, array in table:
        options = chosen.get(column.name)
        as_it_is = column.kind.has_outliers and getattr(options, "scale", "") == "none"
        if not as_it_is or f"features.{column.name}.scale" in table.experiment.space:
            continue
        mean, deviation = float(np.nanmean(array)), float(np.nanstd(array))
        least, most = SPREADS
        if deviation > 0 and not (least <= deviation <= most and abs(mean) <= most):
            yield warned(
                f"{column.name}: enters the model unscaled, with mean {mean:.4g} and standard "
                f"deviation {deviation:.4g}",
                _scaled(column, "standard"),
                column=column.name,
                numbers={"mean": mean, "deviation": deviation},
            )


def _drop(name: str) -> str:
    return _setting({"data": {"drop": [name]}})


def _setting(tree: dict[str, Any]) -> str:
    return messages.setting(tree).strip("`")


def _scaled(column: Column, scale: str) -> str:
    options = {"type": column.kind.name, "scale": scale}
    return _setting({"features": {column.name: options}})


def _distinct(array: np.ndarray) -> int:
    return int(columns.first_of_each(columns.hashed(array)).sum())


def _tells_apart(column: Column, array: np.ndarray) -> bool:
    """Whether values that are mostly different are names or codes, and neither prose nor sizes."""
    if column.kind.quantity(array[:1]).dtype == object:
        return not words.shared_unit(array)
    present = array[~columns.missing_rows(array)]
    return column.kind.is_key(column, present, hinted=hints_at_identifier(column.name))


def _most(hashes_B: np.ndarray) -> float:
    """The share of the most frequent value."""
    if (hashes_B == hashes_B[0]).all():
        return 1.0
    step = max(1, len(hashes_B) // LEAST_ROWS)
    _, counts = np.unique(hashes_B[::step], return_counts=True)
    if counts.max() < 0.9 * counts.sum():
        return float(counts.max() / counts.sum())
    _, counts = np.unique(hashes_B, return_counts=True)
    return float(counts.max() / len(hashes_B))


def _names(column: Column, array: np.ndarray) -> Counter[str]:
    """How often each name stands in a column; empty for a column of no names."""
    quantity = column.kind.quantity(array)
    counts = Counter(quantity.tolist()) if quantity.dtype == object else Counter()
    counts.pop(None, None)
    return counts


def _counted(name: str, counts: Counter[str]) -> str:
    shown = repr(messages.shortened(name, 40))
    return f"{shown} ({counts[name]:,} rows)" if counts[name] else shown


def _rare(column: Column, names: int, few: int, share: float) -> Finding:
    fact = f"{few:,} of {names:,} categories have fewer than {RARE} training rows each"
    options = {"type": column.kind.name, "max_categories": names - few}
    fixes = names > few and "max_categories" in column.kind.options.model_fields
    return noted(
        f"{column.name}: {fact}, {messages.percent(share)} of the rows together",
        _setting({"features": {column.name: options}}) if fixes else "",
        column=column.name,
        numbers={"categories": names, "rare": few, "share": share},
    )


def _unseen(
    table: Table, column: Column, quantity_B: np.ndarray, known: set[str]
) -> Iterator[Finding]:
    for part in ("validation", "test"):
        places = table.parts[part]
        new_B = np.array([one is not None and one not in known for one in quantity_B[places]])
        share = float(new_B.mean()) if len(new_B) else 0.0
        if share >= UNSEEN:
            yield warned(
                f"{column.name}: {messages.percent(share)} of the rows of the {part} part have a "
                "category that the training part lacks",
                column=column.name,
                numbers={"rows": int(new_B.sum()), "share": share},
                rows=table.numbers(places[new_B][:100]),
            )
            return


def _outliers(
    table: Table, column: Column, array: np.ndarray, known: np.ndarray
) -> Iterator[Finding]:
    name, bounded = column.name, np.clip(array[known], -1e100, 1e100)
    if (value := _sentinel(bounded)) is not None:
        places = known[bounded == value]
        text = f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
        yield warned(
            f"{name}: {text} stands in {len(places):,} rows, far from all others, and may stand "
            "for a missing value",
            _setting({"data": {"missing": [text]}}),
            evidence=table.shown(places),
            column=name,
            numbers={"value": value, "rows": len(places)},
            rows=table.numbers(places[:100]),
        )
        return
    away = np.abs(bounded - bounded.mean()) / bounded.std()
    far = known[np.argsort(-away, kind="stable")][: int((away > FAR).sum())]
    if not len(far) or len(np.unique(bounded)) == 2:  # a rare mark, such as 1 among 0
        return
    options = table.experiment.default().features.get(name)
    scale, clip = (getattr(options, key, None) for key in ("scale", "clip"))
    tame = clip is not None or scale in TAME
    tell = warned if away.max() > SQUASHED and not tame else noted
    many = "1 value is" if len(far) == 1 else f"{len(far):,} values are"
    yield tell(
        f"{name}: {many} more than {FAR:g} standard deviations from the mean, "
        f"the farthest {away.max():.0f}",
        "" if tame else _scaled(column, "quantile"),
        evidence=table.shown(far),
        column=name,
        numbers={"rows": len(far), "deviations": float(away.max())},
        rows=table.numbers(far[:100]),
    )


def _sentinel(numbers: np.ndarray) -> float | None:
    """A frequent lowest or highest number of nines or ones that is far from all others."""
    for value in (float(numbers.max()), float(numbers.min())):
        others = numbers[numbers != value]
        digits = f"{abs(value):.0f}"
        nines = set(digits) == {"9"} and (len(digits) >= 3 or value < 0)
        if not (nines and value.is_integer()) or not len(others):
            continue
        often = len(numbers) - len(others) >= max(3, LEAST_SENTINELS * len(numbers))
        gap = float(np.abs(others - value).min())
        if often and gap > float(np.ptp(others)):
            return value
    return None
