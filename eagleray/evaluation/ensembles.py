"""Which trials an ensemble is made of, and what it gains over the best of them.

Greedy selection with replacement (Caruana et al. 2004, ICML): the best few begin, then whichever
candidate gains most is added, again and again. What is gained is measured on rows that the
selection has not seen: the ensemble and the best candidate are selected on all folds but one, and
predict that one.

Legend: B rows, K candidates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eagleray.evaluation import intervals
from eagleray.learn import metrics, schema
from eagleray.state.evaluations import Verdict

ROUNDS = 20
"""Most times that a candidate is added."""
PATIENCE = 5
"""Additions without a gain after which the selection ends."""
FOLDS = 5
LEAST = 1e-9
"""Least gain, relative to the score; below it lies the rounding of means."""


@dataclass(frozen=True)
class Candidates:
    """Models on the same rows; `outputs` of each are in the target's unit, the best first."""

    target: schema.Target
    truth_B: np.ndarray
    outputs: Sequence[np.ndarray]
    metric: str

    def rows(self, chosen: np.ndarray) -> Candidates:
        """The same models on some of the rows: places, or a mask."""
        some = [one[chosen] for one in self.outputs]
        return Candidates(self.target, self.truth_B[chosen], some, self.metric)

    def mean(self, times_K: Sequence[int]) -> np.ndarray:
        """Outputs of the ensemble that has each candidate so many times."""
        pairs = zip(times_K, self.outputs, strict=True)
        mean: np.ndarray = sum((times * one for times, one in pairs if times), np.zeros(1))
        return mean / sum(times_K)

    def score(self, outputs: np.ndarray) -> float:
        """The metric, the higher the better; -inf where the rows do not define it."""
        kind = metrics.REGISTRY[self.metric]
        with np.errstate(all="ignore"):
            rows = metrics.Rows.of(self.target, self.truth_B, outputs)
            found = float(kind.measure(rows)) * (1 if kind.mode == "max" else -1)
        return found if math.isfinite(found) else -math.inf


def select(candidates: Candidates, most: int) -> tuple[int, ...]:
    """How many times each candidate is taken (K), of at most `most` different ones.

    What gains nothing is not taken, so of equal candidates the first one stands alone.
    """
    best = times, highest = _first(candidates, most)
    stale = 0
    for _ in range(ROUNDS if most > 1 else 0):
        times, score = max(_additions(candidates, times, most), key=lambda one: one[1])
        stale += 1
        if _gains(score, highest):
            best, highest, stale = (times, score), score, 0
        if stale == PATIENCE:
            break
    found, _ = best
    return tuple(one // math.gcd(*found) for one in found)


def gain(candidates: Candidates, most: int) -> Verdict | None:
    """The ensemble beside the best candidate alone, both on rows that have not selected them.

    None where these rows do not define the metric.
    """
    fold_B = _folds(candidates.truth_B)
    together = np.zeros_like(candidates.outputs[0], dtype=np.float64)
    alone = together.copy()
    for fold in range(FOLDS):
        own_B = fold_B == fold
        if own_B.any():
            others, own = candidates.rows(~own_B), candidates.rows(own_B)
            together[own_B] = own.mean(select(others, most))
            alone[own_B] = own.mean(select(others, 1))
    judged = functools.partial(
        intervals.Judged, candidates.target, candidates.truth_B, names=(candidates.metric,)
    )
    return intervals.verdict(judged(outputs=together), judged(outputs=alone), candidates.metric)


def _first(candidates: Candidates, most: int) -> tuple[tuple[int, ...], float]:
    """So many of the best, once each, as score best together; fewer where they score the same."""
    scores = [candidates.score(one) for one in candidates.outputs]
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    found: tuple[tuple[int, ...], float] = (), -math.inf
    for count in range(1, min(most, len(order)) + 1):
        times = tuple(int(place in order[:count]) for place in range(len(order)))
        score = candidates.score(candidates.mean(times))
        if count == 1 or _gains(score, found[1]):
            found = times, score
    return found


def _gains(score: float, best: float) -> bool:
    if not math.isfinite(best):
        return score > best
    return score > best + LEAST * max(1.0, abs(best))


def _additions(
    candidates: Candidates, times: tuple[int, ...], most: int
) -> list[tuple[tuple[int, ...], float]]:
    """The score with each candidate added once more, those left out that would be too many."""
    total, count = candidates.mean(times) * sum(times), sum(times) + 1
    full = sum(map(bool, times)) >= most
    return [
        (
            (*times[:place], times[place] + 1, *times[place + 1 :]),
            candidates.score((total + own) / count),
        )
        for place, own in enumerate(candidates.outputs)
        if times[place] or not full
    ]


def _folds(truth_B: np.ndarray) -> np.ndarray:
    """The fold of each row (B); each fold has low and high values, or rows of each class."""
    rows = len(truth_B)
    shuffled_B = np.random.default_rng(0).permutation(rows)
    order_B = shuffled_B[np.argsort(truth_B[shuffled_B], kind="stable")]
    fold_B = np.empty(rows, int)
    fold_B[order_B] = np.arange(rows) % FOLDS
    return fold_B
