"""Numbers with their intervals, and what two models on the same rows differ by."""

from __future__ import annotations

from typing import Literal

import pydantic

from eagleray import messages

Outcome = Literal["better", "worse", "no difference"]


class Part(pydantic.BaseModel, frozen=True, extra="allow"):
    """A part of an evaluation; unknown fields stay in it."""


class Estimate(Part):
    """A number and its 95 % interval; None where the rows give none."""

    value: float
    low: float | None = None
    high: float | None = None

    def sides(self, form: str = ".4g", *, flipped: bool = False) -> str:
        """`0.89 to 0.93`, empty without an interval; `flipped` is that of `-value`."""
        if self.low is None or self.high is None:
            return ""
        low, high = (-self.high, -self.low) if flipped else (self.low, self.high)
        return f"{messages.number(low, form)} to {messages.number(high, form)}"

    def between(self, form: str = ".4g", *, flipped: bool = False) -> str:
        """`, 95 % interval 0.89 to 0.93`, to stand behind the value; empty without an interval."""
        sides = self.sides(form, flipped=flipped)
        return sides and f", 95 % interval {sides}"


class Verdict(Part):
    """Two models on the same rows: `difference` is ours minus theirs, by the selecting metric."""

    outcome: Outcome
    metric: str
    difference: Estimate

    def __str__(self) -> str:
        gap = self.difference
        return f"{self.outcome} ({self.metric} {messages.number(gap.value, '+.4g')}{gap.between()})"
