"""Shares of what replicas have counted, as the tests of a rollout take them. Pure."""

import math

from eagleray.state.evidence import Counts
from serving.sequential import Count

GROWTH = 1.1
"""Ratio of the ends of a bucket of times."""
LEAST_TIMES = 50
"""Requests of the stable version from which on its quantiles are known well enough."""


def bucket(seconds: float) -> int:
    """The bucket of a time: those of one differ by less than `GROWTH`."""
    return math.floor(math.log(max(seconds, 1e-6)) / math.log(GROWTH))


def milliseconds(limit: int) -> float:
    """The end of a bucket."""
    return 1000 * GROWTH ** (limit + 1)


def limit(p95_ms: float | None, stable: Counts) -> int | None:
    """The bucket above which a time is slow: that of the objective, or else of the stable p95."""
    return _quantile(stable, 0.95) if p95_ms is None else bucket(p95_ms / 1000)


def median(stable: Counts) -> int | None:
    """The bucket of the stable version's median."""
    return _quantile(stable, 0.5)


def errors(counts: Counts) -> Count:
    """Of all requests."""
    return Count(counts.errors, counts.requests)


def slow(counts: Counts, limit: int) -> Count:
    """Of the requests that were answered."""
    late = sum(number for place, number in counts.seconds.items() if place > limit)
    return Count(late, sum(counts.seconds.values()))


def predicted(counts: Counts, outcome: str) -> Count:
    """Requests that an outcome was predicted for."""
    return Count(counts.outcomes.get(outcome, 0), sum(counts.outcomes.values()))


def hits(counts: Counts) -> Count:
    """Labels that the prediction was right for."""
    return Count(counts.hits, counts.labels)


def wrong(counts: Counts) -> Count:
    """Labels that it was wrong for."""
    return Count(counts.labels - counts.hits, counts.labels)


def _quantile(counts: Counts, part: float) -> int | None:
    """The bucket that this part of the requests ends in; None while there are too few."""
    whole, running = sum(counts.seconds.values()), 0
    if whole < LEAST_TIMES:
        return None
    for place, number in sorted(counts.seconds.items()):
        running += number
        if running >= part * whole:
            return place
    raise AssertionError("the last bucket has all")
