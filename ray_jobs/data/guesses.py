"""What a column of texts is: numbers, truths, pictures, times, categories or text.

Each guess is about the column as a whole, from its different texts and how often each stands.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from eagleray import pictures, schema, texts, values
from ray_jobs.data.known import SAMPLE, Known

MOST_ODD_SHARE, MOST_ODD = 0.01, 5
"""So many rows, and so many different texts, may be no number in a column of numbers."""

MOST_GIVEN_ODD_SHARE = 0.5
"""So many rows where the user says that they are numbers."""

_PAIRS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"on", "off"})
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

    @property
    def plain(self) -> str:
        """Which texts need no look each, a key of `eagleray.texts.PLAIN`; empty for none."""
        kind = "comma" if self.decimal_comma else self.type
        return kind if kind in texts.PLAIN else ""


def infer(known: Known) -> Guess:
    """The best guess for these texts."""
    guesses: tuple[Callable[[Known], Guess | None], ...]
    guesses = (_numeric, _boolean, _image, _datetime)
    return next((found for guess in guesses if (found := guess(known))), None) or _words(known)


def given(kind: schema.ColumnType, known: Known) -> Guess:
    """The type that the user has given, and how its values are written."""
    found = None
    if kind == "numeric":
        found = _numbers(known, share=MOST_GIVEN_ODD_SHARE, most=sys.maxsize)
    elif kind == "datetime" and known.sample:
        found = _datetime(known)
    return found if found is not None and found.type == kind else Guess(kind)


def _numeric(known: Known) -> Guess | None:
    found = _numbers(known, share=MOST_ODD_SHARE, most=MOST_ODD)
    return None if found is None or any(map(is_code, known.beside(found.plain))) else found


def _numbers(known: Known, *, share: float, most: int) -> Guess | None:
    """Numbers, of which at most this share of rows and this many texts are none."""
    for comma in (False, True):
        if len(odd(known.sample, comma)) > max(1, len(known.sample) // 2):
            continue
        guess = Guess("numeric", decimal_comma=comma)
        counts = known.beside(guess.plain)
        others, most_rows = odd(counts, comma), share * known.rows(guess.plain)
        if len(others) <= most and sum(counts[text] for text in others) <= most_rows:
            return replace(guess, odd=tuple(others))
    return None


def is_code(text: str) -> bool:
    """Whether this is a number by its letters alone, such as 01067, whose zero counts."""
    return re.fullmatch(r"0\d+", text) is not None


def odd(known: Iterable[str], comma: bool) -> list[str]:
    """Texts that are no numbers, in their order."""
    found = []
    for text in known:
        try:
            values.number(text, comma=comma)
        except ValueError:
            found.append(text)
    return found


def _boolean(known: Known) -> Guess | None:
    words = {text.casefold() for text in known.sample}
    return Guess("boolean") if words in _PAIRS and len(known.sample) < SAMPLE else None


def _image(known: Known) -> Guess | None:
    encoded = all(map(pictures.is_encoded, known.sample))
    return Guess("image") if encoded and all(map(pictures.is_encoded, known.counts)) else None


def _datetime(known: Known) -> Guess | None:
    """Dates, where all ways to read them agree; else a guess that says that they do not."""
    first = known.sample[0]
    if not any(map(str.isdigit, first)):
        return None
    if _times(known.sample, None) and not known.beside("datetime"):
        return Guess("datetime")  # no other format has such texts
    readings: dict[tuple[float, ...], str | None] = {}
    for written in (None, *_WRITTEN):
        if _times(known.sample, written) and (read := _times(known.counts, written)):
            readings.setdefault(read, written)
    if len(readings) == 1:
        return Guess("datetime", written=next(iter(readings.values())))
    return replace(_words(known), ambiguous=first) if readings else None


def _times(known: Collection[str], written: str | None) -> tuple[float, ...] | None:
    """All texts read in this format, or in ISO 8601 for None; None where one is not."""
    with contextlib.suppress(ValueError, OverflowError):
        if written is not None:
            return tuple(values.moment(_written(text, written)) for text in known)
        if all("-" in text for text in known):
            return tuple(values.moment(datetime.datetime.fromisoformat(text)) for text in known)
    return None


def _written(text: str, written: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, written)


def _words(known: Known) -> Guess:
    """Text where many values are different, and are long or almost all different."""
    counts = known.counts
    rows, distinct = counts.total(), len(counts)
    words = sum(len(text.split()) for text in counts) / distinct
    letters = sum(map(len, counts)) / distinct
    mostly_different = distinct * 2 > rows
    if (words >= 3 or letters >= 40) and (distinct > 100 or mostly_different):
        return Guess("text")
    return Guess("text" if distinct > 100 and mostly_different else "categorical")
