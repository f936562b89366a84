"""What each searched key is worth: the shares of the scores' variance that it explains, by fANOVA.

Hutter, Hoos and Leyton-Brown 2014, as Optuna has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eagleray.spec import auto
from eagleray.state.searches import Record

LEAST = 10
"""Trials with a score below which nothing is said."""
MOST = 200  # trials that are looked at, evenly spaced by number
TREES = 32
WIDE = 100
"""Ratio of a key's values from which it is taken as logarithmic."""


@dataclass(frozen=True)
class Worth:
    """The share of each key that all trials have, the largest first; they sum to 1.

    Attributes:
        trials: how many it rests on.
        left: keys that only some of the trials have.
        why: why nothing is said; empty where something is.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    trials: int = 0
    left: Sequence[str] = ()
    why: str = ""


def worth(trials: Sequence[Record]) -> Worth:
    """What each searched key of the trials is worth."""
    scored = sorted((one for one in trials if one.score is not None), key=lambda one: one.number)
    if len(scored) < LEAST:
        return Worth(why=f"{len(scored)} trials have a score, it takes {LEAST}")
    most = min(MOST, len(scored))
    shown = [scored[place * len(scored) // most] for place in range(most)]
    drawn, scores = [auto.effective(one.values) for one in shown], [one.score for one in shown]
    every = dict.fromkeys(key for one in drawn for key in one)
    names = [key for key in every if all(key in one for one in drawn)]
    columns = {name: [one[name] for one in drawn] for name in names}
    varied = {name: one for name, one in columns.items() if len(set(map(_text, one))) > 1}
    left = tuple(key for key in every if key not in names)
    if not varied:
        return Worth(trials=most, left=left, why="no searched key differs among all trials")
    if len(set(scores)) == 1:
        return Worth(trials=most, left=left, why="all trials score the same")
    return Worth(_shares(varied, scores), most, left)


def _shares(
    columns: Mapping[str, Sequence[Any]], scores: Sequence[float | None]
) -> dict[str, float]:
    import optuna

    known = {name: _scale(values) for name, values in columns.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it logs each study
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: known[name][1][place] for name in known},
                distributions={name: scale for name, (scale, _) in known.items()},
                value=score,
            )
            for place, score in enumerate(scores)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def _scale(values: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """Optuna's distribution of a key, and its values in it: numbers, or texts as choices."""
    from optuna import distributions

    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        low, high = float(min(values)), float(max(values))
        wide = low > 0 and high / low >= WIDE
        return distributions.FloatDistribution(low, high, log=wide), [float(one) for one in values]
    texts = [_text(one) for one in values]
    return distributions.CategoricalDistribution(sorted(set(texts))), texts


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
