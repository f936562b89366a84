"""Autoscaling of an endpoint tried out on a load, without the endpoint."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eagleray import errors

if TYPE_CHECKING:
    from serving.settings import Settings
    from serving.simulation import loads
    from serving.simulation.replicas import Moment, Outcome

BEGIN = 1_767_571_200.0  # Monday 2026-01-05, 00:00 UTC


@dataclass(frozen=True, kw_only=True)
class Load:
    """A load: the trace of a file, or one of `serving.simulation.loads.SHAPES`.

    Attributes:
        shape: `steady`, `diurnal`, `spike` or `ramp`.
        trace: a CSV file of timestamps or of `seconds,rate`, in place of a shape.
        rate: the most requests per second of a shape.
        minutes: how long a shape lasts.
        begin: when a shape begins, in seconds since 1970; a Monday by default.
        seed: of what comes by chance.
    """

    shape: str = "spike"
    trace: Path | None = None
    rate: float = 200.0
    minutes: float = 30.0
    begin: float = BEGIN
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Replica:
    """What each replica is like; measure a real one before you trust the figures.

    Attributes:
        service_ms: mean time that a request takes it.
        variation: standard deviation of that time, divided by the mean.
        start_s: time that it takes to start.
    """

    service_ms: float = 10.0
    variation: float = 1.0
    start_s: float = 6.0


@dataclass(frozen=True)
class Simulation:
    """What autoscaling made of a load.

    Attributes:
        objective_ms: the objective, or None.
        price: of a replica hour, or None.
        outcome: latencies, and the number of replicas over time.
    """

    objective_ms: float | None
    price: float | None
    outcome: Outcome

    @property
    def facts(self) -> dict[str, float | int | None]:
        """The figures that matter; latencies are in milliseconds, None where it is infinite."""
        running = [moment.running for moment in self.outcome.moments]
        hours = self.outcome.replica_s / 3600
        return {
            "requests": len(self.outcome.sent),
            "refused": self.outcome.refused,
            "replicas_least": min(running),
            "replicas_most": max(running),
            "replicas_mean": sum(running) / len(running),
            "changes": len(self.changes) - 1,
            "turns": self.outcome.turns,
            "p50_ms": self._ms(0.5),
            "p95_ms": self._ms(0.95),
            "objective_ms": self.objective_ms,
            "in_objective": self.objective_ms and self.outcome.within(self.objective_ms / 1000),
            "replica_hours": hours,
            "cost": None if self.price is None else hours * self.price,
        }

    @property
    def changes(self) -> list[Moment]:
        """The first moment, and each at which other replicas were wanted than before."""
        moments = self.outcome.moments
        later = (b for a, b in itertools.pairwise(moments) if a.wanted != b.wanted)
        return [moments[0], *later]

    def draw(self, path: Path) -> None:
        """Write a picture of load, replicas and latency; UserError if it cannot be written."""
        from serving.simulation import picture

        picture.draw(self.outcome, self.objective_ms, path)

    def __str__(self) -> str:
        return "\n".join(f"{name:<10} {text}" for name, text in self._lines())

    def _lines(self) -> Sequence[tuple[str, str]]:
        facts = self.facts
        refused = f", {facts['refused']:,} of them refused" if facts["refused"] else ""
        within = facts["in_objective"]
        objective = "none" if within is None else f"{within:.2%} within {self.objective_ms:g} ms"
        cost = "" if self.price is None else f", {facts['cost']:.2f} at {self.price:g} an hour"
        return [
            ("requests", f"{facts['requests']:,}{refused}"),
            (
                "replicas",
                f"{facts['replicas_least']} to {facts['replicas_most']}, mean"
                f" {facts['replicas_mean']:.1f}; {facts['changes']} changes, {facts['turns']} of"
                " direction",
            ),
            ("latency", f"p50 {_text(facts['p50_ms'])}, p95 {_text(facts['p95_ms'])}"),
            ("objective", objective),
            ("cost", f"{facts['replica_hours']:.2f} replica hours{cost}"),
        ]

    def _ms(self, share: float) -> float | None:
        seconds = self.outcome.percentile(share)
        return None if seconds == float("inf") else 1000 * seconds


def simulate(
    load: Load,
    settings: Settings,
    *,
    replica: Replica | None = None,
    price: float | None = None,
) -> Simulation:
    """Run the policy of an endpoint on a load.

    Args:
        load: arrivals of requests.
        settings: of the endpoint, from `endpoints.read`.
        replica: what its replicas are like.
        price: of a replica hour.

    Raises:
        UserError: the trace or an option is invalid.
    """
    from serving.autoscaling import policy
    from serving.simulation import replicas

    (sent, begin), like, plan = _arrivals(load), replica or Replica(), settings.plan()
    kind = replicas.Kind(
        service_s=like.service_ms / 1000,
        variation=like.variation,
        start_s=like.start_s,
        report_s=settings.metrics_interval_s,
        look_back_s=settings.look_back_s,
    )
    first = plan.floor(begin)
    scaler = policy.Scaler(plan)
    outcome = replicas.simulate(sent, kind, scaler, replicas=first, begin=begin, seed=load.seed)
    return Simulation(settings.p95_ms, price, outcome)


def _arrivals(load: Load) -> tuple[loads.Times, float]:
    from serving.simulation import loads

    if load.trace is not None:
        return loads.read(load.trace, load.seed)
    if load.shape not in loads.SHAPES:
        law = f"--load must be one of {', '.join(loads.SHAPES)}"
        raise errors.UserError(f"{law}, but got {load.shape}")
    rates = loads.rates(load.shape, max(1, round(60 * load.minutes)), load.rate)
    return loads.arrivals(rates, load.seed), load.begin


def _text(ms: float | None) -> str:
    return "infinite" if ms is None else f"{ms:.1f} ms"
