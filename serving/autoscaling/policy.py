"""The policy: how many replicas a load needs, and how fast their number follows.

With a latency objective the need comes from a queueing model (`queueing`); without one from
requests in progress and utilization (docs/adr/0015). All else is the same for both: the decision
is stabilized over a period, as Kubernetes' HorizontalPodAutoscaler does, bounded in its rate of
change, and a spike passes all of that by, as Knative's panic mode does (docs/adr/0032).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from serving.autoscaling import queueing
from serving.autoscaling.plan import Plan

FULL = 0.95  # utilization from which on a replica counts as full
RECENT = 2  # reports of a replica that make up what is recent


@dataclass(frozen=True)
class Reading:
    """What one replica reported over a period."""

    ongoing: float  # mean number of requests in progress
    arrived: float  # requests per second
    served: float  # requests per second
    busy: float  # utilization
    share: float = 1.0  # of the period in which the replica was there

    @classmethod
    def mean(cls, readings: Sequence[Reading]) -> Reading:
        """Return the mean of several reports of a replica."""
        columns = zip(*map(dataclasses.astuple, readings), strict=True)
        return cls(*(sum(column) / len(readings) for column in columns))


@dataclass(frozen=True)
class Replica:
    """What one replica reported, of which it is summed up once."""

    reports: int
    recent: Reading  # mean of the last `RECENT` reports
    mean: Reading

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> Replica:
        """Return the replica of at least one report, in the order of time."""
        return cls(len(readings), Reading.mean(readings[-RECENT:]), Reading.mean(readings))


@dataclass(frozen=True)
class Load:
    """What all replicas reported, and the requests that wait for a first replica."""

    recent: tuple[Reading, ...]  # over the last `RECENT` reports, one a replica
    mean: tuple[Reading, ...]  # over a longer period, one a replica
    waiting: float = 0.0

    @classmethod
    def of(cls, replicas: Sequence[Replica], waiting: float = 0.0) -> Load:
        """Return the load of all replicas; the oldest one was there all the time."""
        longest = max([one.reports for one in replicas], default=1)
        recent, mean = [], []
        for one in replicas:
            share = min(one.reports, RECENT) / min(longest, RECENT)
            recent.append(dataclasses.replace(one.recent, share=share))
            mean.append(dataclasses.replace(one.mean, share=one.reports / longest))
        return cls(tuple(recent), tuple(mean), waiting)

    @property
    def idle(self) -> bool:
        """Whether no request has come."""
        return not self.waiting and not any(one.arrived or one.ongoing for one in self.mean)


Steps = tuple[tuple[float, int], ...]
"""Numbers of replicas, each with the last time at which it was wanted, in the order of time."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What the policy remembers from one decision to the next."""

    replicas: int  # what was decided
    lows: Steps  # candidates for the minimum of `Pace.up_s`
    highs: Steps  # candidates for the maximum of `Pace.down_s`
    changed: float = -math.inf  # time of the last step
    used: float  # last time at which there was a request

    @classmethod
    def begin(cls, replicas: int, now: float) -> State:
        """Return the state of a deployment that has just got this many replicas."""
        steps = ((now, replicas),)
        return cls(replicas=replicas, lows=steps, highs=steps, used=now)


@dataclass(frozen=True)
class Decision:
    """How many replicas there shall be, and why."""

    replicas: int
    reason: str
    state: State


def decide(plan: Plan, load: Load, replicas: int, state: State, *, now: float) -> Decision:
    """Return how many replicas there shall be from now on.

    Args:
        plan: bounds, objective and pace.
        load: recent reports; empty where no replica has reported yet.
        replicas: the number decided last, replicas that start among them.
        state: that of the last decision.
        now: in seconds since 1970.
    """
    least = plan.floor(now)
    if replicas != state.replicas:  # Ray Serve starts the first replica by itself
        state = State.begin(replicas, now)
    if not load.idle:
        state = dataclasses.replace(state, used=now)
    if not replicas:
        wanted = max(least, 1 if load.waiting else 0)
        return Decision(wanted, _opening(wanted, least, load), State.begin(wanted, now))
    if not load.mean:
        wanted = max(replicas, least)
        state = dataclasses.replace(state, replicas=wanted)
        return Decision(wanted, "no replica has reported yet", state)
    wanted, reason = _wanted(plan, load, replicas, least, now - state.used)
    spike, cause = need(plan, load.recent, 1 + plan.pace.spare, service_s=service(load.mean))
    panics = spike >= wanted and spike >= plan.pace.panic * replicas
    if panics:
        wanted, reason = spike, f"a spike: {cause}"
    state = dataclasses.replace(
        state,
        lows=_remember(state.lows, wanted, now, plan.pace.up_s, sign=1),
        highs=_remember(state.highs, wanted, now, plan.pace.down_s, sign=-1),
    )
    target = wanted if panics else _step(plan, replicas, state, now)
    if not wanted:  # Ray Serve goes to zero from one alone
        target = min(1, replicas - 1)
    if target < least:
        target, reason = least, f"a minimum of {least}"
    changed = state.changed if target == replicas else now
    return Decision(target, reason, dataclasses.replace(state, replicas=target, changed=changed))


class Scaler:
    """The policy with its state, for one deployment in one process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._state: State | None = None

    def __call__(self, load: Load, replicas: int, now: float) -> tuple[int, str]:
        """Return the wanted replicas and the reason; `decide` has the arguments."""
        state = self._state or State.begin(replicas, now)
        decision = decide(self._plan, load, replicas, state, now=now)
        self._state = decision.state
        return decision.replicas, decision.reason


def need(
    plan: Plan, readings: Sequence[Reading], growth: float = 1.0, *, service_s: float | None = None
) -> tuple[int, str]:
    """Return the replicas that a load needs, and why.

    Args:
        plan: the objective, or requests per replica.
        readings: the load, one a replica.
        growth: what the load is multiplied by.
        service_s: time that a request takes a replica, by default that of these readings.
    """
    service_s = service_s or service(readings)
    if plan.p95_ms is None or not service_s:
        ongoing = sum(one.share * one.ongoing for one in readings)
        busy = sum(one.share * one.busy for one in readings)
        count = max(ongoing / plan.target_ongoing, min(busy / queueing.MOST_BUSY, ongoing))
        why = f"{ongoing:.1f} requests in progress, utilization {busy:.2f}"
        return _bounded(plan, growth * count), why
    objective_s, rate = plan.p95_ms / 1000, sum(one.share * one.arrived for one in readings)
    why = f"{rate:.1f} requests/s of {1000 * service_s:.1f} ms"
    if service_s >= objective_s:
        why = f"{why}, longer than the objective"
    offered, within = growth * rate * service_s, objective_s / service_s
    count = queueing.least_replicas(offered, within, plan.max_replicas)
    full = sum(_full(one, objective_s) for one in readings)
    if full:  # HAProxy passes them by until they have answered what they hold
        count, why = count + full, f"{why}, {full} of {len(readings)} replicas full"
    if full == len(readings):  # more may wait in sockets, where nothing counts them
        count = max(count, 2 * full)
    return _bounded(plan, count), why


def service(readings: Sequence[Reading]) -> float | None:
    """Return the seconds that a request takes a replica; None while none has been answered."""
    busy = sum(one.share * one.busy for one in readings)
    served = sum(one.share * one.served for one in readings)
    return busy / served if served else None


def _wanted(plan: Plan, load: Load, replicas: int, least: int, unused_s: float) -> tuple[int, str]:
    """Return the replicas that the mean load needs; fewer than now only where a margin is left."""
    pace = plan.pace
    if least == 0 and unused_s >= pace.zero_s:
        return 0, f"no request for {unused_s:.0f} s"
    count, reason = need(plan, load.mean, 1 + pace.spare)
    if count < replicas:
        growth = (1 + pace.spare) * (1 + pace.margin)
        count = min(replicas, need(plan, load.mean, growth)[0])
    return count, reason


def _step(plan: Plan, replicas: int, state: State, now: float) -> int:
    """Return the next number of replicas, within the bounds on its change."""
    if now - state.changed < plan.pace.step_s:
        return replicas
    lowest, highest = state.lows[0][1], state.highs[0][1]
    if lowest > replicas:
        return min(lowest, replicas + max(1, math.floor(plan.pace.grow * replicas)))
    if highest < replicas:
        return max(highest, replicas - max(1, math.floor(plan.pace.shrink * replicas)))
    return replicas


def _full(one: Reading, objective_s: float) -> bool:
    """Whether a replica works all the time, and its mean latency (Little's law) is too long."""
    return one.busy >= FULL and one.ongoing > one.served * objective_s


def _bounded(plan: Plan, count: float) -> int:
    return min(plan.max_replicas, max(1, math.ceil(count - 1e-9)))


def _remember(steps: Steps, wanted: int, now: float, period_s: float, *, sign: int) -> Steps:
    """Return the steps with `wanted` added, without those that are the extreme no more.

    The first is the extreme of the period: the minimum for sign 1, the maximum for sign -1.
    """
    kept = [(at, n) for at, n in steps if at > now - period_s and sign * (wanted - n) > 0]
    return (*kept, (now, wanted))


def _opening(wanted: int, least: int, load: Load) -> str:
    if wanted > least:
        return f"{load.waiting:.0f} requests wait for a first replica"
    return f"a minimum of {least}" if least else "no request"
