"""A trial in a warm actor: one process trains configuration after configuration.

A fresh process for each trial costs many times what a short training takes, so the actor is reused
(`reset_config`) and the encoded data sits once in the object store, shared without copies.
"""

from __future__ import annotations

import time
from concurrent import futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
import torch
from ray import tune

from eagleray import code, errors, spec, storage
from eagleray.storage import blobs
from ray_jobs import checkpoints, training
from ray_jobs.data import encoded

if TYPE_CHECKING:
    from ray_jobs.data import prepare

REPORT_S = 1.0
"""A trial reports at each rung, at its end, and when this long has passed since its last report."""
CHECKPOINT_S = 10.0
"""A training that lasts longer than this between rungs keeps its state in storage this often."""


@dataclass(frozen=True)
class Job:
    """What all trials of a search share.

    Attributes:
        experiment: the file.
        metric: what selects, a key of `spec.METRICS`.
        rungs: epochs at which the scheduler compares trials.
        storage_uri: where checkpoints go.
        own: the user's code by name.
        shelf: references to `Encoded` data by `features_key`; a trial whose features are not on
            it encodes `dataset` itself.
        dataset: reference to the `Dataset`.
    """

    experiment: spec.Experiment
    metric: str
    rungs: frozenset[int]
    storage_uri: str
    own: dict[str, code.Code]
    shelf: dict[str, ray.ObjectRef[encoded.Encoded]]
    dataset: ray.ObjectRef[prepare.Dataset]


@dataclass
class _Running:
    """One configuration under way."""

    trainer: training.Trainer
    reported: int = 0
    weights: dict[str, Any] | None = None
    weights_epoch: int = 0
    weights_due: float = 0.0
    state: dict[str, Any] | None = None
    saving: futures.Future[blobs.Blob] | None = None
    saved_at: float = field(default_factory=time.monotonic)


class Trial(tune.Trainable):
    """Ray Tune's view: `config` holds `number`, `values` and, to go on from one, `resume`."""

    def setup(self, config: dict[str, Any], *, job: Job) -> None:  # type: ignore[override]
        # `tune.with_parameters` passes the job
        self._job = job
        cpus = max(1, int(job.experiment.compute.cpus))
        torch.set_num_threads(cpus)
        self._device = (
            "cuda" if job.experiment.compute.gpus and torch.cuda.is_available() else "cpu"
        )
        self._store = storage.open(job.storage_uri)
        self._uploads = futures.ThreadPoolExecutor(max_workers=1)
        self._cache: dict[str, encoded.Encoded] = {}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config = new_config
        self._running: _Running | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next rung, the end, or the next report, whichever comes first."""
        try:
            running = self._running = self._running or self._start()
            return self._advance(running)
        except Exception as failure:  # noqa: BLE001 - a trial fails, its actor is as good as before
            return self._failed(failure)

    def _failed(self, failure: Exception) -> dict[str, Any]:
        """What a configuration does is its failure; what storage does to it is not."""
        known = isinstance(failure, errors.EagleRayError)
        return {
            "failure": str(failure) if known else repr(failure),
            "status": "lost" if isinstance(failure, errors.StorageError) else "failed",
            "epoch": self._running.trainer.progress.epoch if self._running else 0,
            "done": True,
        }

    def cleanup(self) -> None:
        self._uploads.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> _Running:
        configuration = self._job.experiment.configuration(self._config["values"])
        trainer = training.Trainer(
            configuration,
            self._data(configuration),
            metric=self._job.metric,
            device=self._device,
            own=self._job.own,
        )
        if self._config.get("resume"):
            blob = blobs.Blob(**self._config["resume"])
            checkpoints.restore(trainer, blobs.get(self._store, blob))
        return _Running(trainer)

    def _data(self, configuration: spec.Configuration) -> encoded.Encoded:
        key = features_key(configuration)
        if key not in self._cache:
            self._cache.clear()  # one setting at a time: the next trial may need the room
            shelved = self._job.shelf.get(key)
            self._cache[key] = (
                encoded.encode(ray.get(self._job.dataset), configuration.features)
                if shelved is None
                else ray.get(shelved)
            )
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
        """Upload the best epoch's weights, and wait for it.

        Always where a decision may end the trial; else only as often as costs a tenth of the time,
        so that a search whose budget runs out has what its trials reached.
        """
        best, now = running.trainer.progress.best_epoch, time.monotonic()
        if best != running.weights_epoch and (compared or now >= running.weights_due):
            stored = blobs.put(self._store, checkpoints.weights(running.trainer))
            running.weights, running.weights_epoch = vars(stored), best
            running.weights_due = now + 10 * (time.monotonic() - now)

    def _keep_state(self, running: _Running) -> None:
        """Upload the whole state from time to time, in the background."""
        if running.saving is not None and running.saving.done():
            running.state, running.saving = vars(running.saving.result()), None
        due = time.monotonic() - running.saved_at > CHECKPOINT_S
        if due and running.saving is None and not running.trainer.finished:
            data = checkpoints.dump(running.trainer)
            running.saving = self._uploads.submit(blobs.put, self._store, data)
            running.saved_at = time.monotonic()

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
            "state": running.state,
            "finished": running.trainer.finished,
            "done": running.trainer.finished,
        }


def features_key(configuration: spec.Configuration) -> str:
    """One string for one setting of the `features` section."""
    parts = {name: options.model_dump_json() for name, options in configuration.features.items()}
    return repr(sorted(parts.items()))
