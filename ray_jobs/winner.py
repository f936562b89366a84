"""What becomes of a search: its winner is judged once on the test part, packed and registered."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from safetensors import torch as safe_torch

import eagleray
from eagleray import bundle, code, features, schema, storage
from eagleray.learn import models
from eagleray.state import searches
from eagleray.state.models import Registry, Version
from eagleray.storage import blobs
from ray_jobs import search, training
from ray_jobs.data import encoded
from ray_jobs.evaluation import confusion, metrics, predictions, sanity


@dataclass(frozen=True)
class Judged:
    """The winner and what the untouched test part says of it.

    Attributes:
        test: metrics by name.
        confusion, confused, warnings: see `searches.Result`.
        predictions: of each row of the test part, see `evaluation.predictions`.
    """

    bundle: bundle.Bundle
    test: dict[str, float]
    confusion: list[list[int]] | None
    confused: list[searches.Confused]
    warnings: list[str]
    predictions: bytes


def judge(outcome: search.Outcome, own: dict[str, code.Code]) -> Judged:
    """Rebuild the winner from storage and evaluate it on the test part.

    Raises:
        StorageError: its weights are missing or corrupt.
    """
    made = _bundle(outcome, own)
    dataset = outcome.dataset
    rows = dataset.split.test
    outputs = made.predict_columns(encoded.take(dataset, rows)).outputs
    target, truth = dataset.schema.target, dataset.targets[rows]
    test = metrics.score(target, truth, outputs)
    labels = outputs.argmax(1) if target.classes else None
    return Judged(
        bundle=made,
        test=test,
        confusion=None if labels is None else confusion.matrix(target, truth, labels),
        confused=[] if labels is None else confusion.pairs(target, truth, labels),
        warnings=sanity.warnings(target, truth, outputs, test),
        predictions=predictions.pack(target, dataset.rows[rows], truth, outputs),
    )


def register(outcome: search.Outcome, judged: Judged) -> Version:
    """Register the winner; one that was registered before gives the version it has."""
    registry = Registry(storage.open(outcome.experiment.storage))
    manifest, dataset = _manifest(outcome, judged), outcome.dataset
    golden = schema.to_json(dataset.schema, encoded.take(dataset, _golden(outcome)))
    training_part = encoded.take(dataset, dataset.split.train)
    reference = features.reference.describe(dataset.schema, training_part)
    files = bundle.pack(judged.bundle, golden, reference)
    files[bundle.PREDICTIONS] = judged.predictions
    return registry.register(
        outcome.experiment.name,
        files,
        manifest,
        same=lambda other: other.manifest.get("lineage") == manifest["lineage"],
    )


def record(
    outcome: search.Outcome, judged: Judged, version: Version, kept: searches.Records
) -> searches.Result:
    """Put the end of the search on record."""
    tune = outcome.experiment.tune
    result = searches.Result(
        version=version.number,
        winner=outcome.winner.number,
        metric=outcome.metric,
        test=judged.test,
        confusion=judged.confusion,
        trials=tune.trials,
        minutes=tune.minutes,
        confused=judged.confused,
        warnings=judged.warnings,
    )
    kept.finish(result)
    return result


def _bundle(outcome: search.Outcome, own: dict[str, code.Code]) -> bundle.Bundle:
    winner, dataset = outcome.winner, outcome.dataset
    assert winner.weights is not None
    configuration = outcome.experiment.configuration(winner.values)
    data = encoded.encode(dataset, configuration.features)
    custom = own.get(configuration.model.type)
    shape = data.transforms.shape
    model = models.build(configuration.model, shape, data.outputs, custom=custom)
    store = storage.open(outcome.experiment.storage)
    model.load_state_dict(safe_torch.load(blobs.get(store, blobs.Blob(**winner.weights))))
    return bundle.Bundle(
        schema=features.seen(dataset.schema, data.transforms),
        transforms=data.transforms,
        options=configuration.model,
        model=model,
        scale=training.scale(data),
        custom=custom,
        extra_fields=outcome.experiment.serve.extra_fields,
    )


def _golden(outcome: search.Outcome) -> np.ndarray:
    """Rows of the validation part, spread over it."""
    rows = outcome.dataset.split.validation
    count = min(len(rows), bundle.GOLDEN_ROWS)
    spread: np.ndarray = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    return spread


def _manifest(outcome: search.Outcome, judged: Judged) -> dict[str, Any]:
    winner = outcome.winner
    return {
        "task": outcome.dataset.schema.target.task,
        "metric": outcome.metric,
        "metrics": {"validation": winner.best, "test": judged.test},
        "warnings": judged.warnings,
        "configuration": outcome.experiment.configuration(winner.values).model_dump(mode="json"),
        "values": winner.values,
        "rows": {
            "train": len(outcome.dataset.split.train),
            "validation": len(outcome.dataset.split.validation),
            "test": len(outcome.dataset.split.test),
        },
        "lineage": _lineage(outcome),
        "made_with": {
            "eagleray": eagleray.__version__,
            "python": platform.python_version(),
            "ray": ray.__version__,
            "torch": str(torch.__version__),
        },
    }


def _lineage(outcome: search.Outcome) -> dict[str, Any]:
    """Where a version comes from; equal for the same winner of the same search."""
    return {
        "search": outcome.search_id,
        "trial": outcome.winner.number,
        "epoch": outcome.winner.best_epoch,
        "data": outcome.dataset.fingerprint,
        "source": outcome.experiment.data.source,
    }
