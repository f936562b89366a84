"""`datetime`: seconds since 1970 in UTC to the millisecond."""

import contextlib
import datetime
import math
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import numpy as np

from eagleray.learn import features
from eagleray.learn.columns import fields, values
from eagleray.learn.columns.arrow import Distinct
from eagleray.learn.columns.column import Column, Raw, Tolerance
from eagleray.learn.columns.kind import Guess
from eagleray.learn.columns.number import NumberKind

CALENDAR = (-62_135_596_800, 253_402_300_799)
"""The first and the last second of the years 1 to 9999."""

DAY_S = 86_400

_DAYS = ("%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_NAMED_DAYS = ("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y")
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_FORMATS = (
    *(day + time for day in (*_DAYS, *_NAMED_DAYS) for time in _TIMES),
    "%Y-%m-%d %H:%M:%S UTC",
    "%Y-%m-%d %H:%M:%S.%f UTC",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a %b %d %H:%M:%S %z %Y",
)


class Datetime(NumberKind):
    name = "datetime"
    need = "a date or time in ISO 8601"
    native = (datetime.date, np.datetime64)
    is_ordered = True
    is_time = True
    encoded = features.Number(cyclic=True)
    json_schema: ClassVar = {
        "anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "number", "minimum": CALENDAR[0], "maximum": CALENDAR[1]},
            {"type": "string", "pattern": r"^\s*[0-9]{1,11}\s*$"},
        ]
    }

    def infer(self, texts: Distinct, *, named: bool) -> Guess | None:
        """Dates, if all formats that fit give the same dates."""
        first = texts.sample[0]
        if not any(map(str.isdigit, first)):
            return None
        if _times(texts.sample, None) and not texts.not_plain("time"):
            return Guess()  # no other format has such texts
        readings: dict[tuple[float, ...], str | None] = {}
        for written in (None, *_FORMATS):
            if _times(texts.sample, written) and (read := _times(texts.counts, written)):
                readings.setdefault(read, written)
        if len(readings) == 1:
            return Guess({"written": next(iter(readings.values()))})
        note = (
            f"{first!r} is ambiguous (day or month first), so it is not read as a date;"
            " write dates as 2024-12-31"
        )
        return Guess(note=note, fits=False) if readings else None

    def plain(self, column: Column) -> str:
        return "time"

    def read(self, column: Column, value: Any) -> float:
        return values.datetime(value, column.written)

    def write(self, value: float) -> Any:
        return values.isoformat(value)

    def parse(self, column: Column, raw: Raw, tolerance: Tolerance | None = None) -> np.ndarray:
        if not isinstance(raw, np.ndarray) or raw.dtype.kind != "M":
            return super().parse(column, raw, tolerance)
        seconds = raw.astype("datetime64[ms]").astype(np.int64) / 1000
        known = (seconds >= CALENDAR[0]) & (seconds <= CALENDAR[1])  # NaT is far below
        return np.where(known, seconds, math.nan)

    def traits(self, array: np.ndarray) -> np.ndarray:
        """Its age, and its place in the day, the week and the year."""
        days = array / DAY_S
        return np.stack([array, array % DAY_S, days // 1 % 7, days % 365.25], axis=1)

    def blurred(self, array: np.ndarray) -> np.ndarray:
        """The day."""
        days: np.ndarray = array // DAY_S
        return days

    def field(
        self, column: Column, examples: Sequence[Any], extremes: fields.Range | None
    ) -> fields.Field:
        """A date where all examples are at midnight, else a time."""
        seconds = self.parse(column, examples)
        (first,) = self.to_json(seconds[:1])
        if (seconds[~np.isnan(seconds)] % DAY_S == 0).all():
            return fields.Field(type="date", hint="a date", value=(first or "")[:10])
        value = (first or "").partition("+")[0].removesuffix(".000")
        return fields.Field(type="datetime-local", hint="a time in UTC", value=value)


DATETIME = Datetime()


def _times(texts: Collection[str], written: str | None) -> tuple[float, ...] | None:
    """Read all texts in this format, ISO 8601 for None; None where one does not fit."""
    if written is None and not all("-" in text or "T" in text for text in texts):
        return None  # 20240131 alone is a number
    with contextlib.suppress(ValueError, OverflowError):
        return tuple(values.datetime(_time(text, written)) for text in texts)
    return None


def _time(text: str, written: str | None) -> datetime.datetime:
    if written is None:
        return datetime.datetime.fromisoformat(text)
    return datetime.datetime.strptime(text, written)
