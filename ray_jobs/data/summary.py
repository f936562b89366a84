"""What a person would say of prepared data, and the line of YAML that changes what was guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml

from eagleray import schema, spec
from ray_jobs.data import guesses, names, split
from ray_jobs.data.kinds import missing_rows
from ray_jobs.data.prepare import Dataset

MOST_SHOWN = 10
"""More classes than this are told by the most and the least frequent."""

FEW_VALUES = 100
"""A quantity of whole numbers that has no more different ones may have been meant as classes."""

LEAST_NUMERIC_SHARE = 1 - guesses.MOST_GIVEN_ODD_SHARE

SAMPLE = 10_000


def target(dataset: Dataset) -> str:
    """The task, and the shares of its classes or the range of its values."""
    known, targets = dataset.schema.target, dataset.targets
    if not known.classes:
        low, middle, high = np.quantile(targets, (0, 0.5, 1))
        return f"{known.task}, {low:g} to {high:g}, median {middle:g}"
    counts = np.bincount(targets, minlength=len(known.classes))
    shares = zip(known.classes, (counts / len(targets)).tolist(), strict=True)
    told = [f"{name} ({_percent(share)})" for name, share in shares]
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
            fix = _line({"data": {"drop": [column.name]}})
            yield f"{column.name}: all rows have the same value; {fix} leaves it out"
        options = features.get(column.name, spec.FeatureOptions())
        if column.type == "categorical":
            yield from _lumped(column, array[dataset.split.train], options.max_categories)
        if options.type == "auto" and column.type in ("categorical", "text"):
            yield from _mostly_numbers(column, array)


def _task(dataset: Dataset) -> Iterator[str]:
    """Whole numbers may be classes, and may be quantities."""
    known, targets = dataset.schema.target, dataset.targets
    if known.task == "multiclass" and all(_is_whole(name) for name in known.classes):
        count, taken, other, task = len(known.classes), "classes", "numeric", "regression"
    elif known.task == "regression" and _may_be_classes(dataset):
        count, taken = len(np.unique(targets)), "quantities"
        other, task = "categorical", "classification"
    else:
        return
    fix = _line({"features": {known.name: {"type": other}}})
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
    if column.type == "image" or column.nullable:
        return False
    return bool((array[:SAMPLE] == array[0]).all() and (array == array[0]).all())


def _lumped(column: schema.Column, training: np.ndarray, most: int) -> Iterator[str]:
    """Rare categories that `eagleray.features.categories` takes for one."""
    if column.categories is not None and len(column.categories) <= most:
        return
    counts = Counter(training[~missing_rows(training)].tolist())
    rare = sorted(counts.values(), reverse=True)[most:]
    if not rare:
        return
    fix = _line({"features": {column.name: {"type": "categorical", "max_categories": len(counts)}}})
    yield (
        f"{column.name}: of {len(counts):,} categories the {most:,} most frequent count; the other"
        f" {len(rare):,}, {_percent(sum(rare) / counts.total())} of the rows, are taken as one;"
        f" {fix} keeps them apart"
    )


def _mostly_numbers(column: schema.Column, array: np.ndarray) -> Iterator[str]:
    """Numbers with too many other texts among them to be taken for a column of numbers."""
    if names.hints_at_identifier(column.name):
        return
    step = max(1, len(array) // SAMPLE)
    if _numbers(Counter(array[::step].tolist()))[0] < LEAST_NUMERIC_SHARE / 2:
        return
    share, others = _numbers(Counter(array.tolist()))
    if not LEAST_NUMERIC_SHARE <= share < 1:
        return
    shown = ", ".join(map(repr, others[:3])) + (f" and {len(others) - 3} more" * (len(others) > 3))
    fix = _line({"features": {column.name: {"type": "numeric"}}})
    yield (
        f"{column.name}: {_percent(share)} of its values are numbers, but not {shown}, so it is"
        f" {column.type}; {fix} makes it numeric and takes these as missing"
    )


def _numbers(counts: Counter[str | None]) -> tuple[float, list[str]]:
    """The share of numbers among texts, and the other texts, most frequent first; no codes."""
    known = {text: count for text, count in counts.most_common() if text is not None}
    if not known or any(map(guesses.is_code, known)):
        return 0.0, []
    readings = (guesses.odd(known, comma) for comma in (False, True))
    others = min(readings, key=lambda odd: sum(known[text] for text in odd))
    return 1 - sum(known[text] for text in others) / sum(known.values()), others


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _line(tree: dict[str, Any]) -> str:
    """A setting as one line of YAML."""
    flow = yaml.safe_dump(tree, default_flow_style=True, width=10**6, allow_unicode=True)
    return f"`{flow.strip()[1:-1]}`"
