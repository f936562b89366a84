"""What a person would say of prepared data, and the line of YAML that changes what was guessed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eagleray import schema, spec
from eagleray.learn.columns import CATEGORICAL, NUMERIC
from eagleray.learn.columns.remarks import percent, setting
from ray_jobs.data import clean, split
from ray_jobs.data.prepare import Dataset

MOST_SHOWN = 10
"""More classes than this are told by the most and the least frequent."""

FEW_VALUES = 100
"""A quantity of whole numbers that has no more different ones may have been meant as classes."""

SAMPLE = 10_000


def target(dataset: Dataset) -> str:
    """The task, and the shares of its classes or the range of its values."""
    known, targets = dataset.schema.target, dataset.targets
    if not known.classes:
        low, middle, high = np.quantile(targets, (0, 0.5, 1))
        return f"{known.task}, {low:g} to {high:g}, median {middle:g}"
    counts = np.bincount(targets, minlength=len(known.classes))
    shares = zip(known.classes, (counts / len(targets)).tolist(), strict=True)
    told = [f"{name} ({percent(share)})" for name, share in shares]
    if len(told) > MOST_SHOWN:
        ordered = [told[place] for place in np.argsort(counts, kind="stable")]
        told = [f"{len(told)} classes from {ordered[-1]} to {ordered[0]}"]
    if known.task == "binary":
        told.append(f"{known.classes[1]} is positive")
    return ", ".join([known.task, *told])


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
        options = features[column.name] if clean.given(column.name, features) else None
        yield from column.kind.remarks(column, array, dataset.split.train, options)


def _task(dataset: Dataset) -> Iterator[str]:
    """Whole numbers may be classes, and may be quantities."""
    known, targets = dataset.schema.target, dataset.targets
    if known.task == "multiclass" and all(_is_whole(name) for name in known.classes):
        count, taken, other, task = len(known.classes), "classes", NUMERIC.name, "regression"
    elif known.task == "regression" and _may_be_classes(dataset):
        count, taken = len(np.unique(targets)), "quantities"
        other, task = CATEGORICAL.name, "classification"
    else:
        return
    fix = setting({"features": {known.name: {"type": other}}})
    yield f"{known.name}: {count} different whole numbers are {taken}; {fix} makes it a {task}"


def _may_be_classes(dataset: Dataset) -> bool:
    """Whether the targets are a few whole numbers, each with rows for every part."""
    different, counts = np.unique(dataset.targets, return_counts=True)
    most = min(FEW_VALUES, *map(len, dataset.split.parts().values()))
    whole = bool((different == np.floor(different)).all())
    return whole and len(different) <= most and counts.min() >= split.LEAST_OF_A_CLASS


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdigit()


def _is_constant(column: schema.Column, array: np.ndarray) -> bool:
    if column.nullable:
        return False
    return bool((array[:SAMPLE] == array[0]).all() and (array == array[0]).all())
