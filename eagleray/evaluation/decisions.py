"""How classes are decided: a threshold or costs, found on rows held out.

Legend: B rows, C classes, K thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eagleray.learn import schema, tasks
from eagleray.state.evaluations import Decision

if TYPE_CHECKING:
    from eagleray import spec

USUAL = 0.5
_NEAR = 1e-12  # scores that differ by less are equal


def decide(
    chosen: spec.Decide, target: schema.Target, truth_B: np.ndarray, outputs_BC: np.ndarray
) -> tuple[schema.Target, Decision | None]:
    """The target with the threshold or the costs that are asked for, and how they do on the rows.

    Without either in `chosen` the target stays as it is, and there is nothing to say.
    """
    if not chosen.decides:
        return target, None
    if chosen.costs and tasks.of(target).positive is None:
        return _by_costs(chosen.matrix(target), target, truth_B, outputs_BC)
    rows = truth_B == 1, outputs_BC[:, 1].astype(np.float64)
    every, usual = Cuts.between(*rows), Cuts.at(USUAL, *rows)
    if chosen.costs:
        found = _by_score(_mean_cost(chosen.matrix(target)), "mean_cost", every, usual, lowest=True)
    elif chosen.precision is not None:
        found = _by_recall(chosen.precision, every, usual)
    else:
        assert chosen.maximize is not None  # as it decides
        found = _by_score(SCORES[chosen.maximize], chosen.maximize, every, usual)
    return target.model_copy(update={"threshold": found.threshold}), found


@dataclass(frozen=True)
class Cuts:
    """What thresholds make of rows (K), the highest threshold first."""

    threshold_K: np.ndarray
    hit_K: np.ndarray  # positive rows from the threshold on
    alarm_K: np.ndarray  # all rows from the threshold on
    positives: int
    rows: int

    @classmethod
    def between(cls, is_B: np.ndarray, score_B: np.ndarray) -> Cuts:
        """Midway between neighbouring probabilities, so that rounding decides no row."""
        order = np.argsort(-score_B, kind="stable")
        score, hits = score_B[order], np.cumsum(is_B[order])
        last = np.flatnonzero(np.append(np.diff(score) != 0, True))  # of each distinct probability
        ends = np.concatenate([[1.0], score[last], [0.0]])
        middle_K = (ends[:-1] + ends[1:]) / 2
        hit_K, alarm_K = np.append(0, hits[last]), np.append(0, last + 1)
        first = int(score[0] >= 1)  # no threshold is above a probability of 1
        return cls(middle_K[first:], hit_K[first:], alarm_K[first:], int(is_B.sum()), len(is_B))

    @classmethod
    def at(cls, threshold: float, is_B: np.ndarray, score_B: np.ndarray) -> Cuts:
        """One threshold."""
        alarm_B = score_B >= threshold
        hits, alarms = np.array([(is_B & alarm_B).sum()]), np.array([alarm_B.sum()])
        return cls(np.array([threshold]), hits, alarms, int(is_B.sum()), len(is_B))

    @property
    def false_K(self) -> np.ndarray:
        """Alarms that are wrong."""
        false_K: np.ndarray = self.alarm_K - self.hit_K
        return false_K

    @property
    def missed_K(self) -> np.ndarray:
        """Positive rows below the threshold."""
        return self.positives - self.hit_K


Score = Callable[[Cuts], np.ndarray]
"""A number for each threshold (K)."""


def _by_score(
    score: Score, name: str, every: Cuts, usual: Cuts, *, lowest: bool = False
) -> Decision:
    value_K = score(every)
    place = _best(every, -value_K if lowest else value_K)
    return Decision(
        threshold=float(every.threshold_K[place]),
        reached={name: float(value_K[place])},
        usual={name: float(score(usual)[0])},
        rows=every.rows,
    )


def _by_recall(least: float, every: Cuts, usual: Cuts) -> Decision:
    """The most recall at this precision, else the most precision that there is."""
    precision_K, recall_K = SCORES["precision"](every), SCORES["recall"](every)
    able_K = precision_K >= least - _NEAR
    goal_K = np.where(able_K, recall_K, -1.0) if able_K.any() else precision_K + _NEAR * recall_K
    place = _best(every, goal_K)
    threshold = float(every.threshold_K[place])
    reached = {name: float(SCORES[name](every)[place]) for name in ("recall", "precision")}
    warning = (
        ""
        if able_K.any()
        else (
            f"cannot reach precision {least:g} on the rows held out: the best is"
            f" {reached['precision']:.4g}, with recall {reached['recall']:.4g} from probability"
            f" {threshold:.4g} on, which it now decides by"
        )
    )
    return Decision(
        threshold=threshold,
        reached=reached,
        usual={name: float(SCORES[name](usual)[0]) for name in reached},
        rows=every.rows,
        warning=warning,
    )


def _best(cuts: Cuts, goal_K: np.ndarray) -> int:
    """Of the thresholds with the highest goal, that nearest to the usual one."""
    best = np.flatnonzero(goal_K >= goal_K.max() - _NEAR / 10)
    return int(best[np.abs(cuts.threshold_K[best] - USUAL).argmin()])


def _by_costs(
    costs: tuple[tuple[float, ...], ...],
    target: schema.Target,
    truth_B: np.ndarray,
    outputs_BC: np.ndarray,
) -> tuple[schema.Target, Decision]:
    """Several classes: nothing is chosen, the costs decide for each row."""
    matrix_CC, made = np.array(costs), target.model_copy(update={"costs": costs})
    reached, usual = (
        float(matrix_CC[truth_B, tasks.of(one).decide(outputs_BC)].mean()) for one in (made, target)
    )
    found = Decision(reached={"mean_cost": reached}, usual={"mean_cost": usual}, rows=len(truth_B))
    return made, found


def _mean_cost(costs: tuple[tuple[float, ...], ...]) -> Score:
    false, missed = costs[0][1], costs[1][0]
    return lambda cuts: (false * cuts.false_K + missed * cuts.missed_K) / cuts.rows


def _accuracy(cuts: Cuts) -> np.ndarray:
    wrong_K: np.ndarray = cuts.false_K + cuts.missed_K
    return 1 - wrong_K / cuts.rows


def _precision(cuts: Cuts) -> np.ndarray:
    precision_K: np.ndarray = cuts.hit_K / np.maximum(cuts.alarm_K, 1)
    return precision_K


def _recall(cuts: Cuts) -> np.ndarray:
    recall_K: np.ndarray = cuts.hit_K / max(1, cuts.positives)
    return recall_K


def _balanced_accuracy(cuts: Cuts) -> np.ndarray:
    others = max(1, cuts.rows - cuts.positives)
    return (_recall(cuts) + 1 - cuts.false_K / others) / 2


def _f1(cuts: Cuts) -> np.ndarray:
    f1_K: np.ndarray = 2 * cuts.hit_K / np.maximum(cuts.positives + cuts.alarm_K, 1)
    return f1_K


def _mcc(cuts: Cuts) -> np.ndarray:
    rows, positives, alarm_K = float(cuts.rows), float(cuts.positives), cuts.alarm_K.astype(float)
    spread_K = positives * (rows - positives) * alarm_K * (rows - alarm_K)
    mcc_K: np.ndarray = (cuts.hit_K * rows - positives * alarm_K) / np.sqrt(np.maximum(spread_K, 1))
    return mcc_K


SCORES: dict[str, Score] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "mcc": _mcc,
    "precision": _precision,
    "recall": _recall,
}
"""Metrics at every threshold at once; tests hold them to `eagleray.learn.metrics`."""
