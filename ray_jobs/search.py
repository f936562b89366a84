"""A search: from a checked experiment to a registered version.

Crash-only: what matters is in storage as it happens, and the same file and data have the same
search id. Run again, a search that was interrupted goes on, and one that ended gives its result.
"""

from __future__ import annotations

import itertools
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune import schedulers
from ray.tune import search as tune_search

from eagleray import code, errors, ray_compat, spec, storage
from eagleray.spec import space
from eagleray.state import leases, searches
from ray_jobs import capacity, searcher, trial
from ray_jobs.data import encoded, prepare

REDUCTION = 3
"""ASHA keeps one trial in this many at each rung (Li et al. 2018, arXiv:1810.05934)."""
SHELF = 8
"""At most this many settings of `features` are encoded ahead, once for all trials."""
RETRIES = 2
"""A trial whose worker is lost is tried again so often, and anew each time that it got further."""


class Watcher(Protocol):
    """Who is told what happens, such as a terminal."""

    def resumed(self, known: list[searches.Record]) -> None:
        """The search goes on from these trials, before any other is told of."""

    def reported(self, record: searches.Record) -> None:
        """A trial has started, or trained on."""

    def ended(self, record: searches.Record) -> None:
        """A trial has ended, see its status."""


@dataclass(frozen=True)
class Outcome:
    """All trials of a search, the best first, and what the search was about.

    Attributes:
        result: how its winner was judged before, where no trial has been run since.
    """

    experiment: spec.Experiment
    dataset: prepare.Dataset
    search_id: str
    metric: str
    trials: list[searches.Record]
    result: searches.Result | None = None

    @property
    def winner(self) -> searches.Record:
        """The trial with the best score on the validation part."""
        return self.trials[0]


def run(
    experiment: spec.Experiment,
    dataset: prepare.Dataset,
    own: dict[str, code.Code],
    watcher: Watcher,
    kept: searches.Records,
) -> Outcome:
    """Search on the Ray cluster that this process is connected to.

    Args:
        experiment: what is searched.
        dataset: its data.
        own: the user's code by name.
        watcher: is told what happens.
        kept: the search's records, adopted under its lease.

    Raises:
        LeaseLostError: another driver has taken the search over.
        SearchError: no trial gave a model.
        StorageError: storage failed for good.
    """
    known = kept.trials()
    selecting = experiment.metric(dataset.schema.target.task)
    finder = searcher.Searcher(experiment, spec.METRICS[selecting].mode, known)
    keeper = _Keeper(kept, watcher, known)
    if known:
        watcher.resumed(known)
    if not finder.exhausted:
        try:
            job = _job(experiment, dataset, own, kept.search_id)
            _tune(job, finder, keeper, _independent(experiment, known))
        finally:
            keeper.flush()
    ranked = _ranked(keeper.trials, selecting)
    return Outcome(experiment, dataset, kept.search_id, selecting, ranked)


def ended(
    experiment: spec.Experiment, dataset: prepare.Dataset, own: dict[str, code.Code]
) -> Outcome | None:
    """The search of this experiment, data and code, where it leaves nothing to be run.

    With more trials, or a longer budget, than a search was given when it ended, it goes on. With
    fewer, what is there stands.

    Raises:
        SearchError: it has ended before without a model; says how to try again.
    """
    search_id, kept = on_record(experiment, dataset, own)
    known, result = kept.trials(), kept.result()
    trials, minutes = experiment.tune.trials, experiment.tune.minutes
    selecting = experiment.metric(dataset.schema.target.task)
    if result is None or not result.covers(trials, minutes):
        finder = searcher.Searcher(experiment, spec.METRICS[selecting].mode, known)
        if not finder.exhausted:
            return None
        result = None
    try:
        ranked = _ranked(known, selecting)
    except errors.SearchError as cause:
        raise errors.SearchError(
            f"search {search_id} has ended before: {cause}; {_again(experiment)}"
        ) from cause
    return Outcome(experiment, dataset, search_id, selecting, ranked, result)


def on_record(
    experiment: spec.Experiment,
    dataset: prepare.Dataset,
    own: dict[str, code.Code],
    lease: leases.Lease | None = None,
) -> tuple[str, searches.Records]:
    """The search's id, which is one for the same file, data and code, and its records."""
    identity = " ".join([dataset.fingerprint, *sorted(one.sha256 for one in own.values())])
    search_id = experiment.search_id(identity)
    store = storage.open(experiment.storage)
    return search_id, searches.Records(store, experiment.name, search_id, lease)


def rungs(experiment: spec.Experiment) -> tuple[int, list[int]]:
    """The most epochs that a trial may train, and the epochs at which ASHA compares trials."""
    epochs = _most_epochs(experiment)
    first = max(1, epochs // REDUCTION**2)
    steps = itertools.takewhile(
        lambda epoch: epoch <= epochs, (first * REDUCTION**power for power in itertools.count())
    )
    return epochs, list(steps) if experiment.tune.scheduler == "asha" else []


def _job(
    experiment: spec.Experiment,
    dataset: prepare.Dataset,
    own: dict[str, code.Code],
    search_id: str,
) -> trial.Job:
    shelf = {}
    for configuration in itertools.islice(_feature_settings(experiment), SHELF):
        made = encoded.encode(dataset, configuration.features)
        shelf[trial.features_key(configuration)] = ray.put(made)
    return trial.Job(
        experiment=experiment,
        search_id=search_id,
        metric=experiment.metric(dataset.schema.target.task),
        rungs=frozenset(rungs(experiment)[1]),
        storage_uri=experiment.storage,
        own=own,
        shelf=shelf,
        dataset=ray.put(dataset),
    )


def _feature_settings(experiment: spec.Experiment) -> Iterator[spec.Configuration]:
    """Every setting of `features`, or none where there are endlessly many."""
    searched = {k: drawn for k, drawn in experiment.space.items() if k.startswith("features.")}
    if any(drawn.size() == float("inf") for drawn in searched.values()):
        return
    rest = {k: drawn.default() for k, drawn in experiment.space.items() if k not in searched}
    for point in itertools.product(*(drawn.grid() for drawn in searched.values())):
        yield experiment.configuration(rest | dict(zip(searched, point, strict=True)))


def _most_epochs(experiment: spec.Experiment) -> int:
    drawn: space.Distribution | None = experiment.space.get("train.epochs")
    if drawn is None:
        return experiment.default().train.epochs
    return max(int(str(value)) for _, value in drawn.ends())


def _tune(job: trial.Job, finder: searcher.Searcher, keeper: _Keeper, independent: int) -> None:
    experiment = job.experiment
    minutes = experiment.tune.minutes
    limiter = tune_search.ConcurrencyLimiter(finder, max_concurrent=1)
    pace = capacity.Pace(limiter, _resources(experiment), independent)
    with (
        tempfile.TemporaryDirectory(prefix="eagleray-tune-") as folder,
        ray_compat.variables(ray_compat.TUNE),
    ):
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trial.Trial, job=job), _resources(experiment)),
            tune_config=tune.TuneConfig(
                metric="score",
                mode=spec.METRICS[job.metric].mode,
                search_alg=limiter,
                scheduler=_scheduler(experiment),
                num_samples=-1,
                time_budget_s=minutes * 60 if minutes else None,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                callbacks=[pace, keeper],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        with _asking_first(keeper):
            tuner.fit()


def _resources(experiment: spec.Experiment) -> dict[str, float]:
    compute = experiment.compute
    return {"CPU": compute.cpus, "GPU": compute.gpus} if compute.gpus else {"CPU": compute.cpus}


def _independent(experiment: spec.Experiment, known: list[searches.Record]) -> int:
    """How many trials from now on are drawn without regard to results."""
    if experiment.tune.search != "tpe":
        return experiment.tune.trials
    return searcher.STARTUP - sum(not record.unfinished for record in known)


def _scheduler(experiment: spec.Experiment) -> schedulers.TrialScheduler:
    epochs, steps = rungs(experiment)
    if len(steps) < 2:
        return schedulers.FIFOScheduler()
    return schedulers.AsyncHyperBandScheduler(
        time_attr="epoch",
        max_t=epochs,
        grace_period=steps[0],
        reduction_factor=REDUCTION,
    )


def _ranked(trials: list[searches.Record], selecting: str) -> list[searches.Record]:
    sign = -1 if spec.METRICS[selecting].mode == "max" else 1
    able = [record for record in trials if record.status != "failed"]
    scored = [record for record in able if record.score is not None and record.weights]
    if not scored:
        raise errors.SearchError(f"no trial gave a model: {_reasons(trials)}")
    rest = [record for record in trials if record not in scored]
    return sorted(scored, key=lambda record: sign * (record.score or 0.0)) + rest


def _reasons(trials: list[searches.Record]) -> str:
    """Why trials failed: failures that are alike once, all others each."""
    failed = [record for record in trials if record.failure]
    if not failed:
        return "none was run"
    causes = {record.cause for record in failed}
    if len(failed) >= searcher.ALIKE and len(causes) == 1 and None not in causes:
        return f"{len(failed)} trials failed alike, and no other was tried: {failed[0].failure}"
    return "; ".join(sorted({str(record.failure) for record in failed}))


def _again(experiment: spec.Experiment) -> str:
    return (
        "change the file or the code at fault, or try again as another search with "
        f"--set tune.seed={experiment.tune.seed + 1}"
    )


@contextmanager
def _asking_first(keeper: _Keeper) -> Iterator[None]:
    """Ctrl-C ends the search between two steps: inside of one, Ray may swallow the exception."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: keeper.interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Keeper(tune.Callback):
    """Puts on record what Ray Tune reports, and tells the watcher; Ray Tune calls by keyword."""

    def __init__(
        self, kept: searches.Records, watcher: Watcher, known: list[searches.Record]
    ) -> None:
        self._kept, self._watcher = kept, watcher
        self._records = {record.number: record for record in known}
        self._interrupted = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles itself to be restored, which docs/adr/0001 does without

    @property
    def trials(self) -> list[searches.Record]:
        return list(self._records.values())

    def interrupt(self) -> None:
        """End the search before its next step."""
        self._interrupted = True

    def on_step_begin(self, **_: Any) -> None:  # type: ignore[override]
        if self._interrupted:
            raise KeyboardInterrupt
        self._kept.check()

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        record = self._of(trial)
        record.status, record.failure, record.cause = "running", None, None
        self._kept.save(record)
        self._watcher.reported(record)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        record = self._of(trial)
        if "failure" in result:
            record.status, record.failure = result["status"], result["failure"]
            record.epoch, record.cause = result["epoch"], result["cause"]
            return
        if result["state_epoch"] > record.state_epoch:
            ray_compat.allow_failures(trial, RETRIES)
        for name in ("score", "epoch", "best_epoch", "best", "weights", "state_epoch"):
            setattr(record, name, result[name])
        before = record.epoch - len(result["history"])  # a retried trial tells its epochs again
        record.history = [*record.history[:before], *result["history"]]
        self._watcher.reported(record)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        record = self._of(trial)
        if record.status == "running":
            done = (trial.last_result or {}).get("finished")
            record.status = "finished" if done else "stopped"
        self._end(record)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        record = self._of(trial)
        record.status, record.failure = "lost", f"worker lost {RETRIES + 1} times without progress"
        self._end(record)

    def flush(self) -> None:
        """Save what is still running: an interrupted search goes on from there."""
        with suppress(errors.LeaseLostError):  # whoever has taken over has saved it
            for record in self._records.values():
                if record.status == "running":
                    self._kept.save(record)

    def _end(self, record: searches.Record) -> None:
        self._kept.save(record)
        self._watcher.ended(record)

    def _of(self, trial: Any) -> searches.Record:
        known = {name: trial.config[name] for name in ("number", "values", "parameters")}
        return self._records.setdefault(known["number"], searches.Record(**known))
