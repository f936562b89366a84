"""Split rows into training, validation and test; the same for the same rows and seed, anywhere.

Rows are drawn by scikit-learn's splitters from NumPy's legacy generator, whose numbers are the same
on every machine and in every version (NEP 19).

Legend: B rows.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from eagleray import errors, spec
from eagleray.learn import schema, tasks


@dataclass(frozen=True)
class Split:
    """Row indices of the three parts, each in ascending order."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def parts(self) -> dict[str, np.ndarray]:
        return {"training": self.train, "validation": self.validation, "test": self.test}


def whole(parts: Split) -> Split:
    """The same, with the rows of the validation part in the training part too."""
    return Split(np.union1d(parts.train, parts.validation), parts.validation, parts.test)


def indices(
    targets: np.ndarray,
    target: schema.Target,
    data: spec.Data,
    *,
    groups: np.ndarray | None = None,
    times: np.ndarray | None = None,
    users: np.ndarray | None = None,
) -> Split:
    """Split rows by time, by group or at random.

    Rows of the same text in `groups` (B) stay in one part. The test part has the rows of the latest
    `times` (B), which are numbers. The rows of each of the `users` (B) are split by themselves.

    Raises:
        DataError: a part is left without rows, or the training part without a class.
    """
    task = tasks.of(target)
    if users is not None:
        split = _by_user(users, times, data)
    elif times is not None:
        split = _by_time(times, data.split)
    elif groups is not None:
        split = _by_group(groups, data)
    else:
        split = _at_random(targets, task, data)
    check(split, targets, task)
    return split


def check(split: Split, targets: np.ndarray, task: tasks.Task) -> None:
    """DataError for a part that a model cannot be trained or evaluated on."""
    for name, rows in split.parts().items():
        if not len(rows):
            raise errors.DataError(
                f"data.split: each part needs rows, but the {name} part has none"
            )
        task.check_part(name, targets[rows])


def _by_user(users: np.ndarray, times: np.ndarray | None, data: spec.Data) -> Split:
    """The first rows of each user, by time or at random, are for training, the last for test.

    A user of few rows has some in parts by chance, so that all users together have the shares of
    the parts there; the first is for training.
    """
    _, codes = np.unique(users.astype(str), return_inverse=True)
    random, count = np.random.RandomState(data.seed), np.bincount(codes)
    chance = random.permutation(len(codes))
    order = np.lexsort((chance, codes) if times is None else (times, codes))
    place = np.arange(len(codes)) - np.repeat(np.cumsum(count) - count, count)
    share = (place + np.repeat(random.random_sample(len(count)), count)) / np.repeat(count, count)
    last, middle = 1 - data.split.test, 1 - data.split.test - data.split.validation
    part = np.where(place == 0, 0, (share >= middle).astype(int) + (share >= last))
    return Split(*(np.sort(order[part == number]) for number in range(3)))


def _by_time(times: np.ndarray, shares: spec.Split) -> Split:
    """Rows of the same time stay in one part, the later one."""
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    cuts = []
    for share in (1 - shares.test - shares.validation, 1 - shares.test):
        place = min(round(share * len(times)), len(times) - 1)
        cuts.append(int(np.searchsorted(ordered, ordered[place])))
    return Split(*(np.sort(part) for part in np.split(order, cuts)))


def _by_group(groups: np.ndarray, data: spec.Data) -> Split:
    names, codes = np.unique(groups.astype(str), return_inverse=True)
    test, validation = _sizes(len(names), data.split, f"groups in {data.split.group}")
    rest, test_rows = draw_groups(np.arange(len(codes)), codes, test, data.seed)
    train, validation_rows = draw_groups(rest, codes, validation, data.seed)
    return Split(train, validation_rows, test_rows)


def draw_groups(
    rows: np.ndarray, codes: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` groups; return the other rows and the rows of these groups."""
    splitter = GroupShuffleSplit(n_splits=1, test_size=count, random_state=seed)
    left, drawn = next(splitter.split(rows, groups=codes[rows]))
    return np.sort(rows[left]), np.sort(rows[drawn])


def _at_random(targets: np.ndarray, task: tasks.Task, data: spec.Data) -> Split:
    test, validation = _sizes(len(targets), data.split, "rows")
    strata = task.strata(targets, min(test, validation)) if data.split.stratify else None
    rest, test_rows = draw_rows(np.arange(len(targets)), strata, test, data.seed)
    train, validation_rows = draw_rows(rest, strata, validation, data.seed)
    return Split(train, validation_rows, test_rows)


def draw_rows(
    rows: np.ndarray, strata: np.ndarray | None, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` rows, with the strata's proportions; return the other rows and those drawn."""
    labels = None if strata is None else strata[rows]
    try:
        left, drawn = train_test_split(rows, test_size=count, random_state=seed, stratify=labels)
    except ValueError as cause:
        raise errors.DataError(
            f"data.split: rows of every class are needed, but {cause}"
        ) from cause
    return np.sort(left), np.sort(drawn)


def _sizes(count: int, shares: spec.Split, unit: str) -> tuple[int, int]:
    """How many rows or groups go to test and to validation; each part gets at least one."""
    if count < 3:
        raise errors.DataError(f"data.split: at least three {unit} are needed, but got {count}")
    test = min(max(1, round(shares.test * count)), count - 2)
    validation = min(max(1, round(shares.validation * count)), count - test - 1)
    return test, validation
