"""What a replica measures of itself: requests in progress, their rates, and utilization.

Requests in progress alone do not show an overloaded replica: while its event loop is busy, further
ones wait uncounted in sockets. Utilization (arrival rate times service time) does (docs/adr/0015).
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path

ONGOING, ARRIVED, SERVED, BUSY = METRICS = (
    "eagleray_ongoing",
    "eagleray_arrived",
    "eagleray_served",
    "eagleray_busy",
)
"""Names of what a replica reports: requests in progress, requests that came and that were answered
in a second, and utilization."""


class Ongoing:
    """Requests in progress, and the rates at which they come and are answered.

    The average is an integral over time. A sample would be biased: it is taken between two turns
    of the event loop, when most requests have just been answered.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._area = 0.0
        self._read_at = self._changed = self._counted_at = clock()
        self._arrived = self._served = 0
        self.now = 0

    def add(self, change: int) -> None:
        """Count requests that begin, or end where `change` is negative."""
        self._integrate()
        self.now += change
        if change > 0:
            self._arrived += change
        else:
            self._served -= change

    def average(self) -> float:
        """Return the mean number of requests in progress since the last call."""
        self._integrate()
        area, self._area = self._area, 0.0
        past, self._read_at = self._changed - self._read_at, self._changed
        return area / past if past > 0 else float(self.now)

    def rates(self) -> tuple[float, float]:
        """Return requests per second since the last call: those that came, those answered."""
        now = self._clock()
        past, self._counted_at = now - self._counted_at, now
        counts, self._arrived, self._served = (self._arrived, self._served), 0, 0
        return (counts[0] / past, counts[1] / past) if past > 0 else (0.0, 0.0)

    def _integrate(self) -> None:
        now = self._clock()
        self._area += self.now * (now - self._changed)
        self._changed = now


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
