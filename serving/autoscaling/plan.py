"""What autoscaling is to hold: bounds, objective, pace, and windows of the week."""

from __future__ import annotations

import datetime
import functools
import zoneinfo
from dataclasses import dataclass

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast replicas follow the load."""

    up_s: float  # for which more replicas must be wanted
    down_s: float  # for which fewer replicas must be wanted
    zero_s: float  # without a request, until the last replica ends
    panic: float  # times the replicas there are, from which on more come at once
    grow: float  # share of the replicas that one step adds, and at least one replica
    shrink: float  # share of the replicas that one step removes, and at least one replica
    step_s: float  # between two steps
    margin: float  # by which the load may grow without bringing back what a step removes
    spare: float  # by which the load may grow at once without missing the objective


PRESETS = {
    "steady": Pace(
        up_s=10,
        down_s=120,
        zero_s=600,
        panic=2,
        grow=1,
        shrink=0.25,
        step_s=10,
        margin=0.1,
        spare=0,
    ),
    "bursty": Pace(
        up_s=2,
        down_s=300,
        zero_s=900,
        panic=1.5,
        grow=2,
        shrink=0.25,
        step_s=5,
        margin=0.1,
        spare=0.25,
    ),
    "cheap": Pace(
        up_s=20, down_s=30, zero_s=60, panic=3, grow=1, shrink=0.5, step_s=10, margin=0.05, spare=0
    ),
}
"""By name. `steady` is for load that changes in minutes, `bursty` for load that changes in seconds,
`cheap` for load that may wait."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of each week with a minimum of replicas."""

    days: tuple[int, ...]  # on which it begins; 0 is Monday
    start: int  # minutes after midnight
    end: int  # minutes after midnight; of the next day if not after `start`
    zone: str  # IANA name
    min_replicas: int

    def holds(self, now: float) -> bool:
        """Return whether `now`, in seconds since 1970, is in the window, by the zone's clock."""
        local = datetime.datetime.fromtimestamp(now, _zone(self.zone))
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        evening = today in self.days and minute >= self.start
        return evening or ((today - 1) % 7 in self.days and minute < self.end)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that the policy knows beside metrics, state and time."""

    min_replicas: int
    max_replicas: int
    target_ongoing: float  # requests per replica to aim for, where there is no objective
    p95_ms: float | None  # the objective: 95 % of requests are answered within it
    pace: Pace
    windows: tuple[Window, ...] = ()

    def floor(self, now: float) -> int:
        """Return the fewest replicas at this time."""
        open_now = [one.min_replicas for one in self.windows if one.holds(now)]
        return min(self.max_replicas, max([self.min_replicas, *open_now]))


@functools.cache
def _zone(name: str) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(name)
