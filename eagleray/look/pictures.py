"""Pictures as inline SVG: lines, marks and intervals over two axes.

Colours are classes of style.css, so that a picture follows light, dark and print.

A picture is 360 units wide, so that its text is legible on a phone; wide ones scroll.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eagleray import messages

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 360.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 12.0, 12.0, 40.0
MOST_COLOURS = 7
"""Series beyond these are grey."""
_UNITS = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}
"""How thousands are written at an axis, where there is room for few letters."""
_LETTER = 6.5  # width of a letter in units, about
_LINE = 13.0  # least distance of two labels


@dataclass(frozen=True)
class Series:
    """Points of one series; `low` and `high` bound an interval of each `y`."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    marks: bool = False
    grey: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`; of `powers` of ten it has the exponents."""

    label: str
    low: float
    high: float
    powers: bool = False

    @classmethod
    def over(cls, label: str, values: Sequence[float], *, include: Sequence[float] = ()) -> Axis:
        """An axis that holds these values, with a margin."""
        finite = [one for one in [*values, *include] if math.isfinite(one)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        room = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
        return cls(label, low - room, high + room)

    @property
    def ticks(self) -> list[float]:
        """About five round numbers on the axis."""
        span = self.high - self.low
        raw = span / 5
        power = 10 ** math.floor(math.log10(raw))
        step = next(one * power for one in (1, 2, 5, 10) if one * power >= raw)
        step = max(1.0, step) if self.powers else step
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [(first + number) * step for number in range(count)]

    def written(self, value: float) -> str:
        """A number as it stands at the axis."""
        if self.powers:
            return f"1e{value:.0f}"
        unit = next((one for one in _UNITS if abs(value) >= max(one, 1e4)), 1.0)
        return f"{value / unit:.4g}{_UNITS.get(unit, '')}" if abs(value) > 1e-12 else "0"


def plot(
    series: Sequence[Series], x: Axis, y: Axis, *, says: str, diagonal: str = "", named: bool = True
) -> Markup:
    """Draw series over two axes; `says` is the picture's text for who cannot see it.

    `diagonal` names the line y = x. With `named`, lines have their names at their right ends.
    """
    labelled = named and len(series) > 1
    names = [one.name for one in series if not one.grey]
    room = min(110.0, 10 + _LETTER * max(map(len, names), default=0)) if labelled else 0.0
    frame = _Frame(x, y, right=RIGHT + room)
    parts = [*_grid(frame)]
    if diagonal:
        parts += _diagonal(frame, diagonal)
    for one in sorted(series, key=lambda one: not one.grey):
        parts += _drawn(frame, one)
    if labelled:
        parts += _names(frame, [one for one in series if not one.grey])
    return svg(parts, WIDTH, HEIGHT, says)


def dots(rows: Sequence[tuple[str, float, float | None, float | None]], label: str) -> Markup:
    """One value a line with its interval, as (name, value, low, high); the first is ours."""
    values = [one for row in rows for one in row[1:] if one is not None]
    says = "; ".join(_spoken(row) for row in rows)
    axis = Axis.over(label, values)
    height = TOP + 32 * len(rows) + BOTTOM
    frame = _Frame(axis, Axis("", 0, 1), left=24, right=24, height=height)
    parts = [*_ticks_x(frame)]
    for place, (name, value, low, high) in enumerate(rows):
        at, css = TOP + 32 * place + 20, "s0" if place == 0 else "grey"
        parts.append(text(8, at - 8, f"{name}: {_number(value)}", "start", "name"))
        if low is not None and high is not None:
            parts.append(_line(frame.x(low), at, frame.x(high), at, f"line {css}"))
        parts.append(f'<circle class="mark {css}" cx="{frame.x(value):.1f}" cy="{at:.1f}" r="4"/>')
    return svg(parts, WIDTH, height, f"{label}: {says}")


def svg(parts: Sequence[str], width: float, height: float, says: str) -> Markup:
    """A picture of these elements, which are escaped already."""
    from markupsafe import Markup, escape

    box = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    head = f'<svg class="plot" {box} role="img" aria-label="{escape(says)}">'
    return Markup("".join([head, *parts, "</svg>"]))  # noqa: S704 - every text in it is escaped


def text(x: float, y: float, text: str, anchor: str, css: str = "") -> str:
    """A text element."""
    from markupsafe import escape

    named = f' class="{css}"' if css else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


@dataclass(frozen=True)
class _Frame:
    """Where values are on a picture."""

    horizontal: Axis
    vertical: Axis
    left: float = LEFT
    right: float = RIGHT
    top: float = TOP
    height: float = HEIGHT

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM

    @property
    def end(self) -> float:
        return WIDTH - self.right

    def x(self, value: float) -> float:
        axis = self.horizontal
        return self.left + (value - axis.low) / (axis.high - axis.low) * (self.end - self.left)

    def y(self, value: float) -> float:
        axis = self.vertical
        return self.bottom - (value - axis.low) / (axis.high - axis.low) * (self.bottom - self.top)


def _grid(frame: _Frame) -> Iterator[str]:
    yield from _ticks_x(frame)
    for value in frame.vertical.ticks:
        at = frame.y(value)
        yield _line(frame.left, at, frame.end, at, "grid")
        yield text(frame.left - 4, at + 4, frame.vertical.written(value), "end")
    yield _turned((frame.top + frame.bottom) / 2, frame.vertical.label)


def _ticks_x(frame: _Frame) -> Iterator[str]:
    ticks = frame.horizontal.ticks
    for value in ticks:
        at = frame.x(value)
        yield _line(at, frame.top, at, frame.bottom, "grid")
        yield text(at, frame.bottom + 14, frame.horizontal.written(value), "middle")
    middle = (frame.left + frame.end) / 2
    yield text(middle, frame.bottom + 32, frame.horizontal.label, "middle")


def _diagonal(frame: _Frame, name: str) -> Iterator[str]:
    low = max(frame.horizontal.low, frame.vertical.low)
    high = min(frame.horizontal.high, frame.vertical.high)
    if low >= high:
        return
    yield _line(frame.x(low), frame.y(low), frame.x(high), frame.y(high), "diagonal")
    at = low + 0.72 * (high - low)
    over = max(0.0, frame.x(at) + 6 + _LETTER * len(name) - WIDTH)  # beyond the picture
    fall = (frame.y(low) - frame.y(high)) / (frame.x(high) - frame.x(low))
    yield text(frame.x(at) + 6 - over, frame.y(at) + 12 + fall * over, name, "start")


def _drawn(frame: _Frame, one: Series) -> Iterator[str]:
    css = "grey" if one.grey else f"s{one.colour % MOST_COLOURS}"
    points = [
        (frame.x(x), frame.y(y))
        for x, y in zip(one.x, one.y, strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]
    if one.low is not None and one.high is not None:
        for x, low, high in zip(one.x, one.low, one.high, strict=True):
            yield _line(frame.x(x), frame.y(low), frame.x(x), frame.y(high), f"line {css}")
    if one.marks:
        for x, y in points:
            yield f'<circle class="mark {css}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
        return
    if len(points) == 1:
        yield f'<circle class="mark {css}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline class="line {css}" points="{path}"/>'


def _names(frame: _Frame, series: Sequence[Series]) -> Iterator[str]:
    """The names at the right end of their lines, spread so that none is over another."""
    ends = sorted((frame.y(one.y[-1]), place) for place, one in enumerate(series) if len(one.y))
    below, placed = frame.top - _LINE, []
    for at, place in ends:
        below = max(at, below + _LINE)
        placed.append((below, place))
    over = max(0.0, below - frame.bottom) if placed else 0.0
    for at, place in placed:
        one = series[place]
        name = one.name if len(one.name) <= 15 else f"{one.name[:14]}…"
        yield text(
            frame.end + 5, at - over + 4, name, "start", f"name s{one.colour % MOST_COLOURS}"
        )


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _turned(y: float, text: str) -> str:
    """The label of the vertical axis."""
    from markupsafe import escape

    turn = f'transform="rotate(-90 10 {y:.1f})"'
    return f'<text x="10" y="{y + 3:.1f}" text-anchor="middle" {turn}>{escape(text)}</text>'


def _spoken(row: tuple[str, float, float | None, float | None]) -> str:
    name, value, low, high = row
    between = "" if low is None or high is None else f" ({_number(low)} to {_number(high)})"
    return f"{name} {_number(value)}{between}"


def _number(value: float) -> str:
    """A number with four digits: 0.25, 1,200, 1,234,000."""
    return "0" if abs(value) < 1e-12 else messages.number(value)
