"""What to try next: optuna's samplers behind Ray Tune's door.

Ray's own OptunaSearch knows optuna's flat distributions only; here a choice may hold lists and
mappings, and trials of an interrupted search are told to the sampler before it goes on.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any, Literal

import optuna
from ray.tune import search

from eagleray import spec
from ray_jobs import records

STARTUP = 10
"""Random trials before TPE models what it has seen; optuna's default."""


class Searcher(search.Searcher):
    """Suggests `{"number", "values", "parameters", "resume"}` until the trials are used up.

    `values` are the experiment's; `parameters` are what optuna calls them.
    """

    def __init__(
        self, experiment: spec.Experiment, mode: Literal["max", "min"], known: list[records.Record]
    ) -> None:
        super().__init__(metric="score", mode=mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._left = experiment.space, experiment.tune.trials
        self._study = _study(experiment, mode)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._number = max((record.number for record in known), default=0)
        tried = [record.values for record in known]
        self._grid = _grid(experiment, tried) if experiment.tune.search == "grid" else None
        self._resume = [record for record in known if record.unfinished]
        for record in known:
            self._left -= not record.unfinished
            self._learn(record)

    @property
    def exhausted(self) -> bool:
        """Whether the experiment's trials are used up."""
        return self._left <= 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override] # as documented
        if self.exhausted:
            return str(search.Searcher.FINISHED)
        if self._resume:
            self._left -= 1
            record = self._resume.pop(0)
            known = record.model_dump(include={"number", "values", "parameters"})
            return {**known, "resume": record.state}
        fresh = self._next(trial_id)
        if fresh is None:
            return str(search.Searcher.FINISHED)
        self._left -= 1
        self._number += 1
        return {"number": self._number, **fresh, "resume": None}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        asked = self._asked.pop(trial_id, None)
        if asked is None:
            return
        score = None if error or result is None else result.get("score")
        state = optuna.trial.TrialState.FAIL if score is None else None
        self._study.tell(asked, score, state=state)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what a search knows is in its records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: what a search knows is in its records."""

    def _next(self, trial_id: str) -> dict[str, Any] | None:
        if self._grid is not None:
            values = next(self._grid, None)
            return None if values is None else {"values": values, "parameters": {}}
        self._asked[trial_id] = asked = self._study.ask()
        return {"values": self._suggest(asked), "parameters": asked.params}

    def _suggest(self, asked: optuna.trial.Trial) -> dict[str, Any]:
        return {key: drawn.suggest(asked, key) for key, drawn in self._space.items()}

    def _learn(self, record: records.Record) -> None:
        """Tell the sampler of a trial that an earlier run of this search has finished."""
        if self._grid is not None or record.unfinished or record.score is None:
            return
        self._study.enqueue_trial(record.parameters)
        asked = self._study.ask()
        self._suggest(asked)
        self._study.tell(asked, record.score)


def _study(experiment: spec.Experiment, mode: Literal["max", "min"]) -> optuna.Study:
    seed = experiment.tune.seed
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if experiment.tune.search == "tpe":
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, constant_liar=True, seed=seed
        )
    return optuna.create_study(
        sampler=sampler, direction="maximize" if mode == "max" else "minimize"
    )


def _grid(experiment: spec.Experiment, tried: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every untried combination once, shuffled: a search cut short has seen all of the space."""
    keys = list(experiment.space)
    points = list(itertools.product(*(experiment.space[key].grid() for key in keys)))
    random.Random(experiment.tune.seed).shuffle(points)  # noqa: S311  # no secret
    combinations = (dict(zip(keys, point, strict=True)) for point in points)
    return (values for values in combinations if values not in tried)
