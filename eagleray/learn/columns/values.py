"""One spelling for each kind of value, whatever table, file or request it came from.

Each function takes one raw value and gives the canonical one, or raises ValueError. Columns and
what they accept as missing are the business of `eagleray.learn.schema`.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
from decimal import Decimal

import numpy as np

UNWRITTEN = frozenset({"", "?", "na", "n/a", "#n/a", "<na>", "nan", "null"})
"""What stands for a missing value in any column but text, compared without regard to case."""

PLACEHOLDERS = UNWRITTEN | {
    "-",
    "--",
    ".",
    "..",
    "none",
    "nil",
    "missing",
    "unknown",
    "nat",
    "#value!",
}
"""What also does where numbers, truths or moments are expected; among categories it may be one."""

TRUE = frozenset({"true", "yes", "y", "t", "on", "1", "1.0"})
FALSE = frozenset({"false", "no", "n", "f", "off", "0", "0.0"})

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)
_NUMBER = re.compile(
    r"([+-]?)\s?[$€£¥]?\s?"
    r"(\d{1,3}(?:[,'\u2019\s]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"\s?[%$€£¥]?"
)
_SEPARATOR = re.compile(r"[,'\u2019\s]")
_SWAP = str.maketrans(",.", ".,")


@functools.lru_cache(maxsize=1024)
def markers(usual: frozenset[str], extra: tuple[str, ...] = ()) -> frozenset[str]:
    """Texts, in lower case, that stand for a missing value: the usual ones and others."""
    return usual | {marker.strip().casefold() for marker in extra}


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        number(text)
    except ValueError:
        return False
    return True


def number(value: object, *, comma: bool = False) -> float:
    """A number; text may hold thousands separators, a currency sign or a per cent sign.

    Args:
        value: the raw value.
        comma: text is written with a decimal comma, such as `1.234,5`.
    """
    if isinstance(value, str):
        return _number_text(value.strip().translate(_SWAP) if comma else value.strip())
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, int | float | Decimal):
        raise ValueError("no number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _number_text(text: str) -> float:
    if "_" not in text:
        try:
            return float(text)
        except ValueError:
            pass
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError("no number")
    return float(match[1] + _SEPARATOR.sub("", match[2]))


def truth(value: object) -> float:
    """1.0 or 0.0 for a boolean, for 0 and 1, and for words such as yes and no."""
    word = category(value).casefold()
    if word in TRUE:
        return 1.0
    if word in FALSE:
        return 0.0
    raise ValueError("no truth")


def moment(value: object, written: str | None = None) -> float:
    """Seconds since 1970 in UTC, to the millisecond; a time without a zone is taken as UTC.

    Args:
        value: a date, a time, text in ISO 8601 or in the format `written`, a number of eight digits
            (a date such as 20240131), or any other number (seconds since 1970).
        written: a format of `datetime.strptime`.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime.datetime):
        return _seconds(value)
    if isinstance(value, datetime.date):
        return _seconds(datetime.datetime(value.year, value.month, value.day))
    text = category(value)
    try:
        return _seconds(datetime.datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        pass
    if written is not None:
        return _seconds(datetime.datetime.strptime(text, written))
    return _seconds(_EPOCH + datetime.timedelta(seconds=float(text)))


def _seconds(time: datetime.datetime) -> float:
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    return (time - _EPOCH) // _MILLISECOND / 1000


def isoformat(seconds: float) -> str:
    """The text that `moment` reads these seconds from."""
    time = _EPOCH + datetime.timedelta(milliseconds=round(seconds * 1000))
    return time.isoformat(timespec="milliseconds")


def category(value: object) -> str:
    """The name of a category: whole numbers are spelled alike, 3, 3.0 and "3.0"."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, str):
        text = value.strip()
        return text[:-2] if text.endswith(".0") and text[:-2].lstrip("-").isdigit() else text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int | float):
        return str(value)
    raise ValueError("no name")
