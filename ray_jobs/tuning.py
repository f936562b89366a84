"""A search on Ray Tune, on the cluster that this process is connected to."""

from __future__ import annotations

import functools
import itertools
import math
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import ray
from ray import tune

from eagleray import errors, process, ray_compat, spec
from eagleray.state import searches, watches
from ray_jobs import (
    cluster,
    outbox,
    retention,
    retries,
    scheduler,
    search,
    searcher,
    session,
    trial,
    waiting,
)
from ray_jobs.data import encoded

MAX_ENCODED = 8
"""Maximum number of settings of `features`, or of folds, that are encoded once for all trials."""
FREE_S = 10.0
"""Time between two looks for what groups that were lost still hold."""
RETRIES = 3
"""Retries of a trial whose worker is lost; a newer saved state resets the count."""


def run(
    searched: search.Search,
    trials: dict[int, searches.Record],
    ended: Callable[[searches.Record], None],
    *,
    queue: waiting.Queue | None = None,
    size: int = 1,
    grows: bool = True,
) -> list[searches.Record]:
    """Run the trials that are left; return all trials, the best first.

    `trials` holds those of earlier runs by number, and is updated in place. `ended` is called with
    each trial that ends, `queue` of those that wait. Packs have `size` trials at most. `grows` says
    that the cluster may.

    Raises:
        LeaseLostError: another driver has taken over the search.
        SearchError: no trial gave a model.
        StorageError: storage fails after all retries.
    """
    compute = searched.experiment.compute
    recorder = _Recorder(searched, trials, ended)
    began = time.monotonic() - searched.seconds()
    # a group that waits makes the autoscaler add a node; elsewhere it only holds processes
    room = cluster.Room(compute, more=int(compute.grouped and grows))
    try:
        while True:
            recorder.lost = retries.Retries(None if compute.grouped else cluster.wanted(compute))
            budget = _Budget(searched.experiment, recorder, began)
            _tune(
                searched, (recorder, queue or waiting.Queue(compute)), budget, size=size, room=room
            )
            if not recorder.lost.stranded:
                break
    finally:
        recorder.flush()
    return searched.ranked(list(trials.values()))


def _tune(
    searched: search.Search,
    callbacks: tuple[_Recorder, waiting.Queue],
    budget: _Budget,
    *,
    size: int,
    room: cluster.Room,
) -> None:
    experiment, compute = searched.experiment, searched.experiment.compute
    recorder, _ = callbacks
    known = recorder.known
    trainable = tune.with_parameters(trial.Trial, job=_job(searched))
    with (
        tempfile.TemporaryDirectory(prefix="eagleray-tune-") as folder,
        process.variables(ray_compat.TUNE),
        process.signals(recorder.interrupt, signal.SIGINT),
    ):
        tune.Tuner(
            tune.with_resources(trainable, cluster.reserved(compute)),
            tune_config=tune.TuneConfig(
                metric="score",
                mode=searched.mode,
                search_alg=searcher.Searcher(
                    experiment,
                    searched.mode,
                    known,
                    earlier=searched.earlier(),
                    room=room,
                    pack=size,
                ),
                scheduler=scheduler.build(searched, known, recorder.lost),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                callbacks=[*callbacks],
                stop=budget,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()


def _job(searched: search.Search) -> session.Job:
    experiment, shared = searched.experiment, {}
    for key, data in itertools.islice(_encoded(searched), MAX_ENCODED):
        shared[key] = _put(data)
    rungs, folds = scheduler.rungs(experiment), experiment.tune.folds
    return session.Job(
        experiment=experiment,
        search_id=searched.id,
        metric=searched.metric,
        rungs=frozenset(rungs if folds == 1 else range(1, folds + 1)),
        population=experiment.tune.scheduler == "pbt",
        custom=searched.custom,
        shared=shared,
        dataset=_put(searched.dataset),
        refits={record.number: record.until for record in searched.refits},
    )


def _put(data: object) -> Any:
    """Put data into Ray's object store; ClusterError if neither it nor the disk has room."""
    try:
        return ray.put(data)
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as cause:
        law = "Ray's object store must have room for the data, on disk if not in memory"
        fix = "make room on the disk of Ray's temporary folder, of which Ray fills 95 %"
        raise errors.ClusterError(
            f"{socket.gethostname()}: {law}, but is full: {fix}, and run the same command to go on"
        ) from cause


def _encoded(searched: search.Search) -> Iterator[tuple[str, encoded.Encoded]]:
    """Yield the data of each setting of `features` and each fold, with their key."""
    dataset, experiment = searched.dataset, searched.experiment
    refits = {
        encoded.key(one.features): one
        for one in (experiment.configuration(record.values) for record in searched.refits)
    }
    for one in refits.values() or search.feature_settings(experiment):
        if not dataset.folds:
            yield encoded.key(one.features), dataset.encode(searched.transforms(one))
            continue
        for number in range(len(dataset.folds)):
            fold = dataset.fold(number)
            yield encoded.key(one.features, number), fold.encode(fold.fit(one.features))


class _Budget(tune.Stopper):
    """Ends a search when it has run for its minutes, or its trials for their hours.

    It ends a run of Ray Tune, too, in which a trial waits for a node in vain.
    """

    def __init__(self, experiment: spec.Experiment, recorder: _Recorder, began: float) -> None:
        self._recorder, self._seconds = recorder, experiment.hours * 3600
        self._until = began + (experiment.tune.minutes or math.inf) * 60

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as the recorder's

    def __call__(self, *_: Any) -> bool:
        return False

    def stop_all(self) -> bool:
        over = time.monotonic() >= self._until or self._recorder.spent >= self._seconds
        return over or self._recorder.lost.stranded


class _Recorder(tune.Callback):
    """Records what Ray Tune reports; Ray Tune calls by keyword.

    Attributes:
        spent: seconds of all trials in all runs of the search.
        lost: holds back the trials that have lost their worker.
    """

    lost: retries.Retries

    def __init__(
        self,
        searched: search.Search,
        trials: dict[int, searches.Record],
        ended: Callable[[searches.Record], None],
    ) -> None:
        self._records, self._trials, self._ended = searched.records, trials, ended
        self._retention = retention.Retention(searched, trials)
        self._outbox = outbox.Outbox()
        self._over: set[tuple[str, int]] = set()  # members that have ended, by Ray's id and number
        self._layers: dict[int, list[watches.Row]] = {}  # of running trials, by number
        self.spent = sum(record.seconds for record in trials.values())
        self._interrupted = False
        self._grouped, self._freed = searched.experiment.compute.grouped, time.monotonic()
        self._folds = searched.experiment.tune.folds

    @property
    def known(self) -> list[searches.Record]:
        return list(self._trials.values())

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it for its own recovery; a search resumes from its records

    def interrupt(self, *_: object) -> None:
        """Handle Ctrl-C: end the search between two steps; within one, Ray may swallow it."""
        self._interrupted = True
        self._outbox.hurry()

    def on_step_begin(self, **_: Any) -> None:  # type: ignore[override]
        if self._interrupted:
            raise KeyboardInterrupt
        self._records.check()
        self._outbox.check()
        if self._grouped and time.monotonic() - self._freed >= FREE_S:
            self._freed = time.monotonic()
            ray_compat.free_reservations()

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        for record in self._unended(trial):
            record.status, record.failure, record.cause = "running", None, None
            self._save(record)
        self.lost.start(trial)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        for report in result["members"]:
            record = self._trials[report["number"]]
            last = report.get("state")
            if last and (last.epoch, last.batch) > (record.state_epoch, record.state_batch):
                ray_compat.allow_failures(trial, RETRIES)
                self.lost.advance(trial)
            self.spent += report.get("seconds", 0.0)
            _update(record, report)
            self._watch(record.epoch - len(report.get("history", ())), report)
            self._retention.replace(
                record, report.get("weights", ()), report.get("weights_epoch", 0)
            )
            if report["done"]:
                self.lost.advance(trial)
                self._end(trial, record)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        self.lost.end(trial)
        for record in self._unended(trial):
            if record.epoch:  # else it has not begun: the next run of the search trains it
                record.status = "stopped"
                self._end(trial, record)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        for record in self._unended(trial):
            record.status = "lost"
            record.failure = f"worker lost {RETRIES + 1} times without progress{_last_error(trial)}"
            self._end(trial, record)

    def flush(self) -> None:
        """Save the records of running trials, from which an interrupted search resumes."""
        with suppress(errors.LeaseLostError):  # the driver that took over has saved it
            try:
                for record in self._trials.values():
                    if record.status == "running":
                        self._save(record)
                self._outbox.put(self._retention.clean_up)
            finally:
                self._outbox.close()

    def _end(self, trial: Any, record: searches.Record) -> None:
        self._over.add((trial.trial_id, record.number))
        if rows := self._layers.pop(record.number, []):
            self._outbox.put(functools.partial(self._records.save_layers, record.number, rows))
        for write in (self._retention.settle, self._records.save, self._retention.clean):
            self._outbox.put(functools.partial(write, record))
        self._outbox.put(lambda: self._ended(record))

    def _watch(self, before: int, report: dict[str, Any]) -> None:
        """Keep what was watched up to the epoch `before`, and what is reported."""
        number, fresh = report["number"], report.get("layers", [])
        known = [row for row in self._layers.get(number, []) if row.epoch <= before]
        self._layers[number] = [*known, *fresh]

    def _save(self, record: searches.Record) -> None:
        """Save a record as it is now."""
        self._outbox.put(functools.partial(self._records.save, record.model_copy(deep=True)))

    def _unended(self, trial: Any) -> list[searches.Record]:
        """The records of a trial's members, without those that have ended in this run."""
        members = [
            one
            for one in trial.config["members"]
            if (trial.trial_id, one["number"]) not in self._over
        ]
        folds = self._folds
        return [
            self._trials.setdefault(one["number"], searches.Record(**one, folds=folds))
            for one in members
        ]


def _last_error(trial: Any) -> str:
    """What a worker said of its machine; empty if it died without a word."""
    error = getattr(trial.get_pickled_error(), "cause", None)
    return f": {error}" if isinstance(error, errors.EagleRayError) else ""


def _update(record: searches.Record, report: dict[str, Any]) -> None:
    record.epoch = report["epoch"]
    if "failure" in report:
        record.status, record.failure = report["status"], report["failure"]
        record.cause = report["cause"]
        return
    for name in ("values", "score", "standard_error", "best_epoch", "best", "costs"):
        setattr(record, name, report[name])
    if (last := report["state"]) is not None:
        record.state_epoch, record.state_batch = last.epoch, last.batch
    record.spent = record.seconds + report["seconds"]
    record.evidence += report["evidence"]
    before = record.epoch - len(report["history"])  # a retried trial reports epochs again
    record.history = [*record.history[:before], *report["history"]]
    if report["done"]:
        record.status = "stopped" if "stopped" in report else "finished"
