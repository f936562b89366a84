"""A discrete-event simulation of replicas that answer requests one after another.

As HAProxy does, each request goes to the replica with the fewest in progress, and stays there. As
in Ray Serve, replicas report at intervals, a new one starts for a while, and one that ends answers
what it has. Replicas measure themselves with `serving.autoscaling.usage`, by this clock.
"""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.autoscaling import policy, usage
from serving.simulation.loads import Times

Scaler = Callable[[policy.Load, int, float], tuple[int, str]]
"""Returns replicas and reason, from a load, the number decided last, and the time."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What each replica is like, and how Ray Serve runs it."""

    service_s: float = 0.01  # mean time that a request takes a replica
    variation: float = 1.0  # standard deviation of that time, divided by the mean
    start_s: float = 6.0  # from the decision until a replica answers
    report_s: float = 1.0  # between two reports of a replica
    look_back_s: float = 10.0  # period of the longer mean
    wait_s: float = 30.0  # longest wait of a request for a first replica


@dataclass(frozen=True)
class Moment:
    """The state of the cluster at a report."""

    at: float  # seconds since the start
    wanted: int  # replicas, those that start among them
    running: int
    waiting: int  # requests that wait for a first replica
    reason: str  # of the last change


@dataclass(frozen=True)
class Outcome:
    """What came of a simulation."""

    sent: Times
    latencies: NDArray[np.float64]  # seconds, by request; infinite where it was refused
    moments: list[Moment]
    replica_s: float  # seconds that replicas were there, starting and ending ones among them

    def percentile(self, share: float) -> float:
        """Return the latency in seconds that `share` of the requests do not exceed."""
        if not len(self.latencies):
            return 0.0
        return float(np.quantile(self.latencies, share, method="inverted_cdf"))

    def within(self, objective_s: float) -> float:
        """Return the share of requests that are answered within the objective."""
        return float(np.mean(self.latencies <= objective_s)) if len(self.latencies) else 1.0

    def percentiles(self, share: float, window_s: float = 1.0) -> tuple[Times, Times]:
        """Return starts of windows with requests, and that percentile of those sent in each."""
        starts, first = np.unique(self.sent // window_s, return_index=True)
        parts = np.split(self.latencies, first[1:]) if len(first) else []
        values = [np.quantile(part, share, method="inverted_cdf") for part in parts]
        return starts * window_s, np.array(values)

    @property
    def refused(self) -> int:
        """Requests that waited in vain for a first replica."""
        return int(np.isinf(self.latencies).sum())

    @property
    def turns(self) -> int:
        """Changes of direction of the number of wanted replicas."""
        wanted = [moment.wanted for moment in self.moments]
        ways = [
            later > earlier for earlier, later in itertools.pairwise(wanted) if later != earlier
        ]
        return sum(one != other for one, other in itertools.pairwise(ways))


@dataclass
class Clock:
    """The time of the simulation."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """A replica, and the requests that it has."""

    def __init__(self, clock: Clock, reports: int) -> None:
        self._clock, self._began = clock, clock.now
        self._assigned, self._free_at = 0.0, 0.0
        self.ongoing = usage.Ongoing(clock)
        self._busy = usage.Busy(clock, self._worked)
        self.reports: collections.deque[policy.Reading] = collections.deque(maxlen=reports)

    def take(self, service_s: float) -> float:
        """Take a request that needs `service_s`; return when it is answered."""
        self.ongoing.add(1)
        self._assigned += service_s
        self._free_at = max(self._free_at, self._clock.now) + service_s
        return self._free_at

    def report(self, period_s: float) -> None:
        """Measure the period since the last report; the first is left out unless it was whole."""
        arrived, served = self.ongoing.rates()
        reading = policy.Reading(self.ongoing.average(), arrived, served, self._busy.share())
        if self._clock.now - self._began >= period_s:
            self.reports.append(reading)

    def _worked(self) -> float:
        return self._assigned - max(0.0, self._free_at - self._clock.now)


@dataclass
class Cluster:
    """Replicas of one kind, and what is on its way."""

    kind: Kind
    scaler: Scaler
    begin: float  # time of the start, in seconds since 1970
    wanted: int
    starts: Iterator[float]  # what the first ones take to start, in place of the kind's
    clock: Clock = field(default_factory=Clock)
    running: list[Replica] = field(default_factory=list)
    starting: list[float] = field(default_factory=list)  # when each is ready
    ending: list[Replica] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    replica_s: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        self._answers: list[tuple[float, int, Replica]] = []  # a heap by time
        self._order = itertools.count()
        self._waiting: collections.deque[int] = collections.deque()
        for _ in range(self.wanted):
            self._begin()

    def run(self, sent: Times, services: NDArray[np.float64]) -> Outcome:
        """Answer all requests; return what came of it."""
        self._sent, self._services = sent, services
        self._latencies = np.full(len(sent), np.inf)
        end = (sent[-1] if len(sent) else 0.0) + self.kind.report_s
        reports = itertools.count(1)
        tick = next(reports) * self.kind.report_s
        for request, at in enumerate(sent.tolist()):
            while tick <= at:
                self._tick(tick)
                tick = next(reports) * self.kind.report_s
            self._pass(at)
            self._arrive(request)
        while tick <= end or self._waiting:
            self._tick(tick)
            tick = next(reports) * self.kind.report_s
        return Outcome(sent, self._latencies, self.moments, self.replica_s)

    def _arrive(self, request: int) -> None:
        if self.running:
            self._assign(request)
            return
        self._waiting.append(request)
        if not self.wanted:
            self._decide()

    def _assign(self, request: int) -> None:
        chosen = min(self.running, key=_in_progress)
        self.running.remove(chosen)  # to the end, so that equals take turns
        self.running.append(chosen)
        answered = chosen.take(self._services[request])
        self._latencies[request] = answered - self._sent[request]
        heapq.heappush(self._answers, (answered, next(self._order), chosen))

    def _tick(self, at: float) -> None:
        self._pass(at)
        for replica in self.running:
            replica.report(self.kind.report_s)
        self._decide()
        moment = Moment(at, self.wanted, len(self.running), len(self._waiting), self.reason)
        self.moments.append(moment)
        there = len(self.running) + len(self.starting) + len(self.ending)
        self.replica_s += there * self.kind.report_s

    def _pass(self, until: float) -> None:
        """Let time pass: replicas become ready, and requests are answered."""
        while self.starting and self.starting[0] <= until:
            ready = heapq.heappop(self.starting)
            self._answer(ready)
            self._begin()
            self._flush()
        self._answer(until)
        self.ending = [replica for replica in self.ending if replica.ongoing.now]
        while self._waiting and until - self._sent[self._waiting[0]] > self.kind.wait_s:
            self._waiting.popleft()

    def _answer(self, until: float) -> None:
        while self._answers and self._answers[0][0] <= until:
            self.clock.now, _, replica = heapq.heappop(self._answers)
            replica.ongoing.add(-1)
        self.clock.now = until

    def _flush(self) -> None:
        while self._waiting:
            request = self._waiting.popleft()
            if self.clock.now - self._sent[request] <= self.kind.wait_s:
                self._assign(request)

    def _decide(self) -> None:
        wanted, reason = self.scaler(self._load(), self.wanted, self.begin + self.clock.now)
        if wanted == self.wanted:
            return
        self.wanted, self.reason = wanted, reason
        while len(self.running) + len(self.starting) < wanted:
            self._start()
        while len(self.running) + len(self.starting) > wanted and self.starting:
            self.starting.remove(max(self.starting))
            heapq.heapify(self.starting)
        for replica in sorted(self.running, key=_in_progress)[: max(0, len(self.running) - wanted)]:
            self.running.remove(replica)
            self.ending.append(replica)

    def _begin(self) -> None:
        reports = max(1, round(self.kind.look_back_s / self.kind.report_s))
        self.running.append(Replica(self.clock, reports))

    def _start(self) -> None:
        heapq.heappush(self.starting, self.clock.now + next(self.starts, self.kind.start_s))

    def _load(self) -> policy.Load:
        reported = [policy.Replica.of(list(one.reports)) for one in self.running if one.reports]
        return policy.Load.of(reported, len(self._waiting))


def simulate(
    sent: Times,
    kind: Kind,
    scaler: Scaler,
    *,
    replicas: int,
    starts: Iterable[float] = (),
    begin: float = 0.0,
    seed: int = 0,
) -> Outcome:
    """Answer requests that are sent at these times, beginning with `replicas` that run.

    The first that start take the seconds of `starts`, one each, and those after them the kind's.
    """
    cluster = Cluster(kind, scaler, begin, replicas, iter(starts))
    return cluster.run(sent, _services(kind, len(sent), seed))


def _services(kind: Kind, count: int, seed: int) -> NDArray[np.float64]:
    """Return the time that each request takes a replica: gamma distributed."""
    if not kind.variation:
        return np.full(count, kind.service_s)
    shape = kind.variation**-2
    random = np.random.default_rng((seed, 1))
    return random.gamma(shape, kind.service_s / shape, count)


def _in_progress(replica: Replica) -> int:
    return replica.ongoing.now
