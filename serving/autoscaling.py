"""Autoscaling: the metrics of a replica and the policy that turns them into a number of replicas.

Predictions on the fast path (`serving.fast_path`) bypass Ray's counters, so each replica counts
them. Ray Serve reads `app.Replica.record_autoscaling_stats` and passes the values to `policy`.

Requests in progress alone do not show an overloaded replica: while its event loop is busy, further
ones wait uncounted in sockets. Utilization (arrival rate times service time) does (docs/adr/0015).
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

ONGOING, BUSY = "eagleray_ongoing", "eagleray_busy"
"""Metric names: requests in progress, and utilization."""

MOST_BUSY = 0.8  # target utilization of a replica; waiting times grow steeply beyond it


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

    def add(self, change: int) -> None:
        """Count requests that begin, or end where `change` is negative."""
        now = self._clock()
        self._area += self.now * (now - self._changed)
        self._changed = now
        self.now += change

    def average(self) -> float:
        """Return the mean number of requests in progress since the last call."""
        self.add(0)
        area, self._area = self._area, 0.0
        past, self._read_at = self._changed - self._read_at, self._changed
        return area / past if past > 0 else float(self.now)


class Busy:
    """Utilization of this process: CPU time, and time that this thread waits for a processor.

    The wait counts so that a replica on an overloaded machine counts as busy. `worked` returns the
    seconds of work so far.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        worked: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._worked = worked or functools.partial(_work_seconds, threading.get_native_id())
        self._read_at, self._before = clock(), self._worked()

    def share(self) -> float:
        """Return seconds of work per second since the last call; above 1 with several threads."""
        now, worked = self._clock(), self._worked()
        past, done = now - self._read_at, worked - self._before
        self._read_at, self._before = now, worked
        return done / past if past > 0 else 0.0


def _work_seconds(thread: int) -> float:
    """Return the CPU seconds of the process, plus those that a thread waited for a processor."""
    waited = 0  # ns, the second number of schedstat (Linux: sched-stats)
    with contextlib.suppress(OSError, IndexError, ValueError):  # some kernels lack it
        waited = int(Path(f"/proc/self/task/{thread}/schedstat").read_bytes().split()[1])
    return time.process_time() + waited / 1e9


class Context(Protocol):
    """The part of Ray Serve's `AutoscalingContext` that `policy` reads."""

    target_num_replicas: int  # the last decision
    aggregated_metrics: Mapping[str, Mapping[Any, float]]  # recent means, by metric and replica
    config: Any  # the deployment's `AutoscalingConfig`


def policy(context: Context) -> tuple[float, dict[str, Any]]:
    """Return the wanted replicas; Ray Serve then applies its limits and delays."""
    ongoing, busy = (context.aggregated_metrics.get(name, {}) for name in (ONGOING, BUSY))
    if not ongoing:  # no replica has reported yet
        return context.target_num_replicas, {}
    target = context.config.target_ongoing_requests
    return wanted(sum(ongoing.values()), sum(busy.values()), target), {}


def wanted(ongoing: float, busy: float, target: float) -> float:
    """Return the replicas that keep both requests and utilization at their targets.

    `ongoing` and `busy` are sums over all replicas, `target` is requests per replica. Utilization
    never asks for more replicas than there are requests: one request uses one replica.
    """
    return max(1.0, ongoing / target, min(busy / MOST_BUSY, ongoing))
