"""The policy in Ray Serve: its controller makes one `Policy`, and calls it ten times a second.

Ray Serve keeps the state from call to call. A new controller begins without one, and then removes
no replica before `Pace.down_s` has passed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from serving.autoscaling import policy, usage
from serving.autoscaling.plan import Plan

log = logging.getLogger("ray.serve")

_STATE = "eagleray"


class Point(Protocol):
    """A value that a replica reported."""

    value: float


class Context(Protocol):
    """The part of Ray Serve's `AutoscalingContext` that `Policy` reads."""

    target_num_replicas: int  # the last decision
    current_time: float | None  # seconds since 1970
    policy_state: dict[str, Any]  # what the last call returned
    raw_metrics: Mapping[str, Mapping[Any, list[Any]]] | None  # by metric and replica
    total_queued_requests: float | None  # at proxies


class Policy:
    """The policy for one plan, given as the fields of `Plan`."""

    def __init__(self, **plan: Any) -> None:
        self._plan = msgspec.convert(plan, Plan)
        self._reports = Reports()

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """Return the wanted replicas, and the state for the next call."""
        now, replicas = float(context.current_time or 0.0), context.target_num_replicas
        state = context.policy_state.get(_STATE) or policy.State.begin(replicas, now)
        load = self._reports.load(context)
        decision = policy.decide(self._plan, load, replicas, state, now=now)
        if decision.replicas != replicas:
            log.info("%d -> %d replicas: %s", replicas, decision.replicas, decision.reason)
        return decision.replicas, {_STATE: decision.state}


class Reports:
    """What replicas reported; a report is read once, though it is looked at until the next one."""

    def __init__(self) -> None:
        self._read: dict[Any, tuple[object, policy.Replica | None]] = {}  # by replica

    def load(self, context: Context) -> policy.Load:
        """Return the load of all replicas that have reported."""
        metrics = context.raw_metrics or {}
        series = [metrics.get(name, {}) for name in usage.METRICS]
        self._read = {
            replica: self._of(replica, points, [one.get(replica, ()) for one in series])
            for replica, points in series[0].items()
        }
        replicas = [one for _, one in self._read.values() if one is not None]
        return policy.Load.of(replicas, context.total_queued_requests or 0.0)

    def _of(
        self, replica: object, points: object, series: list[Any]
    ) -> tuple[object, policy.Replica | None]:
        known = self._read.get(replica)
        if known is not None and known[0] is points:
            return known
        rows = zip(*series)  # noqa: B905 (a new replica may have reported some metrics only)
        readings = [policy.Reading(*(point.value for point in row)) for row in rows]
        return points, policy.Replica.of(readings) if readings else None
