"""The winner of a search: evaluated once on the test part, packed, and registered."""

import contextlib
import io
import math
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

import eagleray
from eagleray import bundle, errors, storage
from eagleray.learn import features, metrics, schema, tasks
from eagleray.state import searches
from eagleray.state.models import Registry
from eagleray.storage import cache
from ray_jobs import learner, search, tensors
from ray_jobs.data import prepare


class Winner:
    """The best trial, rebuilt from storage and evaluated on the untouched test part.

    `trials` are all of the search, the best first.

    Raises:
        StorageError: its weights are missing or corrupt.
    """

    def __init__(self, searched: search.Search, trials: list[searches.Record]) -> None:
        trial = trials[0]
        self._search, self._trial, self._front = searched, trial, searched.front(trials)
        self._bundle = _bundle(searched, trial)
        dataset, task = searched.dataset, self._bundle.task
        rows = dataset.split.test
        outputs = self._bundle.predict_columns(dataset.take(rows)).outputs
        truth = dataset.targets[rows]
        self._test = metrics.score(dataset.schema.target, truth, outputs)
        self._evaluation = task.evaluate(truth, outputs, self._test)
        self._predictions = predictions(task, dataset.rows[rows], truth, outputs)

    def register(self) -> searches.Result:
        """Register the model and save the result; a winner registered before keeps its version."""
        result = self._result(self._register(self._search.storage))
        self._search.records.save(result)
        return result

    def keep(self, folder: Path) -> str:
        """Register the model in a storage of its own in this folder; return that storage's URI."""
        folder.mkdir(exist_ok=True)
        store, name = storage.open(folder.absolute().as_uri()), self._search.experiment.name
        version = self._register(store)
        with contextlib.suppress(errors.ConflictError):  # kept before
            Registry(store).promote(
                name, version, why="kept locally", by="eagleray run", expect=None
            )
        return store.uri

    def _register(self, store: storage.Storage) -> int:
        dataset, manifest = self._search.dataset, self._manifest()
        golden = prepare.evenly_spaced(dataset.split.validation, bundle.GOLDEN_ROWS)
        reference = features.reference.describe(dataset.schema, dataset.take(dataset.split.train))
        files = bundle.pack(
            self._bundle, schema.to_json(dataset.schema, dataset.take(golden)), reference
        )
        files[bundle.PREDICTIONS] = self._predictions
        version = Registry(store).register(
            self._search.experiment.name,
            files,
            manifest,
            same=lambda other: other.manifest.get("lineage") == manifest["lineage"],
        )
        return version.number

    def _result(self, version: int) -> searches.Result:
        tune, hours = self._search.experiment.tune, self._search.experiment.hours
        return searches.Result(
            version=version,
            winner=self._trial.number,
            metric=self._search.metric,
            test=self._test,
            confusion=self._evaluation.confusion,
            cost=tune.cost,
            front=self._front,
            trials=tune.trials,
            minutes=tune.minutes,
            hours=hours if hours < math.inf else None,
            confused=[
                searches.Confusion(truth=truth, predicted=predicted, rows=rows)
                for truth, predicted, rows in self._evaluation.confused
            ],
            warnings=self._evaluation.warnings,
        )

    def _manifest(self) -> dict[str, Any]:
        experiment, dataset, trial = self._search.experiment, self._search.dataset, self._trial
        return {
            "task": dataset.schema.target.task,
            "metric": self._search.metric,
            "metrics": {"validation": trial.best, "test": self._test},
            "warnings": self._evaluation.warnings,
            "configuration": experiment.configuration(trial.values).model_dump(mode="json"),
            "values": trial.values,
            "rows": dataset.counts,
            "lineage": {  # equal for the same winner of the same search
                "search": self._search.id,
                "trial": trial.number,
                "epoch": trial.best_epoch,
                "data": dataset.fingerprint,
                "source": experiment.data.source,
            },
            "made_with": {
                "eagleray": eagleray.__version__,
                "python": platform.python_version(),
                "ray": metadata.version("ray"),
                "torch": str(torch.__version__),
            },
        }


def predictions(
    task: tasks.Task, row_B: np.ndarray, truth_B: np.ndarray, outputs: np.ndarray
) -> bytes:
    """Parquet file of the test part: `row`, its number in the source, and `Task.table`."""
    packed = io.BytesIO()
    columns = {"row": row_B, **task.table(truth_B, outputs)}
    pyarrow.parquet.write_table(pa.table(columns), packed)
    return packed.getvalue()


def _bundle(searched: search.Search, trial: searches.Record) -> bundle.Bundle:
    dataset = searched.dataset
    configuration = searched.experiment.configuration(trial.values)
    transforms = searched.transforms(configuration)
    custom = searched.custom.get(configuration.model.type)
    task, trained = tasks.of(dataset.schema.target), learner.member(configuration.model)
    with contextlib.ExitStack() as stack:
        opened = (cache.default().open(searched.storage, blob) for blob in trial.weights)
        weights = tensors.Reader(map(stack.enter_context, opened))
        engine = trained.engine(configuration.model, transforms, task.width, weights, custom=custom)
    return bundle.Bundle(
        schema=transforms.with_categories(dataset.schema),
        transforms=transforms,
        engine=engine,
        scale=task.scale(dataset.targets[dataset.split.train]),
        extra_fields=searched.experiment.serve.extra_fields,
    )
