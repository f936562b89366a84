"""Early stopping: Ray Tune's schedulers, applied to each member of a trial."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from ray.tune import schedulers
from ray.tune.experiment import Trial

from eagleray import ray_compat
from eagleray.state import searches
from ray_jobs import search


class Members(schedulers.FIFOScheduler):
    """Asks `inner` about each member; what it stops leaves its trial, and the others go on.

    A report of a member that is stopped gets `done` and `stopped`.
    """

    def __init__(self, inner: schedulers.TrialScheduler) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner
        self._running: dict[str, set[int]] = {}  # numbers by Ray's ids

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it for its own recovery; a search resumes from its records

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        self._inner.set_search_properties(metric, mode, **spec)
        return True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        numbers = [one["number"] for one in trial.config["members"]]
        self._running[trial.trial_id] = set(numbers)
        for number in numbers:
            self._inner.on_trial_add(tune_controller, _member(number))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        running, stopped = self._running[trial.trial_id], []
        for report in result["members"]:
            member = _member(report["number"])
            if report["done"]:
                self._inner.on_trial_complete(tune_controller, member, report)
            elif self._inner.on_trial_result(tune_controller, member, report) == self.STOP:
                report |= {"done": True, "stopped": True}
                stopped.append(report["number"])
            if report["done"]:
                running.discard(report["number"])
        if not running or result.get("done"):
            return self.STOP
        if stopped:
            ray_compat.actor(trial).drop.remote(stopped)  # before its next step
        return self.CONTINUE


def build(searched: search.Search, known: Iterable[searches.Record]) -> Members:
    """The scheduler of a search; the rungs of ASHA hold the scores of known trials."""
    epochs, rungs = search.rungs(searched.experiment)
    if len(rungs) < 2:
        return Members(schedulers.FIFOScheduler())
    asha = schedulers.AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="score",
        mode=searched.mode,
        max_t=epochs,
        grace_period=rungs[0],
        reduction_factor=search.REDUCTION,
    )
    for record in known:
        _replay(asha, searched, record, [one for one in rungs if one <= record.epoch])
    return Members(asha)


def _replay(
    asha: Any,
    searched: search.Search,
    record: searches.Record,
    rungs: Iterable[int],
) -> None:
    best = max if searched.mode == "max" else min
    asha.on_trial_add(None, _member(record.number))
    for rung in rungs:
        score = best(epoch[searched.metric] for epoch in record.history[:rung])
        asha.on_trial_result(None, _member(record.number), {"epoch": rung, "score": score})


def _member(number: int) -> Any:
    """What Ray's schedulers need to know of a trial that is never paused."""
    return SimpleNamespace(trial_id=f"member-{number}")
