"""The schema of a table: what its columns are, which are inputs, and what is to be predicted."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np

from eagleray import errors, spec
from eagleray.learn import schema, tasks
from eagleray.learn.columns import CATEGORICAL, ColumnKind
from eagleray.learn.columns.words import hints_at_identifier
from eagleray.learn.schema import Columns, Schema
from eagleray.tabular import kinds
from eagleray.tabular.clean import Table, given, is_left_out
from eagleray.tabular.faults import Faults

FEW_ROWS = 20
"""In fewer rows, values that are all different or counted up say nothing about a column."""

SAMPLE = 200
"""Values that are compared before the whole column."""


@dataclass(frozen=True)
class Learned:
    """A schema, the canonical columns, the targets, and what people should know."""

    schema: Schema
    columns: Columns
    targets: np.ndarray
    notes: tuple[str, ...]


def learn(
    table: Table,
    data: spec.Data,
    features: Mapping[str, spec.FeatureOptions],
    *,
    meant: Container[str] = (),
) -> Learned:
    """Types of all columns, and their canonical values.

    Args:
        table: raw values by column, cleaned.
        data: the `data` section.
        features: the `features` section; its types count.
        meant: tasks that the loss and the metric of the file are for, see `tasks.infer`.

    Raises:
        DataError: columns that no type can hold, no input column, or a target that cannot be
            learned.
    """
    faults = Faults()
    with faults.gathered():
        target, targets = _target(table[data.target], data, features, meant)
    found, spare, notes = _inputs(table, data, features, faults)
    faults.settle()
    if not found and not spare:
        raise errors.DataError(
            f"{data.source}: an input column is needed, but there is none beside the target"
        )
    for one in spare if found else ():
        notes.append(f"{one.column.name}: it only tells rows apart, so it is left out")
    used = found or spare
    known = schema.Schema(columns=tuple(one.column for one in used), target=target)
    notes += [note for one in used for note in one.notes]
    columns = {one.column.name: one.array for one in used}
    return Learned(known, columns, targets, tuple(notes))


def problems(
    table: Table, data: spec.Data, features: Mapping[str, spec.FeatureOptions]
) -> list[str]:
    """Problems of the input columns, without the target."""
    faults = Faults()
    _inputs(table, data, features, faults)
    return faults.problems


def _inputs(
    table: Table, data: spec.Data, features: Mapping[str, spec.FeatureOptions], faults: Faults
) -> tuple[list[kinds.Found], list[kinds.Found], list[str]]:
    """Columns to learn from, columns that only tell rows apart, and notes."""
    inputs, spare, notes = [], [], []
    for name, raw in table.items():
        if name == data.target or is_left_out(name, features):
            continue
        if name in (data.split.group, data.split.time) and name not in features:
            notes.append(
                f"{name}: it parts the rows, so it is no input; `features` can make it one"
            )
            continue
        kind = given(name, features)
        found = None
        with faults.gathered():
            found = _find(name, raw, kind, data)
        if found is None:
            notes.append(f"{name}: all values are missing, so it is left out")
        elif kind is None and _only_tells_apart(found):
            spare.append(found)
        else:
            inputs.append(found)
    return inputs, spare, notes


def _find(
    name: str, raw: schema.Raw, kind: ColumnKind | None, data: spec.Data
) -> kinds.Found | None:
    """As `kinds.find`; numbers that repeat in a column called so are codes, not quantities."""
    found = kinds.find(name, raw, kind, data.missing)
    if kind is not None or found is None or not hints_at_identifier(name):
        return found
    if found.column.integer and not _all_different(found):
        return kinds.find(name, raw, CATEGORICAL, data.missing)
    return found


def _only_tells_apart(found: kinds.Found) -> bool:
    """Whether a column is a number, a code or a name of the row and nothing else."""
    column, array = found.column, found.array
    hinted = hints_at_identifier(column.name)
    if not hinted and (len(array) < FEW_ROWS or column.nullable):
        return False
    return column.kind.is_key(column, array, hinted=hinted) and _all_different(found)


def _all_different(found: kinds.Found) -> bool:
    array = found.array
    if found.column.nullable or len(set(array[:SAMPLE].tolist())) < len(array[:SAMPLE]):
        return False
    return len(set(array.tolist())) == len(array)


def _target(
    raw: schema.Raw,
    data: spec.Data,
    features: Mapping[str, spec.FeatureOptions],
    meant: Container[str],
) -> tuple[schema.Target, np.ndarray]:
    kind = given(data.target, features)
    found = kinds.find(data.target, raw, kind, data.missing)
    assert found is not None  # rows without a target are gone
    column = tasks.TargetColumn(found.column, found.array, raw, kind, data.positive)
    task = tasks.infer(column, meant)
    return task.target, task.encode(raw)
