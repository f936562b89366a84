"""A trial in an actor that is reused: one process trains one configuration after another.

Starting a process takes many times as long as a short training, so the actor is reused
(`reset_config`), and the object store holds the encoded data once, shared without copies.

The worker itself saves a trial's state in storage. If the worker is lost, the next one resumes from
this state, even if the driver has received no report of it.
"""

from __future__ import annotations

import logging
import time
import traceback
from concurrent import futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray import tune

from eagleray import code, errors, spec, storage
from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import checkpoints, training
from ray_jobs.data import encoded

if TYPE_CHECKING:
    from ray_jobs.data import prepare

log = logging.getLogger(__name__)

REPORT_S = 1.0
"""A trial reports at each rung, at its end, and this long after its last report."""
STATE_S = 1.0
"""Time from a trial's start to its first saved state, and minimum time between two."""
UPLOAD_RATIO = 10
"""Uploads of states, and of weights between rungs, take about one second in this many."""
OWN_FAILURES = (errors.TrainingError, errors.SpecError, torch.OutOfMemoryError, MemoryError)
"""Failures of one configuration, which another configuration may not have."""


@dataclass(frozen=True)
class Job:
    """What all trials of a search share."""

    experiment: spec.Experiment
    search_id: str
    metric: str  # selects epochs and trials; a name of `eagleray.learn.metrics`
    rungs: frozenset[int]  # epochs at which the scheduler compares trials
    custom: dict[str, code.Code]  # the user's code by its name in the file
    shared: dict[str, ray.ObjectRef[encoded.Encoded]]  # by `encoded.key`
    dataset: ray.ObjectRef[prepare.Dataset]  # a trial with features not in `shared` encodes it


@dataclass
class _Running:
    number: int
    values: dict[str, Any]
    trainer: training.Trainer
    reported: int = 0
    weights: blobs.Blob | None = None
    weights_epoch: int = 0
    weights_due: float = 0.0
    state: searches.State | None = None
    state_due: float = field(default_factory=lambda: time.monotonic() + STATE_S)
    saving: futures.Future[searches.State] | None = None


class Trial(tune.Trainable):
    """A trial as Ray Tune runs it; `config` is what `searcher.Searcher` suggests."""

    def setup(self, config: dict[str, Any], *, job: Job) -> None:  # type: ignore[override]
        # `tune.with_parameters` passes the job
        self._job, compute = job, job.experiment.compute
        torch.set_num_threads(max(1, int(compute.cpus)))
        self._device = "cuda" if compute.gpus and torch.cuda.is_available() else "cpu"
        self._store = storage.open(job.experiment.storage)
        self._records = searches.Records(self._store, job.experiment.name, job.search_id)
        self._uploads = futures.ThreadPoolExecutor(max_workers=1)
        self._cache: dict[str, encoded.Encoded] = {}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config = new_config
        self._running: _Running | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Train until the next rung, the end, or the next report, whichever comes first."""
        try:
            running = self._running = self._running or self._start()
            return self._advance(running)
        except Exception as failure:  # noqa: BLE001 - the trial fails, not its actor
            return self._failed(failure)

    def _failed(self, failure: Exception) -> dict[str, Any]:
        log.error("trial %s fails", self._config["number"], exc_info=failure)
        known = isinstance(failure, errors.EagleRayError)
        return {
            "failure": str(failure) if known else repr(failure),
            "status": "lost" if isinstance(failure, errors.StorageError) else "failed",
            "cause": self._cause(failure),
            "epoch": self._running.trainer.progress.epoch if self._running else 0,
            "done": True,
        }

    def _cause(self, failure: Exception) -> str | None:
        """Type and place of a failure, in the user's code if possible; None if it may not recur."""
        if isinstance(failure, (*OWN_FAILURES, errors.StorageError)):
            return None
        origin: BaseException = failure
        if isinstance(failure, errors.CodeError) and failure.__cause__ is not None:
            origin = failure.__cause__
        frames = traceback.extract_tb(origin.__traceback__ or failure.__traceback__)
        files = {one.filename for one in self._job.custom.values()}
        users = [frame for frame in frames if frame.filename in files]
        place = (users or frames)[-1]
        return f"{type(origin).__name__} at {place.filename}:{place.lineno}"

    def cleanup(self) -> None:
        self._uploads.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> _Running:
        number, values = self._config["number"], self._config["values"]
        configuration = self._job.experiment.configuration(values)
        trainer = training.Trainer(
            configuration,
            self._data(configuration),
            metric=self._job.metric,
            device=self._device,
            custom=self._job.custom,
        )
        state = self._records.state(number, values)
        if state is not None:
            checkpoints.restore(trainer, blobs.get(self._store, state.blob))
        return _Running(number, values, trainer, state=state)

    def _data(self, configuration: spec.Configuration) -> encoded.Encoded:
        key, shared = encoded.key(configuration.features), self._job.shared
        if key not in self._cache:
            self._cache.clear()  # one setting at a time, to save memory
            if key in shared:
                self._cache[key] = ray.get(shared[key])
            else:
                dataset = ray.get(self._job.dataset)
                self._cache[key] = dataset.encode(dataset.fit(configuration.features))
        return self._cache[key]

    def _advance(self, running: _Running) -> dict[str, Any]:
        trainer, until = running.trainer, time.monotonic() + REPORT_S
        while not trainer.finished:
            trainer.epoch()
            self._keep_state(running)
            compared = trainer.progress.epoch in self._job.rungs or trainer.finished
            if compared or time.monotonic() >= until:
                self._keep_weights(running, compared=compared)
                break
        return self._result(running)

    def _keep_weights(self, running: _Running, *, compared: bool) -> None:
        """Upload the best epoch's weights, always when trials are compared.

        Other uploads take about a tenth of the time; they are for a search that runs out of time.
        """
        best, now = running.trainer.progress.best_epoch, time.monotonic()
        if best != running.weights_epoch and (compared or now >= running.weights_due):
            running.weights = blobs.put(self._store, checkpoints.weights(running.trainer))
            running.weights_epoch = best
            running.weights_due = now + UPLOAD_RATIO * (time.monotonic() - now)

    def _keep_state(self, running: _Running) -> None:
        """Upload the state in the background, in about a tenth of the time."""
        now = time.monotonic()
        if running.saving is not None and running.saving.done():
            running.state, running.saving = running.saving.result(), None
        if running.saving is None and now >= running.state_due and not running.trainer.finished:
            data = checkpoints.dump(running.trainer)
            epoch = running.trainer.progress.epoch
            running.saving = self._uploads.submit(self._save_state, running, epoch, data, now)

    def _save_state(
        self, running: _Running, epoch: int, data: bytes, began: float
    ) -> searches.State:
        """Save a state, then delete the one before: one always exists."""
        blob = blobs.put(self._store, data)
        state = searches.State(values=running.values, epoch=epoch, blob=blob)
        self._records.save_state(running.number, state)
        if running.state is not None and running.state.blob != state.blob:
            self._store.delete(blobs.key(running.state.blob))
        ended = time.monotonic()
        running.state_due = ended + max(STATE_S, UPLOAD_RATIO * (ended - began))
        return state

    def _result(self, running: _Running) -> dict[str, Any]:
        progress = running.trainer.progress
        fresh, running.reported = progress.history[running.reported :], len(progress.history)
        return {
            "score": progress.best[self._job.metric],
            "epoch": progress.epoch,
            "best_epoch": progress.best_epoch,
            "best": progress.best,
            "history": fresh,
            "weights": running.weights,
            "state_epoch": running.state.epoch if running.state else 0,
            "finished": running.trainer.finished,
            "done": running.trainer.finished,
        }
