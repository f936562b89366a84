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

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """Return the wanted replicas, and the state for the next call."""
        now, replicas = float(context.current_time or 0.0), context.target_num_replicas
        state = context.policy_state.get(_STATE) or policy.State.begin(replicas, now)
        decision = policy.decide(self._plan, load(context), replicas, state, now=now)
        if decision.replicas != replicas:
            log.info("%d -> %d replicas: %s", replicas, decision.replicas, decision.reason)
        return decision.replicas, {_STATE: decision.state}


def load(context: Context) -> policy.Load:
    """Return what the replicas reported."""
    reports = context.raw_metrics or {}
    series = [reports.get(name, {}) for name in usage.METRICS]
    replicas = ([one.get(replica, ()) for one in series] for replica in series[0])
    return policy.Load.of(
        (
            [policy.Reading(*(point.value for point in points)) for points in zip(*four)]  # noqa: B905
            for four in replicas
        ),
        context.total_queued_requests or 0.0,
    )
