"""Folds of cross-validation: the rows of training and validation, parted several times.

Each fold is a `split.Split`. Its validation part is one of as many parts of these rows, stratified
or of whole groups, and its training part all others; each row is in one validation part. Under
`data.split.time` training rows are older than validation rows: with each fold the window grows, and
the oldest rows are in no validation part. The test part is that of the whole split.

Legend: B rows.
"""

import warnings
from collections.abc import Iterable, Iterator

import numpy as np
from sklearn import model_selection as sk

from eagleray import errors, spec
from eagleray.learn import tasks
from eagleray.tabular import tables
from ray_jobs.data import split

LEAST_ROWS = 2
"""Fewest rows of a validation part: of one row R² is not defined."""

Pairs = Iterable[tuple[np.ndarray, np.ndarray]]
"""Places of training and validation rows of each fold."""


def part(
    parts: split.Split, table: tables.Learnable, data: spec.Data, count: int
) -> tuple[split.Split, ...]:
    """The folds, `count` of them; none for a count of 1.

    Raises:
        DataError: there are fewer rows, groups, times or rows of a class than folds need, or a fold
            has a part that a model cannot be trained or evaluated on.
    """
    if count == 1:
        return ()
    rows = split.whole(parts).train
    if len(rows) < count * LEAST_ROWS:
        law = f"{count} folds need at least {count * LEAST_ROWS} rows beside the test part"
        raise errors.DataError(f"tune.folds: {law}, but got {len(rows)}")
    try:
        pairs = list(_pairs(rows, table, data, count))
    except ValueError as cause:
        raise errors.DataError(
            f"tune.folds: rows must be enough for {count}, but {cause}"
        ) from cause
    found = [split.Split(np.sort(rows[a]), np.sort(rows[b]), parts.test) for a, b in pairs]
    task = tasks.of(table.schema.target)
    for number, one in enumerate(found, 1):
        _check(one, table.targets, task, f"fold {number} of {count}")
    return tuple(found)


def _pairs(rows: np.ndarray, table: tables.Learnable, data: spec.Data, count: int) -> Pairs:
    targets_B, target = table.targets[rows], table.schema.target
    if table.times is not None:
        return _forward(table.times[rows], count)
    if table.groups is not None:
        classes_B = targets_B if target.classes else None
        return _of_groups(table.groups[rows], classes_B, data, count)
    strata = None
    if data.split.stratify:
        _check_classes(targets_B, target.classes, count)
        strata = tasks.of(target).strata(targets_B, len(rows) // count)
    if strata is None:
        plain: Pairs = sk.KFold(count, shuffle=True, random_state=data.seed).split(rows)
        return plain
    stratified = sk.StratifiedKFold(count, shuffle=True, random_state=data.seed)
    return _quiet(stratified.split(rows, strata))


def _forward(times_B: np.ndarray, count: int) -> Pairs:
    """Blocks of as many rows, the oldest first; rows of one time stay in one, the later one."""
    order = np.argsort(times_B, kind="stable")
    ordered_B = times_B[order]
    starts = [held[0] for _, held in sk.TimeSeriesSplit(count).split(order)]
    cuts = [int(np.searchsorted(ordered_B, ordered_B[start])) for start in starts]
    if len({0, *cuts}) <= count:
        law = f"{count} folds in the order of time need {count + 1} spans of different times"
        raise errors.DataError(f"tune.folds: {law}, but got {len(np.unique(times_B))} times")
    return [
        (order[:start], order[start:end])
        for start, end in zip(cuts, [*cuts[1:], len(order)], strict=True)
    ]


def _of_groups(
    groups_B: np.ndarray, classes_B: np.ndarray | None, data: spec.Data, count: int
) -> Pairs:
    names, codes_B = np.unique(groups_B.astype(str), return_inverse=True)
    if len(names) < count:
        law = f"{count} folds need at least as many groups in {data.split.group}"
        raise errors.DataError(f"tune.folds: {law} beside the test part, but got {len(names)}")
    if classes_B is None:
        grouped: Pairs = sk.GroupKFold(count).split(codes_B, groups=codes_B)
        return grouped
    splitter = sk.StratifiedGroupKFold(count, shuffle=True, random_state=data.seed)
    return _quiet(splitter.split(codes_B, classes_B, codes_B))


def _check_classes(targets_B: np.ndarray, classes: tuple[str, ...], count: int) -> None:
    """DataError for a class that some fold cannot have a row of."""
    for number, name in enumerate(classes):
        rows = int((targets_B == number).sum())
        if rows < count:
            law = f"each class needs at least as many rows beside the test part as folds, {count}"
            raise errors.DataError(f"tune.folds: {law}, but {name!r} has {rows}")


def _quiet(pairs: Pairs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Without scikit-learn's warning of rare classes: `_check` refuses what cannot be used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield from list(pairs)


def _check(fold: split.Split, targets: np.ndarray, task: tasks.Task, name: str) -> None:
    if len(fold.validation) < LEAST_ROWS or not len(fold.train):
        law = f"each fold needs rows to train on, and {LEAST_ROWS} to be judged on"
        got = f"{name} has {len(fold.train)} and {len(fold.validation)}"
        raise errors.DataError(f"tune.folds: {law}, but {got}")
    try:
        task.check_part("training", targets[fold.train])
        task.check_part("validation", targets[fold.validation])
    except errors.DataError as cause:
        said = str(cause).removeprefix("data.split: ")
        raise errors.DataError(f"tune.folds: in {name} {said}; fewer folds may do") from cause
