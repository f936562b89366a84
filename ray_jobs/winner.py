"""The winner of a search: evaluated once on the test part, packed, and registered."""

from __future__ import annotations

import io
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from safetensors import torch as safe_torch

import eagleray
from eagleray import bundle
from eagleray.learn import features, metrics, models, schema, tasks
from eagleray.state import searches
from eagleray.state.models import Registry
from eagleray.storage import blobs
from ray_jobs import search
from ray_jobs.data import encoded, prepare


@dataclass(frozen=True)
class Evaluated:
    """The winner and what the untouched test part says of it.

    Attributes:
        test: metrics by name.
        seen: what a person looks at.
        predictions: of each row of the test part, see `predictions`.
    """

    bundle: bundle.Bundle
    test: dict[str, float]
    seen: tasks.Evaluation
    predictions: bytes


def evaluate(searched: search.Search, winner: searches.Record) -> Evaluated:
    """Rebuild the winner from storage and evaluate it on the test part.

    Raises:
        StorageError: its weights are missing or corrupt.
    """
    made, dataset = _bundle(searched, winner), searched.dataset
    rows = dataset.split.test
    outputs = made.predict_columns(encoded.take(dataset, rows)).outputs
    target, truth = dataset.schema.target, dataset.targets[rows]
    test = metrics.score(target, truth, outputs)
    return Evaluated(
        bundle=made,
        test=test,
        seen=made.task.evaluate(truth, outputs, test),
        predictions=predictions(made.task, dataset.rows[rows], truth, outputs),
    )


def predictions(
    task: tasks.Task, row_B: np.ndarray, truth_B: np.ndarray, outputs: np.ndarray
) -> bytes:
    """A Parquet file of the test part: `row`, its number in the source, and `Task.table`."""
    packed = io.BytesIO()
    columns = {"row": row_B, **task.table(truth_B, outputs)}
    pyarrow.parquet.write_table(pa.table(columns), packed)
    return packed.getvalue()


def register(
    searched: search.Search, winner: searches.Record, evaluated: Evaluated
) -> searches.Result:
    """Register the winner, and put the end of the search on record.

    A winner that was registered before gives the version it has.
    """
    manifest, dataset = _manifest(searched, winner, evaluated), searched.dataset
    golden = schema.to_json(dataset.schema, encoded.take(dataset, _golden(dataset)))
    training_part = encoded.take(dataset, dataset.split.train)
    reference = features.reference.describe(dataset.schema, training_part)
    files = bundle.pack(evaluated.bundle, golden, reference)
    files[bundle.PREDICTIONS] = evaluated.predictions
    version = Registry(searched.storage).register(
        searched.experiment.name,
        files,
        manifest,
        same=lambda other: other.manifest.get("lineage") == manifest["lineage"],
    )
    result = _result(searched, winner, evaluated, version.number)
    searched.records.save(result)
    return result


def _result(
    searched: search.Search, winner: searches.Record, evaluated: Evaluated, version: int
) -> searches.Result:
    tune = searched.experiment.tune
    return searches.Result(
        version=version,
        winner=winner.number,
        metric=searched.metric,
        test=evaluated.test,
        confusion=evaluated.seen.confusion,
        trials=tune.trials,
        minutes=tune.minutes,
        confused=[
            searches.Confused(truth=truth, predicted=predicted, rows=rows)
            for truth, predicted, rows in evaluated.seen.confused
        ],
        warnings=evaluated.seen.warnings,
    )


def _bundle(searched: search.Search, winner: searches.Record) -> bundle.Bundle:
    dataset = searched.dataset
    assert winner.weights is not None
    configuration = searched.experiment.configuration(winner.values)
    transforms = searched.transforms(configuration)
    custom = searched.own.get(configuration.model.type)
    task = tasks.of(dataset.schema.target)
    model = models.build(configuration.model, transforms.shape, task.width, custom=custom)
    weights = blobs.get(searched.storage, blobs.Blob(**winner.weights))
    model.load_state_dict(safe_torch.load(weights))
    return bundle.Bundle(
        schema=transforms.with_categories(dataset.schema),
        transforms=transforms,
        options=configuration.model,
        model=model,
        scale=task.scale(dataset.targets[dataset.split.train]),
        custom=custom,
        extra_fields=searched.experiment.serve.extra_fields,
    )


def _golden(dataset: prepare.Dataset) -> np.ndarray:
    """Rows of the validation part, spread over it."""
    rows = dataset.split.validation
    count = min(len(rows), bundle.GOLDEN_ROWS)
    spread: np.ndarray = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    return spread


def _manifest(
    searched: search.Search, winner: searches.Record, evaluated: Evaluated
) -> dict[str, Any]:
    experiment, dataset = searched.experiment, searched.dataset
    return {
        "task": dataset.schema.target.task,
        "metric": searched.metric,
        "metrics": {"validation": winner.best, "test": evaluated.test},
        "warnings": evaluated.seen.warnings,
        "configuration": experiment.configuration(winner.values).model_dump(mode="json"),
        "values": winner.values,
        "rows": {
            "train": len(dataset.split.train),
            "validation": len(dataset.split.validation),
            "test": len(dataset.split.test),
        },
        "lineage": _lineage(searched, winner),
        "made_with": {
            "eagleray": eagleray.__version__,
            "python": platform.python_version(),
            "ray": metadata.version("ray"),
            "torch": str(torch.__version__),
        },
    }


def _lineage(searched: search.Search, winner: searches.Record) -> dict[str, Any]:
    """Where a version comes from; equal for the same winner of the same search."""
    return {
        "search": searched.id,
        "trial": winner.number,
        "epoch": winner.best_epoch,
        "data": searched.dataset.fingerprint,
        "source": searched.experiment.data.source,
    }
