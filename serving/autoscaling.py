"""How many replicas a model needs: the count of its requests in progress, and the policy over it.

The fast lane (`serving.lane`) leads predictions past Ray's own counters, so a replica counts for
itself: Ray Serve asks `app.Endpoint.record_autoscaling_stats` and hands the answers to `policy`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

METRIC = "eagleray_ongoing"
"""Name under which a replica reports its requests in progress."""


class Ongoing:
    """Requests in progress: now, and on average since the last look.

    The average is exact, an integral over time. A look at one instant would be biased: between two
    turns of the event loop, where looks happen, most requests have just been answered.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._area = 0.0
        self._looked = self._changed = clock()
        self.now = 0

    def enter(self) -> None:
        self._add(1)

    def leave(self) -> None:
        self._add(-1)

    def average(self) -> float:
        """Mean number of requests in progress since the last call."""
        self._add(0)
        area, self._area = self._area, 0.0
        past, self._looked = self._changed - self._looked, self._changed
        return area / past if past > 0 else float(self.now)

    def _add(self, change: int) -> None:
        now = self._clock()
        self._area += self.now * (now - self._changed)
        self._changed = now
        self.now += change


class Context(Protocol):
    """What `policy` reads of Ray Serve's `AutoscalingContext`."""

    @property
    def target_num_replicas(self) -> int:
        """Replicas wanted by the last decision."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]]:
        """By name and replica, the mean of what was reported lately."""

    @property
    def config(self) -> Any:
        """The deployment's `AutoscalingConfig`."""


def policy(context: Context) -> tuple[float, dict[str, Any]]:
    """Replicas wanted, before Ray Serve applies the limits and delays of its configuration."""
    ongoing = context.aggregated_metrics.get(METRIC, {})
    if not ongoing:  # no replica has reported yet
        return context.target_num_replicas, {}
    return wanted(sum(ongoing.values()), context.config.target_ongoing_requests), {}


def wanted(ongoing: float, target: float) -> float:
    """Replicas that bring the requests in progress at each one to the target; at least one."""
    return max(1.0, ongoing / target)
