"""Arrivals of requests: shapes of load, and traces from files."""

from __future__ import annotations

import csv
import datetime
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eagleray import errors

Times = NDArray[np.float64]
"""Seconds since the start, ascending."""

MOST = 20_000_000
"""Requests of one simulation; more would take hours and gigabytes."""


def rates(shape: str, seconds: int, peak: float) -> Times:
    """Return requests per second, one value for each second, of at most `peak`.

    `steady` has the peak all the time, `ramp` grows to it from a tenth, `spike` jumps from an
    eighth to it after a third of the time and back after two thirds, and `diurnal` swings between a
    tenth and the peak once.
    """
    return np.array([peak * SHAPES[shape](second / seconds) for second in range(seconds)])


SHAPES: dict[str, Callable[[float], float]] = {
    "steady": lambda _: 1.0,
    "diurnal": lambda part: 0.55 - 0.45 * math.cos(2 * math.pi * part),
    "spike": lambda part: 1.0 if 1 / 3 <= part < 2 / 3 else 1 / 8,
    "ramp": lambda part: 0.1 + 0.9 * part,
}
"""Share of the peak by part of the time."""


def arrivals(rate: Times, seed: int) -> Times:
    """Return times of requests that come by chance (Poisson) at these rates, a value a second."""
    if rate.sum() > MOST:
        law = f"a simulation must have at most {MOST:,} requests"
        raise errors.UserError(
            f"{law}, but got about {rate.sum():,.0f}; lower the rate or the time"
        )
    random = np.random.default_rng(seed)
    second = np.repeat(np.arange(len(rate)), random.poisson(rate))
    return np.sort(second + random.random(len(second)))


def read(path: Path, seed: int) -> tuple[Times, float]:
    """Read a CSV file of timestamps, or of `seconds,rate`; a line of names may come first.

    Timestamps are seconds or ISO 8601. A rate, in requests per second, holds until the next line;
    the last one as long as the one before. Returns the times and the timestamp of the start.

    Raises:
        UserError: the file cannot be read, or a line is neither.
    """
    lines = _lines(path)
    rows = [[_number(path, number, cell) for cell in cells] for number, cells in lines]
    widths = {len(row) for row in rows}
    if widths not in ({1}, {2}):
        law = f"{path}: must have lines of a timestamp, or of seconds,rate"
        raise errors.UserError(f"{law}, but got {_found(widths)}")
    _check(path, [number for number, _ in lines], rows)
    start = min(row[0] for row in rows)
    if widths == {1}:
        return np.sort(np.array([row[0] for row in rows])) - start, start
    return arrivals(_spread(rows), seed), start


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the filled lines with their numbers, without a first one of names."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = [(at, row) for at, row in enumerate(csv.reader(file), 1) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise errors.UserError(f"{path}: must be a CSV file that can be read: {cause}") from cause
    names = found and all(_value(cell) is None for cell in found[0][1])
    return found[1:] if names else found


def _value(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        try:
            moment = datetime.datetime.fromisoformat(cell.strip())
        except ValueError:
            return None
        return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
    return number if math.isfinite(number) else None


def _number(path: Path, line: int, cell: str) -> float:
    number = _value(cell)
    if number is None:
        law = "must be seconds, a rate or an ISO 8601 timestamp"
        raise errors.UserError(f"{path}:{line}: {law}, but got {cell[:40]!r}")
    return number


def _check(path: Path, numbers: Sequence[int], rows: Sequence[Sequence[float]]) -> None:
    """Raise where times of rates do not ascend, or a rate is negative."""
    for at, (number, row) in enumerate(zip(numbers, rows, strict=True)):
        if len(row) == 2 and row[1] < 0:
            raise errors.UserError(
                f"{path}:{number}: a rate must be at least 0, but got {row[1]:g}"
            )
        if len(row) == 2 and at and row[0] <= rows[at - 1][0]:
            law = f"seconds must ascend, and the line before has {rows[at - 1][0]:g}"
            raise errors.UserError(f"{path}:{number}: {law}, but got {row[0]:g}")


def _spread(rows: Sequence[Sequence[float]]) -> Times:
    """Return a rate for each second, from those of the lines."""
    at = np.array([row[0] for row in rows]) - rows[0][0]
    last = at[-1] - at[-2] if len(at) > 1 else 1.0
    seconds = np.arange(max(1, math.ceil(at[-1] + last)))
    held = np.array([row[1] for row in rows])
    return np.asarray(held[np.searchsorted(at, seconds, side="right") - 1])


def _found(widths: set[int]) -> str:
    return f"lines of {' and '.join(map(str, sorted(widths)))} values" if widths else "none"
