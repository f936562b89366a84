"""Functions from a raw value that is not missing to a canonical one; ValueError for others."""

import datetime as dt
import functools
import math
import re
from collections.abc import Iterable
from decimal import Decimal

import numpy as np

MISSING = frozenset({"", "?", "na", "n/a", "#n/a", "<na>", "nan", "null"})
"""Lower-case texts that mean a missing value, in every column but those of kind text."""

_WORDS = {"-", "--", ".", "..", "none", "nil", "missing", "unknown", "nat", "n.a.", "(null)", r"\n"}
_SHEETS = {"#value!", "#div/0!", "#num!", "#ref!", "#name?"}
_ZERO_DATES = {"0000-00-00", "0000-00-00 00:00:00"}
PLACEHOLDERS = MISSING | _WORDS | _SHEETS | _ZERO_DATES
"""The same for numbers, booleans and datetimes; as a category, `none` may be a value."""

TRUE = frozenset({"true", "yes", "y", "t", "on", "1", "1.0"})
FALSE = frozenset({"false", "no", "n", "f", "off", "0", "0.0"})

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
_NUMBER = re.compile(
    r"([+-]?)\s?[$€£¥]?\s?"
    r"([1-9]\d{0,2}(?:[,'\u2019\s]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"\s?[%$€£¥]?"
)
_SEPARATOR = re.compile(r"[,'\u2019\s]")
_SWAP = str.maketrans(",.", ".,")
_MINUS = "\u2212"


@functools.lru_cache(maxsize=1024)
def markers(usual: frozenset[str], extra: tuple[str, ...] = ()) -> frozenset[str]:
    """Markers for a missing value, in lower case: the usual ones and extra ones."""
    return usual | {marker.strip().casefold() for marker in extra}


def pattern(words: Iterable[str]) -> dict[str, str]:
    """JSON Schema of a text that is one of these words, in any case and with blanks around it."""
    spelt = ("".join(map(_either_case, word)) for word in sorted(words))
    return {"type": "string", "pattern": rf"^\s*(?:{'|'.join(spelt)})\s*$"}


def is_number(text: str, *, comma: bool = False) -> bool:
    """Whether `number` reads the text."""
    try:
        number(text, comma=comma)
    except ValueError:
        return False
    return True


def number(value: object, *, comma: bool = False) -> float:
    """A number; text may have thousands separators, a currency or % sign, or a decimal `comma`.

    Text in parentheses is negative, as in accounts.
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


def _either_case(character: str) -> str:
    """The part of a pattern in the dialect of ECMA 262 that JSON Schema names."""
    if character.upper() != character and len(character.upper()) == 1:
        return f"[{character}{character.upper()}]"
    return f"\\{character}" if character in r"\^$.|?*+()[]{}/" else character


def _number_text(text: str) -> float:
    if "_" not in text:
        try:
            return float(text)
        except ValueError:
            pass
    is_negative = text.startswith("(") and text.endswith(")")
    match = _NUMBER.fullmatch(text[1:-1] if is_negative else text.replace(_MINUS, "-"))
    if match is None or (is_negative and match[1]):
        raise ValueError("no number")
    sign = "-" if is_negative else match[1]
    return float(sign + _SEPARATOR.sub("", match[2]))


def boolean(value: object) -> float:
    """1.0 or 0.0 for a boolean, for 0 and 1, and for words such as yes and no."""
    word = category(value).casefold()
    if word in TRUE:
        return 1.0
    if word in FALSE:
        return 0.0
    raise ValueError("no boolean")


def datetime(value: object, written: str | None = None) -> float:
    """Seconds since 1970 in UTC, to the millisecond; a time without a zone is in UTC.

    The value is a date or time, text in ISO 8601 or in `written`, a format of `datetime.strptime`,
    a number of eight digits (a date such as 20240131), or any other number (seconds since 1970).
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dt.datetime):
        return _seconds(value)
    if isinstance(value, dt.date):
        return _seconds(dt.datetime(value.year, value.month, value.day))
    text = category(value)
    try:
        return _seconds(dt.datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        pass
    if written is not None:
        return _seconds(dt.datetime.strptime(text, written))
    return _seconds(_EPOCH + dt.timedelta(seconds=float(text)))


def _seconds(time: dt.datetime) -> float:
    if time.tzinfo is None:
        time = time.replace(tzinfo=dt.UTC)
    return (time - _EPOCH) // _MILLISECOND / 1000


def isoformat(seconds: float) -> str:
    """The text that `datetime` reads as these seconds."""
    time = _EPOCH + dt.timedelta(milliseconds=round(seconds * 1000))
    return time.isoformat(timespec="milliseconds")


def shown(time: str) -> str:
    """What `isoformat` gives, for people: a day where it is midnight."""
    return time.removesuffix("+00:00").removesuffix(".000").removesuffix("T00:00:00")


def category(value: object) -> str:
    """The name of a category; 3, 3.0 and "3.0" are one."""
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
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, int | float):
        return str(value)
    raise ValueError("no name")
