"""The data of an experiment, ready for its trials: loaded, cleaned, typed and parted once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from eagleray import errors, spec
from eagleray.learn import losses, models, tasks
from eagleray.learn.schema import Columns, Schema
from eagleray.tabular import load, tables
from ray_jobs.data import split


@dataclass(frozen=True)
class Dataset:
    """All rows, and which of them are for what.

    Attributes:
        columns: canonical columns of all rows, see `eagleray.learn.schema`.
        rows: for each of these rows its number in the source, from 1.
        targets: see `tasks.Task.encode`.
        split: row numbers of the parts.
        fingerprint: sha256 of all of the above: equal data, equal trials.
        notes: for people, what was left out or looks odd.
    """

    schema: Schema
    columns: Columns
    rows: np.ndarray
    targets: np.ndarray
    split: split.Split
    fingerprint: str
    notes: list[str]


def dataset(experiment: spec.Experiment, frame: pd.DataFrame | None = None) -> Dataset:
    """Prepare the data that the experiment names.

    Args:
        experiment: the file.
        frame: its table, where the caller has read it already.

    Raises:
        DataError: it cannot be read, or nothing can be learned from it.
        CodeError: the user's function that gives it fails.
        StorageError: its object cannot be fetched.
        UserError: a column's type is searched for.
    """
    _check_types(experiment)
    data, features = experiment.data, experiment.default().features
    if frame is None:
        frame = load.read(data, experiment.path.parent)
    table = tables.infer(load.table(frame), data, features, preferred=experiment.tasks)
    parts = split.indices(
        table.targets, table.schema.target, data, groups=table.groups, times=table.times
    )
    return Dataset(
        schema=table.schema,
        columns=table.columns,
        rows=table.rows,
        targets=table.targets,
        split=parts,
        fingerprint=_fingerprint(table, parts),
        notes=list(table.notes),
    )


def misfits(experiment: spec.Experiment, prepared: Dataset) -> Iterator[str]:
    """What the file asks for that does not fit the data: a problem each."""
    kind, task = experiment.default().model.type, tasks.REGISTRY[prepared.schema.target.task]
    types = {column.type for column in prepared.schema.columns}
    needed = models.REGISTRY[kind].needs if kind in models.REGISTRY else None
    if needed is not None and needed not in types:
        got = f"got {', '.join(sorted(types))}"
        yield f"model.type: {kind} needs a column of type {needed}, but {got}"
    fitting = losses.fitting(task)
    for loss in experiment.losses:
        if loss in losses.REGISTRY and loss not in fitting:
            listed = ", ".join(fitting)
            yield f"train.loss: must be auto or one of {listed} for {task.name}, but got {loss}"


def _check_types(experiment: spec.Experiment) -> None:
    for key in experiment.space:
        if key.startswith("features.") and key.endswith(".type"):
            raise errors.UserError(
                f"{key}: must be the same for all trials, but got a distribution"
            )


def _fingerprint(table: tables.Learnable, parts: split.Split) -> str:
    digest = hashlib.sha256()
    described = table.schema.model_dump(mode="json", exclude_defaults=True)
    digest.update(json.dumps(described, sort_keys=True).encode())
    arrays = [*table.columns.values(), table.targets, *parts.parts().values()]
    for array in arrays:
        if array.dtype == object:
            digest.update(_words_as_json(array.tolist()).encode())
        else:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _words_as_json(words: list[str | None]) -> str:
    """As `json.dumps` writes the list, each different word written once."""
    written = {word: json.dumps(word) for word in set(words)}
    return f"[{', '.join(map(written.__getitem__, words))}]"
