"""The winner of a search: evaluated once on the test part, packed, and registered."""

import contextlib
import functools
import io
import math
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

import eagleray
from eagleray import bundle, errors, evaluation, storage
from eagleray.learn import features, losses, schema, tasks
from eagleray.spec import auto
from eagleray.state import evaluations, searches, watches
from eagleray.state.models import Registry
from ray_jobs import (
    bundles,
    challenge,
    decided,
    ensembles,
    folded,
    latency,
    learning_curve,
    refit,
    search,
)
from ray_jobs.data import prepare


class Winner:
    """The best trial or an ensemble, rebuilt from storage and judged on the untouched test part.

    `trials` are all of the search, the best that can be rebuilt first. `best` is what
    `ensembles.best` finds among them, `anew` has refits of its members, which take their places;
    `damaged` says what is wrong with better ones. `announce` is called with what takes a while.

    Raises:
        StorageError: its weights are missing or corrupt.
    """

    def __init__(
        self,
        searched: search.Search,
        trials: list[searches.Record],
        best: ensembles.Best | None = None,
        anew: refit.Refits | None = None,
        *,
        damaged: Sequence[str] = (),
        announce: Callable[[str], object] = lambda _: None,
    ) -> None:
        trial = trials[0]
        layers, unread = _layers(searched, trial)  # first: a judged winner needs no storage
        self._search, self._trial, self._front = searched, trial, searched.front(trials)
        self._anew, self._dataset = anew, anew.search.dataset if anew else searched.dataset
        split = self._dataset.split
        self._test, train = (_part(self._dataset, rows) for rows in (split.test, split.train))
        self._best = best or ensembles.best(searched, trials)
        if anew is not None:
            self._best = self._best.with_refits(anew.records)
        trained = searched.experiment.configuration(trial.values).train
        plain, chosen = self._rebuilt(), searched.experiment.decide
        distorted = losses.distorts(trained, plain.task)
        found = decided.decide(chosen, plain, self._held, distorted=distorted)
        self._bundle, self._known = found.model, _known(self._dataset)
        self._changed = dict(found.validation)
        if self._known is not None:
            self._bundle.remember(self._known.columns, self._known.truth_B)
        self._outputs = self._bundle.predict_columns(self._test.columns).outputs
        self._predictions = predictions(
            self._bundle.task, self._test.row_B, self._test.truth_B, self._outputs
        )
        self._judged = evaluation.Judged(
            self._bundle.schema.target,
            self._test.truth_B,
            self._outputs,
            unit_B=self._bundle.task.units(self._test.columns),
        )
        evaluated = evaluation.evaluate(
            _model(self._bundle),
            searched.metric,
            test=self._test,
            judged=self._judged,
            train=train,
            protected=[(one.column, one.array[split.test]) for one in self._dataset.protected],
            history=trial.history if trial.folds == 1 else [],
            trained=evaluation.Training(
                configuration=searched.experiment.configuration(trial.values),
                model=searched.experiment.model,
                layers=layers,
            ),
        )
        evaluated = self._best.annotate(found.annotate(evaluated, self._test, self._outputs))
        curve = learning_curve.measure(searched, trial, self._test, self._judged, announce=announce)
        more = {"latency": self._latency(trials), "learning_curve": curve.curve}
        notes = [*evaluated.notes, *curve.notes, *unread]
        self._evaluation = evaluated.model_copy(update={**more, "notes": notes})
        if damaged:
            told = [*self._evaluation.warnings, _replaced(trial, damaged)]
            self._evaluation = self._evaluation.model_copy(update={"warnings": told})

    def register(self) -> searches.Result:
        """Register the model and save the result; a winner registered before keeps its version.

        The look at the test part is counted first, and the champion judged on the same rows.
        """
        store = self._search.storage
        found = {"looks": self._look(store), "champion": self._challenge(store)}
        self._evaluation = self._evaluation.model_copy(update=found)
        result = self._result(self._register(store))
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

    @functools.cached_property
    def _tried(self) -> bundle.Bundle:
        """The model as the search has compared it with others; with folds there is none."""
        return self._best.model(functools.partial(bundles.of, self._search))

    def _rebuilt(self) -> bundle.Bundle:
        """The model that is to be registered."""
        if (anew := self._anew) is None:
            return self._tried
        return self._best.model(lambda trial: anew.model(trial) or bundles.of(self._search, trial))

    def _held(self) -> decided.Held:
        """Rows that models of the winner's configuration were not trained on, and their outputs."""
        searched, dataset = self._search, self._search.dataset
        if dataset.folds:
            with bundles.weights(searched, self._trial) as best:
                return decided.Held(*folded.held_out(dataset, best), "out-of-fold")
        rows, made = dataset.split.validation, self._tried
        raw_BC = made.raw_outputs(dataset.take(rows))
        raw_BC = made.task.rescaled(raw_BC, made.scale, made.task.unit)
        return decided.Held(dataset.targets[rows], raw_BC)

    def _latency(self, trials: list[searches.Record]) -> evaluations.Latency:
        row = {name: array[:1] for name, array in self._test.columns.items()}
        price = self._best.ensemble.price if self._best.weights and self._best.ensemble else None
        ms = price.latency_ms if price else latency.milliseconds(self._bundle, row)
        return latency.judge(self._search, trials, ms, row)

    def _look(self, store: storage.Storage) -> int:
        """Count the look; 0, not counted, where the storage refuses to write there."""
        part = evaluation.rows_hash(self._test.row_B, self._test.truth_B)
        one = evaluations.Look(
            model=self._search.experiment.name,
            search=self._search.id,
            trial=self._trial.number,
            epoch=self._until or self._trial.best_epoch,
        )
        try:
            return evaluations.look(store, part, len(self._test.row_B), one)
        except errors.AccessDeniedError:
            return 0

    def _challenge(self, store: storage.Storage) -> evaluations.Comparison | None:
        known, columns = self._bundle.schema, self._test.columns
        rows = challenge.Rows(self._judged, self._search.metric, known, columns, self._known)
        return challenge.champion(
            Registry(store), self._search.experiment.name, self._lineage, rows
        )

    def _register(self, store: storage.Storage) -> int:
        dataset, manifest = self._dataset, self._manifest()
        golden = prepare.evenly_spaced(dataset.split.validation, bundle.GOLDEN_ROWS)
        if self._known is not None:  # whoever is served has chosen the items of the test part too
            self._bundle.remember(self._test.columns, self._test.truth_B)
        reference = features.reference.describe(dataset.schema, dataset.take(dataset.split.train))
        files = bundle.pack(
            self._bundle, schema.to_json(dataset.schema, dataset.take(golden)), reference
        )
        files[bundle.PREDICTIONS] = self._predictions
        files[evaluations.FILE] = evaluations.encode(self._evaluation)
        version = Registry(store).register(
            self._search.experiment.name,
            files,
            manifest,
            same=lambda other: other.manifest.get("lineage") == manifest["lineage"],
        )
        return version.number

    def _result(self, version: int) -> searches.Result:
        tune, hours, judged = self._search.experiment.tune, self._hours, self._evaluation
        return searches.Result(
            version=version,
            winner=self._trial.number,
            metric=self._search.metric,
            test=judged.values,
            validation=self._changed,
            intervals={name: one for name, one in judged.metrics.items() if one.low is not None},
            confusion=judged.confusion,
            cost=tune.cost,
            front=self._front,
            trials=tune.trials,
            minutes=tune.minutes,
            hours=hours,
            confused=judged.confused,
            warnings=judged.warnings,
            headline=judged.headline,
            looks=judged.looks,
            baselines=judged.baselines,
            unbeaten=list(evaluation.unbeaten(judged)),
            compared=judged.champion,
            coverage=judged.intervals,
            fairness=judged.fairness,
            decision=judged.decision,
            calibration=judged.calibration,
            folds=self._trial.folds,
            refit=self._until,
            ensemble=judged.ensemble,
            latency=judged.latency,
            learning_curve=judged.learning_curve,
            members=self._search.experiment.members,
            latency_ms=tune.ensemble.latency_ms,
        )

    @property
    def _until(self) -> int:
        """Epochs of the longest refit; 0 without one."""
        return self._anew.epochs if self._anew else 0

    @property
    def _hours(self) -> float | None:
        hours = self._search.experiment.hours
        return hours if hours < math.inf else None

    @property
    def _lineage(self) -> dict[str, Any]:
        """Equal for the same winner of the same search."""
        return {
            "search": self._search.id,
            "trial": self._trial.number,
            "epoch": self._until or self._trial.best_epoch,
            "data": self._search.dataset.fingerprint,
            "source": self._search.experiment.data.source,
            **({"members": self._best.weights} if self._best.weights else {}),
        }

    def _manifest(self) -> dict[str, Any]:
        experiment, dataset, trial = self._search.experiment, self._search.dataset, self._trial
        compared = self._evaluation.champion
        return {
            "task": dataset.schema.target.task,
            "metric": self._search.metric,
            "metrics": {
                "validation": {**self._best.validation, **self._changed},
                "test": self._evaluation.values,
            },
            "warnings": self._evaluation.warnings,
            "unbeaten": list(evaluation.unbeaten(self._evaluation)),
            "looks": self._evaluation.looks,
            "decision": _dumped(self._evaluation.decision),
            "calibration": _dumped(self._evaluation.calibration),
            "ensemble": _dumped(self._evaluation.ensemble),
            "compared": compared.model_dump(mode="json", exclude={"metrics"}) if compared else None,
            "configuration": experiment.configuration(trial.values).model_dump(mode="json"),
            "values": auto.effective(trial.values),
            "rows": dataset.counts,
            "folds": trial.folds,
            "standard_error": trial.standard_error,
            "refit": self._until,
            "outliers": len(dataset.split.train) - len(dataset.trained(self._bundle.transforms)),
            "lineage": self._lineage,
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


def _replaced(trial: searches.Record, damaged: Sequence[str]) -> str:
    """The warning of a version that is not of the best trial."""
    law = f"is of trial {trial.number}, the best one that storage can give back"
    return f"{law}; damaged there: {'; '.join(damaged)}"


def _dumped(part: evaluations.Part | None) -> dict[str, Any] | None:
    return part.model_dump(mode="json") if part else None


def _part(dataset: prepare.Dataset, rows: np.ndarray) -> evaluation.Part:
    marks = dataset.marks.take(rows)
    return evaluation.Part(dataset.take(rows), dataset.targets[rows], dataset.rows[rows], marks)


def _layers(searched: search.Search, trial: searches.Record) -> tuple[list[watches.Row], list[str]]:
    """What was watched of the trial's layers, and a note if that is damaged."""
    try:
        return searched.records.layers(trial.number), []
    except errors.CorruptObjectError as cause:
        return [], [f"training: nothing is said of its layers: {cause}"]


def _known(dataset: prepare.Dataset) -> evaluation.Part | None:
    """What a model that remembers is told before it is judged: all that is older than the test."""
    if not tasks.of(dataset.schema.target).remembers:
        return None
    split = dataset.split
    return _part(dataset, np.concatenate([split.train, split.validation]))


def _model(made: bundle.Bundle) -> evaluation.Model:
    return evaluation.Model(
        known=made.schema,
        shape=made.transforms.shape,
        encode=made.transforms.apply,
        encode_training=made.transforms.training,
        predict=lambda columns: made.predict_columns(columns).outputs,
        plain=made.baselines(),
    )
