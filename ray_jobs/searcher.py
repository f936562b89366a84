"""Optuna's samplers behind Ray Tune's protocol of searchers.

Ray's own OptunaSearch takes flat distributions only; here a choice may hold lists and mappings. A
suggestion depends only on the seed, the trial's number and the results of earlier trials: each
trial has its own sampler (docs/adr/0016). No configuration is suggested twice.

A searcher is a line of `REGISTRY` and a function that builds its sampler.
"""

import itertools
import json
import math
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState
from ray import tune

from eagleray import spec
from eagleray.learn import models
from eagleray.spec import auto
from eagleray.state import searches
from ray_jobs import cluster, search
from ray_jobs import pack as packs

STARTUP = 10
"""Random trials before TPE models results; optuna's default."""
ATTEMPTS = 10
"""Attempts of a sampler to find an untried configuration; later attempts are random."""
MODELLED, BEST, LATEST = 300, 25, 125
"""Once this many trials are modelled, the best and the latest of them stay: costs stay flat.

TPE takes no more than the best 25 for good ones.
"""
RETURNS = 2
"""Times that a trial lost to storage comes back in one run of a search."""
IN_TURN_S, IN_TURN = 1.0, 8
"""Trials that follow from no result and are shorter are handed out several at once, about this many
seconds of them and at most this many: a worker waits tens of milliseconds for its next trial."""
AHEAD = 2
"""Configurations drawn for a pack, over its size: those that fit together are trained first."""
SAMPLE_ATTEMPTS = 100
"""Attempts to sample an untried configuration; after them, the grid gives the next one."""


class Kind(NamedTuple):
    """A searcher that `tune.search` may name."""

    sampler: Callable[[int, list[optuna.trial.FrozenTrial]], optuna.samplers.BaseSampler]
    startup: float  # suggestions that depend on no result
    stateful: bool = False  # keeps its state with optuna's trials, so each is asked for again
    ahead: bool = True  # what is drawn for the trials after the next ones loses nothing
    samples: bool = True  # else the points of the grid are tried in their order


class Searcher(tune.search.Searcher):
    """Suggests fields of `searches.Record` until no trial is left.

    `known` are trials of earlier runs, `earlier` those of earlier searches; `room` returns the
    number of trials that fit on the cluster. A suggestion has up to `pack` members that can be
    trained in one pass; short trials that are not packed come several at once, to be trained
    `in_turn`.
    """

    def __init__(
        self,
        experiment: spec.Experiment,
        mode: Literal["max", "min"],
        known: list[searches.Record],
        *,
        earlier: Sequence[search.Past] = (),
        room: Callable[[], int] = lambda: sys.maxsize,
        pack: int = 1,
    ) -> None:
        super().__init__(metric="score", mode=mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._experiment, self._room, self._left = experiment, room, experiment.trials
        self._pack, self._drawn = pack, list[dict[str, Any]]()
        self._seconds, self._trained = 0.0, 0  # of trials that have ended in this run
        self._kind, self._mode = _kind(experiment), mode
        self._study, self._modelled = self._new_study(), 0
        self._optuna: dict[int, optuna.trial.Trial] = {}  # by number of the trial
        self._warm: list[optuna.trial.FrozenTrial] = []  # of earlier searches
        self._suggested: dict[int, dict[str, Any]] = {}  # running members, by number
        self._lost: Counter[int] = Counter()
        # of each running trial, by Ray's id: its members' last reports, by number
        self._running: dict[str, dict[int, dict[str, Any]]] = {}
        self._scored: set[int] = set()  # numbers of trials that have a score
        self._causes: list[str | None] = []
        ended = sum(not record.unfinished for record in known)
        self._independent = self._kind.startup - ended - len(earlier)
        used = {record.number for record in known}
        self._numbers = (number for number in itertools.count(1) if number not in used)
        self._tried = {_key(record.values) for record in known}
        self._grid, self._starts = _grid(experiment), auto.starts(experiment.space)
        self._unfinished: list[dict[str, Any]] = []
        for past in earlier:
            self._ask(0, parameters=past.parameters)
            self._tell(0, past.score, past.cost)
        self._warm = self._study.get_trials()
        for record in known:
            self._replay(record)

    @property
    def exhausted(self) -> bool:
        """Whether no trial is left, or the search ends because all trials fail with one cause."""
        return self._left <= 0 or (search.hopeless(self._causes) and not self._promising)

    @property
    def _promising(self) -> bool:
        """Whether a running trial has a score."""
        return any(number in self._scored for number in self._members())

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # as Ray documents it
        if self._must_wait():
            return None
        members = [] if self.exhausted else self._draw()
        if not members:
            return str(tune.search.Searcher.FINISHED)
        self._left -= len(members)
        self._independent -= len(members)
        self._running[trial_id] = {one["number"]: {} for one in members}
        self._suggested |= {one["number"]: one for one in members}
        return {"members": members, "in_turn": self._pack == 1 and len(members) > 1}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        for report in result["members"]:
            self._seconds += report.get("seconds", 0.0)
            self._trained += report["done"]
            self._running[trial_id][report["number"]] = report
            if report.get("score") is not None:
                self._scored.add(report["number"])
            if report["done"] and report.get("status") != "lost":
                self._end(report["number"], self._running[trial_id].pop(report["number"]))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if trial_id not in self._running:
            return  # the trial has ended already
        if not error and result is not None:
            self.on_trial_result(trial_id, result)
        for number, report in self._running.pop(trial_id).items():
            if report.get("status") == "lost" and self._lost[number] < RETURNS:
                self._return(number)
            else:
                self._end(number, {} if error else report)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it for its own recovery; a search resumes from its records

    def save(self, checkpoint_path: str) -> None:
        """Save nothing, see `__getstate__`."""

    def _must_wait(self) -> bool:
        """Whether the next trial waits, for room or for the outcome of the running trials."""
        running = len(self._running)
        # before the first score, all may fail with one cause: only one waits for room
        independent = int(max(0, min(self._independent, self._left))) if self._scored else 0
        limit = cluster.limit(self._room(), running, independent)
        if self._experiment.compute.grouped:  # those that wait hold processes
            limit = max(1, self._room())
        if running >= limit:
            return True
        expected = [] if self._promising else self._causes[:1] * len(self._members())
        return running > 0 and search.hopeless(self._causes + expected)

    def _members(self) -> list[int]:
        """Numbers of the running members."""
        return [number for members in self._running.values() for number in members]

    def _end(self, number: int, report: dict[str, Any]) -> None:
        if report and report.get("status") != "lost":
            self._causes.append(report.get("cause"))
        if report.get("score") is None:
            self._scored.discard(number)
        del self._suggested[number]
        cost = report.get("costs", {}).get(self._experiment.tune.cost or "")
        self._tell(number, report.get("score"), cost)

    def _return(self, number: int) -> None:
        """Suggest a trial that was lost to storage again, in a trial of its own."""
        self._lost[number] += 1
        self._scored.discard(number)
        self._unfinished.append(self._suggested.pop(number))
        self._left += 1

    def _draw(self) -> list[dict[str, Any]]:
        """The next members: of what is drawn, the most that can be trained in one pass."""
        size = self._pack if self._pack > 1 else self._in_turn
        ahead = AHEAD * size if self._pack > 1 and self._kind.ahead else size
        while len(self._drawn) < min(ahead, self._left):
            one = self._unfinished.pop(0) if self._unfinished else self._untried()
            if one is None:
                break
            self._drawn.append(one)
        alike: dict[str, list[dict[str, Any]]] = {}
        for one in self._drawn:
            alike.setdefault(self._key(one), []).append(one)
        members = max(alike.values(), key=len, default=[])[:size]
        self._drawn = [one for one in self._drawn if one not in members]
        return members

    @property
    def _in_turn(self) -> int:
        """Number of short trials that a worker gets at once, and trains one after another."""
        experiment = self._experiment
        if experiment.compute.grouped or experiment.tune.scheduler != "none" or not self._seconds:
            return 1
        short = IN_TURN_S * self._trained / self._seconds
        share = self._left / (2 * max(1, self._room()))  # so that workers end at about one time
        return round(max(1, min(short, share, IN_TURN, self._independent)))

    def _key(self, suggestion: dict[str, Any]) -> str:
        if self._pack == 1:
            return ""
        return packs.key(self._experiment.configuration(suggestion["values"]))

    def _replay(self, record: searches.Record) -> None:
        """Replay a trial of an earlier run, or queue it if it is unfinished."""
        if record.parameters:
            self._ask(record.number, parameters=record.parameters)
        if record.unfinished:
            self._unfinished.append(record.model_dump(include={"number", "values", "parameters"}))
            return
        self._left -= 1
        failed = record.status == "failed"
        self._causes.append(record.cause if failed else None)
        cost = record.costs.get(self._experiment.tune.cost or "")
        self._tell(record.number, None if failed else record.score, cost)

    def _untried(self) -> dict[str, Any] | None:
        """Suggest an untried configuration; None if there is none."""
        number = next(self._numbers)
        for attempt in range(SAMPLE_ATTEMPTS if self._kind.samples else 0):
            values = self._ask(number, attempt, parameters=self._start(number, attempt))
            if _key(values) not in self._tried:
                break
            self._tell(number, None, None)
        else:
            left = (point for point in self._grid if _key(point) not in self._tried)
            point = next(left, None)
            if point is None:
                return None
            values = point
        self._tried.add(_key(values))
        parameters = self._optuna[number].params if number in self._optuna else {}
        return {"number": number, "values": values, "parameters": parameters}

    def _start(self, number: int, attempt: int) -> dict[str, Any] | None:
        """Parameters of one of the first trials of `model.type: auto`; None for any other."""
        if attempt or number > len(self._starts):
            return None
        values, space = self._starts[number - 1], self._experiment.space
        return {key: drawn.parameter(values[key]) for key, drawn in space.items()}

    def _ask(
        self, number: int, attempt: int = 0, *, parameters: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask optuna for the values of a trial, or give it known `parameters`.

        Number 0 is a trial of an earlier search.
        """
        if parameters is not None:
            self._study.enqueue_trial(parameters)
        self._study.sampler = self._sampler(number, attempt)
        asked = self._optuna[number] = self._study.ask()
        if number and parameters is not None and self._kind.stateful:
            _ = asked.relative_params  # the sampler's own part of what it knows of this trial
        values: dict[str, Any] = {}
        for key, drawn in self._experiment.space.items():  # which model is taken comes first
            read = auto.reads(values, key)
            values[key] = drawn.suggest(asked, key) if read else drawn.default()
        return values

    def _tell(self, number: int, score: float | None, cost: float | None) -> None:
        """Report the end of a trial to optuna, which does not know those of the grid."""
        asked = self._optuna.pop(number, None)
        if asked is None:
            return
        values = [score, cost] if self._experiment.tune.cost else [score]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            self._study.tell(asked, state=TrialState.FAIL)
            return
        self._study.tell(asked, known)
        self._modelled += 1
        if self._modelled > MODELLED:
            self._forget()

    def _forget(self) -> None:
        """Model only the best and the latest trials, and those that run."""
        trials = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        ranked = sorted(trials, key=lambda one: one.values[0], reverse=self._mode == "max")
        best = (*ranked[:BEST], *self._study.best_trials)  # the latter: the Pareto front
        kept = {one.number for one in (*best, *trials[-LATEST:])}
        running = {number: asked.params for number, asked in self._optuna.items()}
        self._study, self._modelled = self._new_study(), len(kept)
        self._study.add_trials([one for one in trials if one.number in kept])
        for number, parameters in running.items():
            self._ask(number, parameters=parameters)

    def _new_study(self) -> optuna.Study:
        of_score = StudyDirection.MAXIMIZE if self._mode == "max" else StudyDirection.MINIMIZE
        of_cost = [StudyDirection.MINIMIZE] if self._experiment.tune.cost else []
        return optuna.create_study(directions=[of_score, *of_cost])

    def _sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        key = [self._experiment.tune.seed, number, attempt]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        build = self._kind.sampler if attempt < ATTEMPTS else _random
        return build(seed, self._warm)


def _kind(experiment: spec.Experiment) -> Kind:
    kind = REGISTRY[experiment.tune.search]
    several = kind.sampler is _tpe and isinstance(experiment.model, models.Auto)
    return kind._replace(sampler=_tpe_by_model) if several else kind


def _tpe(seed: int, _: object) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(n_startup_trials=STARTUP, constant_liar=True, seed=seed)


def _tpe_by_model(seed: int, _: object) -> optuna.samplers.BaseSampler:
    """One that models the values of each model apart, of the trials that took it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`
        return optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, constant_liar=True, multivariate=True, group=True, seed=seed
        )


def _cma(seed: int, warm: list[optuna.trial.FrozenTrial]) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `source_trials`
        return optuna.samplers.CmaEsSampler(
            seed=seed, source_trials=warm or None, warn_independent_sampling=False
        )


def _random(seed: int, _: object) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


REGISTRY = {
    "tpe": Kind(_tpe, STARTUP, ahead=False),
    "cma": Kind(_cma, 1, stateful=True),
    "random": Kind(_random, math.inf),
    "grid": Kind(_random, math.inf, samples=False),
}


def _grid(experiment: spec.Experiment) -> Iterator[dict[str, Any]]:
    """Points of a finite space, shuffled: a search that ends early has covered it evenly."""
    if experiment.size == math.inf:
        return
    keys = list(experiment.space)
    points = list(itertools.product(*(experiment.space[key].grid() for key in keys)))
    random.Random(experiment.tune.seed).shuffle(points)  # noqa: S311  # no secret
    yield from (dict(zip(keys, point, strict=True)) for point in points)


def _key(values: dict[str, Any]) -> str:
    """Values as JSON, in which 1, 1.0 and true differ."""
    return json.dumps(values, sort_keys=True)
