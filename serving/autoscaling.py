"""How many replicas a model needs: what a replica measures of itself, and the policy over it.

The fast lane (`serving.lane`) leads predictions past Ray's own counters, so a replica counts for
itself: Ray Serve asks `app.Endpoint.record_autoscaling_stats` and hands the answers to `policy`.

Requests in progress do not tell a full replica. While its event loop works on some, the others wait
in sockets, where nobody counts them: the more work a request is, the fewer are counted. How busy
the replica is (its arrival rate times its service time) does tell. See docs/adr/0015.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

ONGOING, BUSY = "eagleray_ongoing", "eagleray_busy"
"""Names under which a replica reports its requests in progress, and how busy it is."""

MOST_BUSY = 0.8
"""Share of its time that a replica should work at most: beyond, waiting times grow steeply."""


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


class Busy:
    """The share of time that this process works, or would if it had a processor.

    Time on processors is that of the whole process. Time that the event loop's thread was ready and
    waited for a processor is added: on a machine that is full a replica is busy as well.

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
        self._looked, self._before = clock(), self._worked()

    def share(self) -> float:
        """Seconds of work in each second since the last call; above 1 if several threads work."""
        now, worked = self._clock(), self._worked()
        past, done = now - self._looked, worked - self._before
        self._looked, self._before = now, worked
        return done / past if past > 0 else 0.0


def _worked(thread: int) -> Callable[[], float]:
    """Seconds that the process worked, and that a thread of it waited for a processor.

    The latter is the second number of /proc/…/schedstat, in ns (Linux: scheduler/sched-stats).
    """
    stats = Path(f"/proc/self/task/{thread}/schedstat")

    def seconds() -> float:
        waited = 0
        with contextlib.suppress(OSError, IndexError, ValueError):  # not kept by every kernel
            waited = int(stats.read_bytes().split()[1])
        return time.process_time() + waited / 1e9

    return seconds


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
    ongoing = context.aggregated_metrics.get(ONGOING, {})
    if not ongoing:  # no replica has reported yet
        return context.target_num_replicas, {}
    busy = context.aggregated_metrics.get(BUSY, {})
    target = context.config.target_ongoing_requests
    return wanted(sum(ongoing.values()), sum(busy.values()), target), {}


def wanted(ongoing: float, busy: float, target: float) -> float:
    """Replicas at which neither requests in progress nor work exceed what one should have.

    Work asks for no more replicas than there are requests: one request cannot use two.

    Args:
        ongoing: mean number of requests in progress, at all replicas together.
        busy: shares of time that replicas work, added up.
        target: requests in progress that a replica should have.
    """
    return max(1.0, ongoing / target, min(busy / MOST_BUSY, ongoing))
