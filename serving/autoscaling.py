"""Autoscaling: the metrics of a replica and the policy that turns them into a number of replicas.

Predictions on the fast path (`serving.fast_path`) bypass Ray's counters, so each replica counts
them. Ray Serve reads `app.Endpoint.record_autoscaling_stats` and passes the values to `policy`.

The number of requests in progress alone does not show an overloaded replica. While its event loop
is busy, further requests wait uncounted in sockets. The utilization (arrival rate times service
time) does show it. See docs/adr/0015.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

ONGOING, BUSY = "eagleray_ongoing", "eagleray_busy"
"""Metric names: requests in progress, and utilization."""

MOST_BUSY = 0.8
"""Target utilization of a replica; waiting times grow steeply beyond it."""


class Ongoing:
    """Requests in progress: now, and on average since the last reading.

    The average is an integral over time. A sample would be biased: it is taken between two turns
    of the event loop, when most requests have just been answered.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._area = 0.0
        self._read_at = self._changed = clock()
        self.now = 0

    def enter(self) -> None:
        self._add(1)

    def leave(self) -> None:
        self._add(-1)

    def average(self) -> float:
        """Return the mean number of requests in progress since the last call."""
        self._add(0)
        area, self._area = self._area, 0.0
        past, self._read_at = self._changed - self._read_at, self._changed
        return area / past if past > 0 else float(self.now)

    def _add(self, change: int) -> None:
        now = self._clock()
        self._area += self.now * (now - self._changed)
        self._changed = now
        self.now += change


class Busy:
    """Utilization of this process: the share of time that it runs or waits for a processor.

    It adds the CPU time of the process and the time that the event loop's thread waited for a
    processor, so that a replica on an overloaded machine counts as busy.

    Args:
        clock: seconds.
        worked: seconds of work so far.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        worked: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._worked = worked or _worked(threading.get_native_id())
        self._read_at, self._before = clock(), self._worked()

    def share(self) -> float:
        """Return seconds of work per second since the last call; above 1 with several threads."""
        now, worked = self._clock(), self._worked()
        past, done = now - self._read_at, worked - self._before
        self._read_at, self._before = now, worked
        return done / past if past > 0 else 0.0


def _worked(thread: int) -> Callable[[], float]:
    """Return a function for the CPU seconds of the process plus the waiting time of a thread.

    The waiting time is the second number of /proc/…/schedstat, in ns (Linux: sched-stats).
    """
    stats = Path(f"/proc/self/task/{thread}/schedstat")

    def seconds() -> float:
        waited = 0
        with contextlib.suppress(OSError, IndexError, ValueError):  # not kept by every kernel
            waited = int(stats.read_bytes().split()[1])
        return time.process_time() + waited / 1e9

    return seconds


class Context(Protocol):
    """The part of Ray Serve's `AutoscalingContext` that `policy` reads.

    Attributes:
        target_num_replicas: the last decision.
        aggregated_metrics: mean of recent reports, by metric and replica.
        config: the deployment's `AutoscalingConfig`.
    """

    target_num_replicas: int
    aggregated_metrics: Mapping[str, Mapping[Any, float]]
    config: Any


def policy(context: Context) -> tuple[float, dict[str, Any]]:
    """Return the wanted replicas; Ray Serve then applies its limits and delays."""
    ongoing = context.aggregated_metrics.get(ONGOING, {})
    if not ongoing:  # no replica has reported yet
        return context.target_num_replicas, {}
    busy = context.aggregated_metrics.get(BUSY, {})
    target = context.config.target_ongoing_requests
    return wanted(sum(ongoing.values()), sum(busy.values()), target), {}


def wanted(ongoing: float, busy: float, target: float) -> float:
    """Return the replicas that keep both requests and utilization at their targets.

    Utilization never asks for more replicas than there are requests: one request uses one replica.

    Args:
        ongoing: mean number of requests in progress, over all replicas.
        busy: sum of the replicas' utilization.
        target: requests in progress per replica.
    """
    return max(1.0, ongoing / target, min(busy / MOST_BUSY, ongoing))
