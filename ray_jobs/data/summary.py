"""What may be odd about prepared data, and the line of YAML that changes what was guessed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eagleray import spec
from eagleray.learn import schema, tasks
from eagleray.learn.columns.words import setting
from ray_jobs.data.prepare import Dataset

SAMPLE = 10_000


def remarks(experiment: spec.Experiment, dataset: Dataset) -> Iterator[str]:
    """What may not be meant so, each with the line that changes it."""
    features = experiment.default().features
    if experiment.data.target not in features:
        yield from _task(dataset)
    for column in dataset.schema.columns:
        array = dataset.columns[column.name]
        if _is_constant(column, array):
            fix = setting({"data": {"drop": [column.name]}})
            yield f"{column.name}: all rows have the same value; {fix} leaves it out"
        options = features.get(column.name)
        named = options if options is not None and options.kind is not None else None
        yield from column.kind.remarks(column, array, dataset.split.train, named)


def _task(dataset: Dataset) -> Iterator[str]:
    """Whole numbers may be classes, and may be quantities."""
    known, smallest = dataset.schema.target, min(map(len, dataset.split.parts().values()))
    other = tasks.of(known).alternative(dataset.targets, smallest)
    if other is not None:
        fix = setting({"features": {known.name: {"type": other.type}}})
        yield f"{known.name}: {other.fact}; {fix} makes it a {other.task}"


def _is_constant(column: schema.Column, array: np.ndarray) -> bool:
    if column.nullable:
        return False
    return bool((array[:SAMPLE] == array[0]).all() and (array == array[0]).all())
