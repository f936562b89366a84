"""Diagrams of a version's predictions, as values that are kept with its evaluation."""

import math

from eagleray.state.estimates import Part

_Z = 1.96  # of a 95 % interval


class Bin(Part):
    """Rows with about the same predicted probability, and how often it came true."""

    said: float  # the mean predicted probability
    was: float  # the share of rows for which it was true
    rows: int

    @property
    def sides(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        spread = _Z * math.sqrt(self.was * (1 - self.was) / self.rows + _Z**2 / (4 * self.rows**2))
        middle, below = self.was + _Z**2 / (2 * self.rows), 1 + _Z**2 / self.rows
        return (middle - spread) / below, (middle + spread) / below


class Line(Part):
    """A series of points; `low` and `high` are the ends of a 95 % interval of each `y`."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


class Diagram(Part):
    """A picture: its axes and series.

    Attributes:
        name: unique in an evaluation.
        title: what it is.
        says: one sentence: what it shows.
        x: name and unit of the axis.
        y: likewise.
        lines: the series.
        marks: whether points are drawn in place of lines.
        diagonal: what the line y = x stands for; empty for no such line.
        distance: of calibration, see `diagrams.calibration_error`; None for other pictures.
    """

    name: str
    title: str
    says: str
    x: str
    y: str
    lines: tuple[Line, ...]
    marks: bool = False
    diagonal: str = ""
    distance: float | None = None
