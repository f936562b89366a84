"""What to try next: optuna's samplers behind Ray Tune's door.

Ray's own OptunaSearch knows optuna's flat distributions only; here a choice may hold lists and
mappings, and trials of an interrupted search are told to the sampler before it goes on.

A suggestion depends on the seed, the trial's number and what is known of earlier trials, on nothing
else: each has a sampler of its own, so there is no place in a random stream to be kept
(docs/adr/0016). No configuration is suggested twice.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune import search

from eagleray import spec
from eagleray.state import searches

STARTUP = 10
"""Random trials before TPE models what it has seen; optuna's default."""
MODELLED = 10
"""TPE is asked this often for a configuration that was not tried; then it is drawn at random."""
DRAWN = 100
"""After so many draws little of the space can be left: the first that was not tried is taken."""
ALIKE = 3
"""A search ends when this many trials have failed alike, and none has done otherwise."""


class Searcher(search.Searcher):
    """Suggests `{"number", "values", "parameters"}` until the trials are used up.

    `values` are the experiment's; `parameters` are what optuna calls them.
    """

    def __init__(
        self, experiment: spec.Experiment, mode: Literal["max", "min"], known: list[searches.Record]
    ) -> None:
        super().__init__(metric="score", mode=mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._experiment, self._left = experiment, experiment.trials
        self._study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._scored: dict[str, bool] = {}
        self._causes: list[str | None] = []
        used = {record.number for record in known}
        self._numbers = (number for number in itertools.count(1) if number not in used)
        self._tried = {_key(record.values) for record in known}
        self._points = _points(experiment)
        self._resume: list[tuple[searches.Record, optuna.trial.Trial | None]] = []
        for record in known:
            self._learn(record)

    @property
    def exhausted(self) -> bool:
        """Whether no trial is left to be started."""
        return self._left <= 0 or self.hopeless

    @property
    def hopeless(self) -> bool:
        """Whether all trials fail for one reason, which the next would fail for too."""
        return self._doubtful and len(self._causes) >= ALIKE

    @property
    def _doubtful(self) -> bool:
        """Whether all that have ended failed alike, and none under way has a score."""
        alike = len(set(self._causes)) == 1 and self._causes[0] is not None
        return alike and not any(self._scored.values())

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # as documented
        if self._doubtful and self._scored and len(self._causes) + len(self._scored) >= ALIKE:
            return None  # those that are under way decide
        suggestion = None if self.exhausted else self._resumed(trial_id) or self._fresh(trial_id)
        if suggestion is None:
            return str(search.Searcher.FINISHED)
        self._left -= 1
        self._scored[trial_id] = False
        return suggestion

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._scored[trial_id] |= result.get("score") is not None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._scored.pop(trial_id, None)
        if result is not None and not error and result.get("status") != "lost":
            self._causes.append(result.get("cause"))
        asked = self._asked.pop(trial_id, None)
        if asked is not None:
            self._tell(asked, None if error or result is None else result.get("score"))

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what a search knows is in its records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: what a search knows is in its records."""

    def _learn(self, record: searches.Record) -> None:
        """Know what an earlier run of this search did, as if it had been done here."""
        asked = self._repeated(record) if record.parameters else None
        if record.unfinished:
            self._resume.append((record, asked))
            return
        self._left -= 1
        failed = record.status == "failed"
        self._causes.append(record.cause if failed else None)
        if asked is not None:
            self._tell(asked, None if failed else record.score)

    def _repeated(self, record: searches.Record) -> optuna.trial.Trial:
        self._study.enqueue_trial(record.parameters)
        return self._ask(record.number, MODELLED)[0]  # nothing is drawn, so nothing to be modelled

    def _resumed(self, trial_id: str) -> dict[str, Any] | None:
        if not self._resume:
            return None
        record, asked = self._resume.pop(0)
        if asked is not None:
            self._asked[trial_id] = asked
        return record.model_dump(include={"number", "values", "parameters"})

    def _fresh(self, trial_id: str) -> dict[str, Any] | None:
        """A configuration that was not tried; None where there is none."""
        number = next(self._numbers)
        values = self._drawn(trial_id, number)
        if values is None:
            values = next((one for one in self._points if _key(one) not in self._tried), None)
        if values is None:
            return None
        self._tried.add(_key(values))
        asked = self._asked.get(trial_id)
        return {"number": number, "values": values, "parameters": asked.params if asked else {}}

    def _drawn(self, trial_id: str, number: int) -> dict[str, Any] | None:
        for draw in range(0 if self._experiment.tune.search == "grid" else DRAWN):
            asked, values = self._ask(number, draw)
            if _key(values) not in self._tried:
                self._asked[trial_id] = asked
                return values
            self._tell(asked, None)
        return None

    def _ask(self, number: int, draw: int) -> tuple[optuna.trial.Trial, dict[str, Any]]:
        self._study.sampler = _sampler(self._experiment.tune, number, draw)
        asked = self._study.ask()
        space = self._experiment.space
        return asked, {key: drawn.suggest(asked, key) for key, drawn in space.items()}

    def _tell(self, asked: optuna.trial.Trial, score: float | None) -> None:
        self._study.tell(asked, score, state=TrialState.FAIL if score is None else None)


def _sampler(tune: spec.Tune, number: int, draw: int) -> optuna.samplers.BaseSampler:
    """The sampler for one draw of one trial; all are independent of each other."""
    seed = int(np.random.SeedSequence([tune.seed, number, draw]).generate_state(1)[0])
    if tune.search == "tpe" and draw < MODELLED:
        return optuna.samplers.TPESampler(n_startup_trials=STARTUP, constant_liar=True, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _points(experiment: spec.Experiment) -> Iterator[dict[str, Any]]:
    """Every point of a space that ends, shuffled: a search cut short has seen all of the space."""
    if experiment.size == math.inf:
        return
    keys = list(experiment.space)
    points = list(itertools.product(*(experiment.space[key].grid() for key in keys)))
    random.Random(experiment.tune.seed).shuffle(points)  # noqa: S311  # no secret
    yield from (dict(zip(keys, point, strict=True)) for point in points)


def _key(values: dict[str, Any]) -> str:
    """Equal for equal values; 1, 1.0 and true are three."""
    return json.dumps(values, sort_keys=True)
