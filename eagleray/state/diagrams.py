"""What is drawn of a version's predictions, as values."""

import math

from eagleray.state.estimates import Part

_Z = 1.96  # of a 95 % interval


class Bin(Part):
    """Rows of which something is said with a probability."""

    said: float  # the mean probability
    was: float  # the share of which it was true
    rows: int

    @property
    def sides(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        spread = _Z * math.sqrt(self.was * (1 - self.was) / self.rows + _Z**2 / (4 * self.rows**2))
        middle, below = self.was + _Z**2 / (2 * self.rows), 1 + _Z**2 / self.rows
        return (middle - spread) / below, (middle + spread) / below


class Line(Part):
    """One series; `low` and `high` are 95 % intervals of `y`, if they are given."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


class Diagram(Part):
    """One picture.

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
