"""What a column of texts is: numbers, truths, pictures, times, categories or text.

Each guess is about the column as a whole, from its different texts and how often each stands.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from eagleray import pictures, schema, values

MOST_ODD_SHARE, MOST_ODD = 0.01, 5
"""So many rows, and so many different texts, may be no number in a column of numbers."""

SAMPLE = 200
"""Texts that are tried before all are."""

_PAIRS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})
_CODE = re.compile(r"0\d+")
_DAYS = ("%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_NAMED_DAYS = ("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y")
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_WRITTEN = (
    *(day + time for day in (*_DAYS, *_NAMED_DAYS) for time in _TIMES),
    "%a, %d %b %Y %H:%M:%S %z",
    "%a %b %d %H:%M:%S %z %Y",
)


@dataclass(frozen=True)
class Guess:
    """A type, and how its values are written.

    Attributes:
        odd: texts among numbers that are none, to be taken as missing.
        ambiguous: a text that may be one of two dates, where the column is no datetime for it.
    """

    type: schema.ColumnType
    decimal_comma: bool = False
    odd: tuple[str, ...] = ()
    written: str | None = None
    ambiguous: str | None = None


def infer(known: Counter[str]) -> Guess:
    """The best guess; `known` are the texts that no marker for missing values is among."""
    guesses: tuple[Callable[[Counter[str]], Guess | None], ...]
    guesses = (_numeric, _boolean, _image, _datetime)
    return next((found for guess in guesses if (found := guess(known))), _words(known))


def given(kind: schema.ColumnType, known: Counter[str]) -> Guess:
    """The type that the user has given, and how its values are written."""
    found = None
    if kind == "numeric":
        found = _numbers(known, share=0.5, most=len(known))
    elif kind == "datetime" and known:
        found = _datetime(known)
    return found if found is not None and found.type == kind else Guess(kind)


def _numeric(known: Counter[str]) -> Guess | None:
    if any(_CODE.fullmatch(text) for text in known):
        return None  # such as 01067: a code, whose zero counts
    return _numbers(known, share=MOST_ODD_SHARE, most=MOST_ODD)


def _numbers(known: Counter[str], *, share: float, most: int) -> Guess | None:
    """Numbers, of which at most this share of rows and this many texts are none."""
    for comma in (False, True):
        sample = list(itertools.islice(known, SAMPLE))
        if len(_odd(sample, comma)) > max(1, len(sample) // 2):
            continue
        odd = _odd(known, comma)
        if len(odd) <= most and sum(known[text] for text in odd) <= share * known.total():
            return Guess("numeric", decimal_comma=comma, odd=tuple(odd))
    return None


def _odd(texts: Iterable[str], comma: bool) -> list[str]:
    odd = []
    for text in texts:
        try:
            values.number(text, comma=comma)
        except ValueError:
            odd.append(text)
    return odd


def _boolean(known: Counter[str]) -> Guess | None:
    words = {text.casefold() for text in itertools.islice(known, SAMPLE)}
    return Guess("boolean") if words in _PAIRS and len(known) < SAMPLE else None


def _image(known: Counter[str]) -> Guess | None:
    return Guess("image") if all(map(pictures.is_encoded, known)) else None


def _datetime(known: Counter[str]) -> Guess | None:
    """Dates, where all ways to read them agree; else a guess that says that they do not."""
    texts = list(known)
    if not any(map(str.isdigit, texts[0])):
        return None
    readings: dict[tuple[float, ...], str | None] = {}
    for written in (None, *_WRITTEN):
        if _times(texts[:SAMPLE], written) and (read := _times(texts, written)):
            readings.setdefault(read, written)
    if len(readings) == 1:
        return Guess("datetime", written=next(iter(readings.values())))
    return replace(_words(known), ambiguous=texts[0]) if readings else None


def _times(texts: list[str], written: str | None) -> tuple[float, ...] | None:
    """All texts read in this format, or in ISO 8601 for None; None where one is not."""
    with contextlib.suppress(ValueError, OverflowError):
        if written is not None:
            return tuple(values.moment(_written(text, written)) for text in texts)
        if all("-" in text for text in texts):
            return tuple(values.moment(datetime.datetime.fromisoformat(text)) for text in texts)
    return None


def _written(text: str, written: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, written)


def _words(known: Counter[str]) -> Guess:
    """Text where many values are different, and are long or almost all different."""
    rows, distinct = known.total(), len(known)
    words = sum(len(text.split()) for text in known) / distinct
    letters = sum(map(len, known)) / distinct
    mostly_different = distinct * 2 > rows
    if (words >= 3 or letters >= 40) and (distinct > 100 or mostly_different):
        return Guess("text")
    return Guess("text" if distinct > 100 and mostly_different else "categorical")
