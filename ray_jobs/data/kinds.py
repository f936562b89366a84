"""The type of one column, from its values. docs/data.md has the rules for people.

A column is judged as a whole: `none` is a missing number where the rest are numbers, and a category
where it is one among others.
"""

from __future__ import annotations

import datetime
import itertools
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from types import NoneType

import numpy as np

from eagleray import errors, pictures, schema, values
from eagleray.texts import Texts
from ray_jobs.data import guesses
from ray_jobs.data.known import SAMPLE, Known

LONGEST_SIDE = 128
"""Pictures of more pixels a side are made smaller."""

PICTURES_LOOKED_AT = 1000

_ARRAYS: dict[str, schema.ColumnType] = {"b": "boolean", "M": "datetime"}


@dataclass(frozen=True)
class Found:
    """A column, its canonical values, and what people should know of it."""

    column: schema.Column
    array: np.ndarray
    notes: tuple[str, ...] = ()


def find(
    name: str,
    raw: schema.Raw,
    kind: schema.ColumnType | None = None,
    marks: tuple[str, ...] = (),
) -> Found | None:
    """The column's type and canonical values; None where all values are missing.

    Args:
        name: the column's name.
        raw: its values.
        kind: the type that the user has given, if so.
        marks: more texts that stand for missing values.

    Raises:
        DataError: values that the type, or any type, cannot hold.
    """
    native = _native(raw)
    known = Known([] if native else _texts(name, raw), values.markers("numeric", marks))
    if native is None and not known.sample:
        return None
    if kind is not None:
        guess = guesses.given(kind, known)
    else:
        guess = guesses.Guess(native) if native else guesses.infer(known)
    column = _draft(name, raw, guess, (*marks, *_markers(guess, known, marks)))
    array = schema.parse_column(column, raw)
    missing = missing_rows(array)
    if missing.all():
        return None
    return Found(_finished(column, array, missing, known), array, tuple(_notes(name, guess)))


def missing_rows(array: np.ndarray) -> np.ndarray:
    """Which rows of a canonical column are missing, as booleans (B)."""
    if array.dtype == object:
        gone: np.ndarray = array == None  # noqa: E711 (each value, not the array)
        return gone
    missing: np.ndarray = np.isnan(array.reshape(len(array), -1)).any(axis=1)
    return missing


def _native(raw: schema.Raw) -> schema.ColumnType | None:
    """The type that the values have already; None for text and mixtures."""
    if isinstance(raw, Texts):
        return None
    if isinstance(raw, np.ndarray):
        return _ARRAYS.get(raw.dtype.kind, "numeric")
    kinds = set(map(type, raw)) - {NoneType}
    if not kinds:
        return None
    if all(issubclass(kind, list | tuple | np.ndarray | bytes) for kind in kinds):
        return "image"
    if all(issubclass(kind, datetime.date) for kind in kinds):
        return "datetime"
    truths = {kind for kind in kinds if issubclass(kind, bool | np.bool_)}
    if kinds == truths:
        return "boolean"
    if not truths and all(issubclass(kind, int | float | Decimal | np.number) for kind in kinds):
        return "numeric"
    return None


def _texts(name: str, raw: schema.Raw) -> Texts | list[str | None]:
    if isinstance(raw, Texts):
        return raw
    words: list[str | None]
    words = schema.parse_column(schema.Column(name=name, type="text"), raw).tolist()
    return words


def _markers(guess: guesses.Guess, known: Known, marks: tuple[str, ...]) -> list[str]:
    """Markers for missing values that the column holds, and texts that are taken for such."""
    gone = values.markers(guess.type, marks)
    seen = {text for text in known.marked(guess.plain) if text.casefold() in gone}
    return sorted((seen | set(guess.odd)) - set(marks))


def _draft(
    name: str, raw: schema.Raw, guess: guesses.Guess, missing: tuple[str, ...]
) -> schema.Column:
    """What is needed to parse the column."""
    return schema.Column(
        name=name,
        type=guess.type,
        decimal_comma=guess.decimal_comma,
        missing=missing,
        written=guess.written,
        image_shape=_shape(name, raw) if guess.type == "image" else None,
    )


def _finished(
    column: schema.Column, array: np.ndarray, missing: np.ndarray, known: Known
) -> schema.Column:
    """The column with what its parsed values say."""
    whole, categories = False, None
    if column.type == "numeric":
        present = array[~missing]
        whole = _are_whole(present[:SAMPLE]) and _are_whole(present)
    elif column.type == "boolean":
        words = known.counts or ["false", "true"]
        categories = tuple(sorted(words, key=lambda word: (values.truth(word), word)))
    elif column.type == "categorical":
        names = sorted(set(array[~missing].tolist()))
        categories = tuple(names) if len(names) <= schema.MOST_LISTED else None
    found = {"nullable": bool(missing.any()), "integer": whole, "categories": categories}
    return column.model_copy(update=found)


def _are_whole(numbers: np.ndarray) -> bool:
    return bool((numbers == np.floor(numbers)).all() and np.abs(numbers).max() < 2**53)


def _shape(name: str, raw: schema.Raw) -> tuple[int, ...]:
    """(C, H, W): the most channels; the most frequent height and width, at most `LONGEST_SIDE`."""
    shapes: Counter[tuple[int, ...]] = Counter()
    for value in itertools.islice(
        (value for value in raw if value is not None), PICTURES_LOOKED_AT
    ):
        try:
            shapes[pictures.decode(value).shape] += 1
        except ValueError as cause:
            shown = repr(value)[:60]
            raise errors.DataError(f"{name}: a picture is needed, but got {shown}") from cause
    if not shapes:
        return 1, 1, 1
    _, height, width = max(shapes, key=lambda shape: (shapes[shape], shape))
    smaller = max(1.0, max(height, width) / LONGEST_SIDE)
    channels = max(shape[0] for shape in shapes)
    return channels, max(1, round(height / smaller)), max(1, round(width / smaller))


def _notes(name: str, guess: guesses.Guess) -> list[str]:
    notes = []
    if guess.odd:
        shown = ", ".join(map(repr, guess.odd[:3])) + (", …" if len(guess.odd) > 3 else "")
        notes.append(f"{name}: {shown} among numbers is taken as missing")
    if guess.ambiguous:
        notes.append(
            f"{name}: {guess.ambiguous!r} may have the day or the month first, so it is no date;"
            " write dates as 2024-12-31"
        )
    return notes
