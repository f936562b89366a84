"""Sequential tests of two rates: valid however often they are looked at, and whenever one stops.

Traffic comes in blocks. The e-value of a block compares an alternative, learned from the blocks
before, with the member of the null hypothesis that is closest to it; under the null hypothesis its
expectation is at most 1, for any block size and any convex set of rates (Turner, Ly and Grünwald
2021, arXiv:2106.02693). So the product over blocks exceeds 1/a with a probability of at most a,
ever (Ville's inequality).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

_LEAST = 1e-9  # rates stay inside of (0, 1)
_STEPS = 60  # of bisection: below the precision of a float


class Count(NamedTuple):
    """Events among trials."""

    events: int = 0
    trials: int = 0

    def plus(self, other: "Count") -> "Count":
        return Count(self.events + other.events, self.trials + other.trials)

    @property
    def rate(self) -> float:
        return self.events / self.trials if self.trials else 0.0

    @property
    def smoothed(self) -> float:
        """The rate with half an event and half a non-event added (Krichevsky and Trofimov)."""
        return (self.events + 0.5) / (self.trials + 1)


def log_e_above(stable: Count, candidate: Count, before: tuple[Count, Count], by: float) -> float:
    """Log of a block's e-value against: the candidate's rate is at most `by` higher.

    `before` are the counts of both in earlier blocks.
    """
    old, new = (one.smoothed for one in before)
    return _log_e(stable, candidate, (old, new), by) if new > old + by else 0.0


def log_e_apart(stable: Count, candidate: Count, before: tuple[Count, Count], by: float) -> float:
    """Log of a block's e-value against: the two rates are at most `by` apart."""
    old, new = (one.smoothed for one in before)
    if new > old + by:
        return _log_e(stable, candidate, (old, new), by)
    return _log_e(stable, candidate, (old, new), -by) if new < old - by else 0.0


def mean(weighted: Sequence[tuple[float, float]]) -> float:
    """Log of the mean of e-values, which is one, however they depend on each other.

    `weighted` are fixed weights, 1 at most together, and logs; what is left of 1 counts as e = 1.
    """
    parts = [*weighted, (max(0.0, 1 - sum(weight for weight, _ in weighted)), 0.0)]
    most = max(log for _, log in parts)
    return most + math.log(sum(weight * math.exp(log - most) for weight, log in parts))


def _log_e(
    stable: Count, candidate: Count, alternative: tuple[float, float], shift: float
) -> float:
    """Against rates of which the candidate's is `shift` above the stable one's: the boundary."""
    old, new = alternative
    if not stable.trials or not candidate.trials:
        return 0.0
    weights = stable.trials, candidate.trials

    def slope(rate: float) -> float:
        """Of the divergence of the alternative from the rates `rate` and `rate + shift`."""
        return weights[0] * _slope(old, rate) + weights[1] * _slope(new, rate + shift)

    nearest = _root(slope, max(0.0, -shift) + _LEAST, min(1.0, 1.0 - shift) - _LEAST)
    return _log_ratio(stable, old, nearest) + _log_ratio(candidate, new, nearest + shift)


def _slope(true: float, rate: float) -> float:
    """Derivative by `rate` of the divergence of a coin with `true` from one with `rate`."""
    return (rate - true) / (rate * (1.0 - rate))


def _root(increasing: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if increasing(middle) > 0 else (middle, high)
    return (low + high) / 2


def _log_ratio(count: Count, rate: float, null: float) -> float:
    """Log of how much likelier a count is under `rate` than under `null`."""
    calm = count.trials - count.events
    return count.events * math.log(rate / null) + calm * math.log((1 - rate) / (1 - null))
