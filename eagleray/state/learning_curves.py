"""How a winner's configuration does by the number of rows that it is trained on."""

from __future__ import annotations

from typing import Literal

from eagleray.state.estimates import Estimate, Part

Outcome = Literal["helps", "hardly", "unclear"]


class CurvePoint(Part):
    """A training on some of the rows, judged on the test part."""

    rows: int
    score: Estimate


class PowerLaw(Part):
    """The error by the number of rows: `floor` and `factor` times (n / `rows`) to -`exponent`."""

    rows: int  # all of the training part
    floor: float
    factor: float
    exponent: float

    def error(self, rows: float) -> float:
        """The error with so many rows."""
        return self.floor + float(self.factor * (rows / self.rows) ** -self.exponent)


class LearningCurve(Part):
    """One trial's configuration, without threshold and calibration, on nested shares of the rows.

    Gains are changes of the metric for the better, positive whichever way is better.
    """

    metric: str
    mode: Literal["max", "min"]
    points: list[CurvePoint]  # the fewest rows first, all of them last
    law: PowerLaw  # of the metric's distance from its best value, 1 or 0
    last: Estimate  # gain from the last share to all rows
    gain: Estimate  # what twice the rows would bring by the law
    outcome: Outcome
    seconds: float = 0.0  # that all of it took

    def expected(self, rows: float) -> float:
        """The metric with so many rows by the law."""
        error = self.law.error(rows)
        return 1 - error if self.mode == "max" else error

    def __str__(self) -> str:
        """A clause whose subject is the version."""
        how = {
            "helps": "would be better with more data",
            "hardly": "would hardly be better with more rows",
            "unclear": "may or may not be better with more rows",
        }
        return f"{how[self.outcome]}: {self.says}"

    @property
    def says(self) -> str:
        """What twice the rows would bring, and what the last share brought."""
        change, fewer = ("lower", "raise")[self.mode == "max"], self.points[-2].rows
        fell = (self.last.value >= 0) == (self.mode == "min")
        return (
            f"twice the rows ({2 * self.law.rows:,}) would {change} {self.metric} by about"
            f" {self.gain.value:.2g}{self.gain.between('.2g')}; from {fewer:,} to"
            f" {self.law.rows:,} rows it {'fell' if fell else 'rose'} by {abs(self.last.value):.2g}"
        )
