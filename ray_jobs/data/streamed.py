"""Data larger than memory: a `Dataset` of some rows, and blocks of all others. Legend: B rows.

A first pass over the files hashes and counts, and keeps a part of the rows (`sample`): those that
columns are typed by and transforms are fitted on, the validation part and the test part. These are
in memory. A second pass, one for each setting of `features`, encodes the rows to train on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from eagleray import errors, spec
from eagleray.learn import features, tasks
from eagleray.learn.schema import Column
from eagleray.spec import reading
from eagleray.tabular import delimited, load, tables
from ray_jobs.data import blocks, encoded, extent, passes, prepare, sample, split

HELD, HELD_SHARE = 200_000, 16
"""Maximum number of rows of the validation or test part in memory; each part takes at most a
sixteenth of `data.memory`."""
CANDIDATES = 2
"""How many times as many rows the first pass keeps: their number is estimated before it."""
MOST_SETTINGS = 8
"""Most settings of `features`: each has a copy of all encoded rows."""


@dataclass(frozen=True)
class Dataset(prepare.Dataset):
    """The rows in memory, where `split.train` is a sample, and all others in files."""

    streamed: ClassVar[bool] = True
    _: dataclasses.KW_ONLY
    job: passes.Job
    label: Column
    total: int  # rows of all files

    @property
    def counts(self) -> dict[str, int]:
        held = super().counts
        return held | {"train": self.total - held["validation"] - held["test"]}

    def encode(self, transforms: features.Transforms) -> encoded.Encoded:
        """Encode all rows; raises as `dataset` does."""
        made = passes.encode(passes.Encoding(self.job, self.schema, self.label, transforms))
        train = blocks.Blocks(
            places=tuple(place for place, _ in made),
            sizes=tuple(rows for _, rows in made),
            targets=self.targets[self.trained(transforms)],
            image=transforms.shape.image,
            get=passes.fetch,
        )
        validation = self.part(transforms, self.split.validation)
        return encoded.Encoded(transforms, self.schema.target, train, validation)


def dataset(experiment: spec.Experiment, size: extent.Extent) -> Dataset:
    """Read all files once, and keep a part of their rows.

    Raises:
        DataError: what the experiment asks for needs all rows in memory; a file cannot be read, has
            other columns than the first, or has changed; nothing can be learned from the data.
        StorageError: an object cannot be fetched.
        ClusterError: Ray Data fails.
    """
    if problems := list(_misfits(experiment, size)):
        raise errors.DataError(*problems)
    data, options = experiment.data, experiment.default().features
    most = max(1, min(HELD, int(size.memory / HELD_SHARE / size.row_bytes)))
    job = passes.Job(size, data, sample.Ranges.of(data.split, size.rows, CANDIDATES * most))
    found = passes.scan(job)
    total = sum(one.rows for one in found)
    exact = sample.Ranges.of(data.split, total, most).within(job.ranges)
    job = dataclasses.replace(job, ranges=exact)
    frame, row_B, part_B = _held(job, found)
    table = tables.infer(load.table(frame), data, options, preferred=experiment.tasks)
    part_B = part_B[table.rows - 1]
    kinds = (sample.SAMPLE, sample.VALIDATION, sample.TEST)
    parts = split.Split(*(np.flatnonzero(part_B == one) for one in kinds))
    split.check(parts, table.targets, tasks.of(table.schema.target))
    hashed = [prepare.fingerprint(table, parts), job.block, *(one.digest for one in found)]
    return Dataset(
        schema=table.schema,
        columns=table.columns,
        rows=row_B[table.rows - 1],
        targets=table.targets,
        split=parts,
        fingerprint=hashlib.sha256(repr(hashed).encode()).hexdigest(),
        notes=[_note(parts), *table.notes],
        keys=table.keys,
        spellings=table.spellings,
        job=job,
        functions=experiment.functions(),
        label=table.label,
        total=total,
    )


def _misfits(experiment: spec.Experiment, size: extent.Extent) -> Iterator[str]:
    """Problems of an experiment whose data are streamed."""
    data, fix = experiment.data, f"; with data.memory above {extent.shown(size.bytes)} it can"
    for key in ("group", "time", "stratify"):
        if getattr(data.split, key) and key in data.split.model_fields_set:
            law = f"streamed rows are split by chance, each by itself, so {key} cannot stand here"
            yield f"data.split.{key}: {law}{fix}"
    if data.duplicates == "drop":
        yield f"data.duplicates: streamed rows are not compared, so drop cannot stand here{fix}"
    if data.protected:
        yield f"data.protected: streamed rows keep their inputs alone, so it cannot stand here{fix}"
    yield from (f"{problem}{fix}" for problem in _misfits_of_training(experiment))
    for name in experiment.features:
        if "target" in reading.values(experiment.searched, ("features", name, "encoding")):
            law = "means of the target are of all training rows, which are streamed"
            yield f"features.{name}.encoding: {law}{fix}"
    settings = math.prod(one.size() for one in experiment.encodings.values())
    if settings > MOST_SETTINGS:
        law = f"streamed rows are encoded for at most {MOST_SETTINGS} settings"
        yield f"features: {law}, but got {settings:g}{fix}"


def _misfits_of_training(experiment: spec.Experiment) -> Iterator[str]:
    if "balanced" in experiment.options("sampling"):
        law = "streamed rows are each trained on once an epoch, so balanced cannot stand here"
        yield f"train.sampling: {law}"
    if experiment.tune.folds > 1:
        law = "folds are parts of rows in memory, which streamed rows are not"
        yield f"tune.folds: {law}, so more than 1 cannot stand here"
    elif experiment.tune.refit is True:
        yield "tune.refit: streamed rows stay in their parts, so true cannot stand here"
    if experiment.model.single:
        law = f"{experiment.model.type} needs all rows in memory, but they are streamed"
        yield f"model.type: {law}"


def _note(parts: split.Split) -> str:
    sampled, validation, test = (f"{len(rows):,}" for rows in parts.parts().values())
    return (
        f"rows are streamed: columns are typed by {sampled} training rows and the two other parts,"
        f" and transforms fitted on these {sampled}; trials are compared on {validation} rows, the"
        f" winner is tested on {test}; all others are trained on"
    )


def _held(
    job: passes.Job, found: Sequence[passes.Scanned]
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The rows in memory as a frame, their numbers in the source from 1 (B), and parts (B)."""
    frames, rows, parts, before = {}, [], [], 1
    for one, file in zip(found, job.size.files, strict=True):
        part_B = job.ranges.parts(one.lot_B)
        kept_B = part_B != sample.TRAIN
        if one.held is not None:
            frames[file.name] = delimited.frame(one.held.filter(pa.array(kept_B)))
        rows.append(before + one.row_B[kept_B])
        parts.append(part_B[kept_B])
        before += one.rows
    return load.joined(frames), np.concatenate(rows), np.concatenate(parts)
