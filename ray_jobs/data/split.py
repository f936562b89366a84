"""Part rows into training, validation and test: the same for the same rows and seed, anywhere.

Rows are drawn by scikit-learn's splitters from NumPy's legacy generator, whose numbers are the same
on every machine and in every version (NEP 19).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from eagleray import errors, spec
from eagleray.learn import schema, tasks


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts, each in ascending order."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def parts(self) -> dict[str, np.ndarray]:
        return {"training": self.train, "validation": self.validation, "test": self.test}


def indices(
    targets: np.ndarray,
    target: schema.Target,
    data: spec.Data,
    *,
    groups: np.ndarray | None = None,
    times: np.ndarray | None = None,
) -> Split:
    """Part the rows.

    Args:
        targets: class indices or values (B).
        target: what they are.
        data: the `data` section: its shares and its seed.
        groups: text for each row (B); equal ones stay in one part.
        times: a number for each row (B); the latest rows are the test part.

    Raises:
        DataError: a part is left without rows, or the training part without a class.
    """
    if times is not None:
        split = _by_time(times, data.split)
    elif groups is not None:
        split = _by_group(groups, data)
    else:
        split = _drawn(targets, target, data)
    _check(split, targets, target)
    return split


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
    rest, last = _held_out(np.arange(len(codes)), codes, test, data.seed)
    train, middle = _held_out(rest, codes, validation, data.seed)
    return Split(train, middle, last)


def _held_out(
    rows: np.ndarray, codes: np.ndarray, held: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows without, and those of, so many groups."""
    splitter = GroupShuffleSplit(n_splits=1, test_size=held, random_state=seed)
    kept, out = next(splitter.split(rows, groups=codes[rows]))
    return np.sort(rows[kept]), np.sort(rows[out])


def _drawn(targets: np.ndarray, target: schema.Target, data: spec.Data) -> Split:
    test, validation = _sizes(len(targets), data.split, "rows")
    strata = None
    if data.split.stratify:
        strata = tasks.of(target).strata(targets, min(test, validation))
    rest, last = _draw(np.arange(len(targets)), strata, test, data.seed)
    train, middle = _draw(rest, strata, validation, data.seed)
    return Split(train, middle, last)


def _draw(
    rows: np.ndarray, strata: np.ndarray | None, drawn: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows without, and with, so many drawn by chance, from all strata alike where given."""
    labels = None if strata is None else strata[rows]
    try:
        kept, out = train_test_split(rows, test_size=drawn, random_state=seed, stratify=labels)
    except ValueError as cause:
        raise errors.DataError(
            f"data.split: rows of every class are needed, but {cause}"
        ) from cause
    return np.sort(kept), np.sort(out)


def _sizes(count: int, shares: spec.Split, what: str) -> tuple[int, int]:
    """How many of `count` rows or groups go to test and to validation; one at least stays each."""
    if count < 3:
        raise errors.DataError(f"data.split: at least three {what} are needed, but got {count}")
    test = min(max(1, round(shares.test * count)), count - 2)
    validation = min(max(1, round(shares.validation * count)), count - test - 1)
    return test, validation


def _check(split: Split, targets: np.ndarray, target: schema.Target) -> None:
    for name, rows in split.parts().items():
        if not len(rows):
            raise errors.DataError(
                f"data.split: each part needs rows, but the {name} part has none"
            )
        tasks.of(target).check_part(name, targets[rows])
