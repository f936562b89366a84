"""Early stopping: Ray Tune's schedulers, applied to each member of a trial.

A scheduler is a line of `REGISTRY` and a function that builds it; Ray's need no pause of a trial.
"""

import contextlib
import functools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from ray import tune
from ray.tune import schedulers
from ray.tune.experiment import Trial

from eagleray import ray_compat, spec
from eagleray.spec import auto, space
from eagleray.state import searches
from ray_jobs import retries, search

REDUCTION = 3
"""ASHA keeps one trial in this many at each rung (Li et al. 2018, arXiv:1810.05934)."""


class Ladder(NamedTuple):
    """What a scheduler is built for."""

    experiment: spec.Experiment
    mode: Literal["max", "min"]
    epochs: int  # the most that a trial trains; with folds, their number
    rungs: list[int]  # epochs, or folds, after which trials are compared


class Kind(NamedTuple):
    """A scheduler that `tune.scheduler` may name."""

    rungs: Callable[[int], list[int]]  # by the most epochs of a trial
    build: Callable[[Ladder], schedulers.TrialScheduler]


def rungs(experiment: spec.Experiment) -> list[int]:
    """Epochs at which trials are compared; none if there are less than two. With folds, folds."""
    found = REGISTRY[experiment.tune.scheduler].rungs(search.length(experiment))
    return found if len(found) > 1 or experiment.tune.folds > 1 else []


def build(
    searched: search.Search,
    known: Iterable[searches.Record],
    lost: retries.Retries | None = None,
) -> "Members":
    """The scheduler of a search, which has compared the known trials at their rungs.

    Trials that lose their worker wait until `lost` says that they are due.
    """
    experiment, mode = searched.experiment, searched.mode
    ladder = Ladder(experiment, mode, search.length(experiment), rungs(experiment))
    kind = REGISTRY[experiment.tune.scheduler if ladder.rungs else "none"]
    members = Members(kind, ladder, searched.metric, lost or retries.Retries(None))
    for record in known:
        members.replay(record)
    return members


class Members(schedulers.FIFOScheduler):
    """Asks an inner scheduler about each member; what it stops leaves its trial, others go on.

    A report of a member that is stopped gets `done` and `stopped`; one that is given another's
    checkpoint goes on from there. What is drawn at random follows from the seed, the member's
    number and its epoch. Each model of `model.type: auto` has an inner scheduler of its own, as
    their epochs are not alike.
    """

    def __init__(self, kind: Kind, ladder: Ladder, metric: str, lost: retries.Retries) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lost = lost
        # each is given what it needs of Ray's trials and controller, not these themselves
        self._inner: dict[str, Any] = {}  # by model
        self._build = functools.partial(kind.build, ladder)
        self._rungs, self._metric = frozenset(ladder.rungs), metric
        self._best = max if ladder.mode == "max" else min
        self._seed, self._controller = ladder.experiment.tune.seed, ray_compat.Controller()
        self._by_folds = ladder.experiment.tune.folds > 1
        self._members: dict[int, ray_compat.Candidate] = {}  # by number
        self._running: dict[str, set[int]] = {}  # numbers by Ray's ids

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it for its own recovery; a search resumes from its records

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        return True  # `build` has set them

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        if self._lost.holds(trial):
            ray_compat.hold(controller, trial)
        else:
            self._lost.place(trial)
        self._running[trial.trial_id] = {one["number"] for one in trial.config["members"]}
        for one in trial.config["members"]:
            self._add(one["number"], one["values"])

    def on_trial_error(self, _: Any, trial: Trial) -> None:
        self._lost.lose(trial)

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        ray_compat.forget_ended_trials(controller)
        # of all trials there may be thousands, which Ray's own method asks at each step
        waiting = (one for one in controller.get_live_trials() if one.status == Trial.PENDING)
        first = min(waiting, key=lambda one: int(one.config["members"][0]["number"]), default=None)
        return self._lost.due() or first

    def on_trial_result(self, _: Any, trial: Trial, result: dict[str, Any]) -> str:
        running, stopped = self._running[trial.trial_id], []
        for report in result["members"]:
            if not report["done"] and self._compare(report) == self.STOP:
                report |= {"done": True, "stopped": True}
                stopped.append(report["number"])
            elif report["done"]:
                self._end(report)
            if report["done"]:
                running.discard(report["number"])
        if not running or result.get("done"):
            return self.STOP
        self._change(ray_compat.actor(trial), running, stopped)
        return self.CONTINUE

    def replay(self, record: searches.Record) -> None:
        """Compare a trial of an earlier run at the rungs that it has passed."""
        self._add(record.number, record.values)
        for rung in sorted(self._rungs):
            if rung <= len(record.history):
                report = record.model_dump(include={"number", "values"})
                report |= {"epoch": rung, "history": record.history[:rung], "state": None}
                report["score"] = self._score(report["history"])
                self._compare(report)
        if not record.unfinished:
            self._members[record.number].finished = True

    def _add(self, number: int, values: dict[str, Any]) -> None:
        if number in self._members:  # replayed, or lost before
            self._members[number].finished = False
            return
        self._members[number] = ray_compat.Candidate(f"member-{number}", values)
        with _seeded(self._seed, number):
            self._of(values).on_trial_add(self._controller, self._members[number])

    def _compare(self, report: dict[str, Any]) -> str:
        number, epoch = report["number"], report["epoch"]
        if epoch not in self._rungs or not report["history"]:  # without news, or news of a save
            return self.CONTINUE
        member, result = self._members[number], self._result(report)
        member.config = report["values"]
        with _seeded(self._seed, number, epoch):
            inner = self._of(report["values"])
            return str(inner.on_trial_result(self._controller, member, result))

    def _end(self, report: dict[str, Any]) -> None:
        member = self._members[report["number"]]
        member.finished = True
        if report.get("history"):
            inner = self._of(report["values"])
            inner.on_trial_complete(self._controller, member, self._result(report))

    def _of(self, values: dict[str, Any]) -> Any:
        """The inner scheduler of the model that a member takes."""
        model = auto.family(values)
        if model not in self._inner:
            self._inner[model] = self._build()
        return self._inner[model]

    def _result(self, report: dict[str, Any]) -> dict[str, Any]:
        """A report with `value`, the metric of its last epoch; `score` is that of the best one.

        With folds both are the mean over those that are done.
        """
        last = report["history"][-1][self._metric]
        return {**report, "value": report["score"] if self._by_folds else last}

    def _score(self, history: Sequence[Mapping[str, float]]) -> float:
        assert self._metric is not None  # given at the start
        values = [epoch[self._metric] for epoch in history]
        return float(np.mean(values)) if self._by_folds else self._best(values)

    def _change(self, actor: Any, running: Iterable[int], stopped: list[int]) -> None:
        """Tell the worker of a trial, before its next step, who has stopped and who was changed."""
        if stopped:
            actor.drop.remote(stopped)
        for number in running:
            member = self._members[number]
            if (checkpoint := member.take_checkpoint()) is not None:
                actor.clone.remote(number, member.config, checkpoint)


def _asha(ladder: Ladder, brackets: int = 1) -> schedulers.TrialScheduler:
    return schedulers.AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="score",
        mode=ladder.mode,
        max_t=ladder.epochs,
        grace_period=ladder.rungs[0],
        reduction_factor=REDUCTION,
        brackets=brackets,
    )


def _hyperband(ladder: Ladder) -> schedulers.TrialScheduler:
    """Hyperband's brackets, each asynchronous: Ray's synchronous one pauses trials."""
    return _asha(ladder, brackets=len(ladder.rungs))


def _median(ladder: Ladder) -> schedulers.TrialScheduler:
    return schedulers.MedianStoppingRule(
        time_attr="epoch",
        metric="value",
        mode=ladder.mode,
        grace_period=ladder.rungs[0],
        min_time_slice=float("inf"),  # type: ignore[arg-type] # never yields to a pending trial
    )


def _pbt(ladder: Ladder) -> schedulers.TrialScheduler:
    searched = ladder.experiment.space

    def bounded(values: dict[str, Any]) -> dict[str, Any]:
        for key, drawn in searched.items():
            if drawn.size() == math.inf:
                low, high = drawn.arguments
                values[key] = min(max(values[key], low), high)
        return values

    return schedulers.PopulationBasedTraining(
        time_attr="epoch",
        metric="value",
        mode=ladder.mode,
        perturbation_interval=ladder.rungs[0],
        hyperparam_mutations={key: _mutations(drawn) for key, drawn in searched.items()},
        custom_explore_fn=bounded,
        log_config=False,
    )


def _mutations(drawn: space.Distribution) -> Any:
    """What Ray's population-based training draws from, and takes steps in."""
    if drawn.size() < math.inf:
        return drawn.grid()
    low, high = map(float, drawn.arguments)
    return tune.loguniform(low, high) if drawn.kind == "loguniform" else tune.uniform(low, high)


def _geometric(epochs: int) -> list[int]:
    steps, step = [], max(1, epochs // REDUCTION**2)
    while step <= epochs:
        steps.append(step)
        step *= REDUCTION
    return steps


def _even(epochs: int) -> list[int]:
    step = max(1, epochs // REDUCTION**2)
    return list(range(step, epochs + 1, step))


REGISTRY = {
    "asha": Kind(_geometric, _asha),
    "hyperband": Kind(_geometric, _hyperband),
    "median": Kind(_even, _median),
    "pbt": Kind(_even, _pbt),
    "none": Kind(lambda _: [], lambda _: schedulers.FIFOScheduler()),
}


@contextlib.contextmanager
def _seeded(*key: int) -> Iterator[None]:
    """Seed the global random numbers, from which Ray's schedulers draw, for the block."""
    before, numpys = random.getstate(), np.random.get_state()
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpys)
