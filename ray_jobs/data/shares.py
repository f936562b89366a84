"""Nested shares of the training rows, drawn as the split draws its parts. Legend: B rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from eagleray import errors, spec
from eagleray.learn import tasks
from ray_jobs.data import prepare, split

LEAST_ROWS = 20
"""Fewest rows of a share."""


def halves(dataset: prepare.Dataset, data: spec.Data) -> Iterator[prepare.Dataset]:
    """Yield the data with half of the training rows, with half of these, and so on.

    Under `data.split.time` it is the newer half, as a shorter history has it; under `group` it has
    half of the groups, elsewhere rows of each stratum. Validation and test part stay.

    Raises:
        DataError: a half has fewer than `LEAST_ROWS` rows, or cannot be trained on.
    """
    rows, task = dataset.split.train, tasks.of(dataset.schema.target)
    while True:
        rows = _half(rows, dataset, data, task)
        if len(rows) < LEAST_ROWS:
            law = f"a share needs at least {LEAST_ROWS} rows"
            raise errors.DataError(f"{law}, but has {len(rows)}")
        task.check_part("training", dataset.targets[rows])
        parts = dataclasses.replace(dataset.split, train=rows)
        yield dataclasses.replace(dataset, split=parts, folds=())


def _half(
    rows: np.ndarray, dataset: prepare.Dataset, data: spec.Data, task: tasks.Task
) -> np.ndarray:
    marks = dataset.marks
    if marks.times is not None:
        return _newer(rows, marks.times[rows])
    if marks.groups is not None:
        return _of_groups(rows, marks.groups, data.seed)
    count = max(1, len(rows) // 2)
    strata = task.strata(dataset.targets, count) if data.split.stratify else None
    return split.draw_rows(rows, strata, count, data.seed)[1]


def _newer(rows: np.ndarray, times_B: np.ndarray) -> np.ndarray:
    """Rows of the same time stay together, in the newer half."""
    newer: np.ndarray = rows[times_B >= np.sort(times_B)[len(rows) // 2]]
    if len(newer) == len(rows):
        raise errors.DataError("rows of different times are needed, but all have the same one")
    return newer


def _of_groups(rows: np.ndarray, names_B: np.ndarray, seed: int) -> np.ndarray:
    codes_B = np.unique(names_B.astype(str), return_inverse=True)[1]
    groups = len(np.unique(codes_B[rows]))
    if groups < 2:
        raise errors.DataError(f"two groups are needed, but got {groups}")
    return split.draw_groups(rows, codes_B, groups // 2, seed)[1]
