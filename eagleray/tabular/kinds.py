"""The kind of one column, from its values. docs/data.md has the rules for people.

A column is judged as a whole: `none` is a missing number where the rest are numbers, and a category
where it is one among others.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType

import numpy as np

from eagleray.learn import columns, schema
from eagleray.learn.columns import ColumnKind, Distinct, Guess, values
from eagleray.learn.columns.arrow import Texts


@dataclass(frozen=True)
class Found:
    """A column, its canonical values, and what people should know of it."""

    column: schema.Column
    array: np.ndarray
    notes: tuple[str, ...] = ()


def find(
    name: str,
    raw: schema.Raw,
    kind: ColumnKind | None = None,
    marks: tuple[str, ...] = (),
) -> Found | None:
    """The column's kind and canonical values; None where all values are missing.

    Args:
        name: the column's name.
        raw: its values.
        kind: the one that the experiment names, if so.
        marks: more texts that stand for missing values.

    Raises:
        DataError: values that the kind, or any kind, cannot hold.
    """
    native = _native(raw)
    usual = values.markers(values.PLACEHOLDERS, marks)
    texts = Distinct([] if native else _texts(name, raw), usual)
    if native is None and not texts.sample:
        return None
    kind, guess, notes = _guess(kind or native, texts)
    column = _draft(name, kind, guess, texts, marks)
    column = column.model_copy(update=kind.raw_fields(name, raw))
    array = schema.parse_column(column, raw)
    missing_B = columns.missing_rows(array)
    if missing_B.all():
        return None
    fields = {"nullable": bool(missing_B.any()), **kind.parsed_fields(array, missing_B, texts)}
    noted = tuple(f"{name}: {note}" for note in (*notes, guess.note) if note)
    return Found(column.model_copy(update=fields), array, noted)


def _native(raw: schema.Raw) -> ColumnKind | None:
    """The kind that the values have already; None for text and mixtures."""
    if isinstance(raw, Texts):
        return None
    types = {raw.dtype.type} if isinstance(raw, np.ndarray) else set(map(type, raw)) - {NoneType}
    return next((kind for kind in columns.asked() if types and kind.holds(types)), None)


def _texts(name: str, raw: schema.Raw) -> Texts | list[str | None]:
    if isinstance(raw, Texts):
        return raw
    words: list[str | None]
    words = schema.parse_column(schema.Column(name=name, type=columns.TEXT.name), raw).tolist()
    return words


def _guess(named: ColumnKind | None, texts: Distinct) -> tuple[ColumnKind, Guess, list[str]]:
    """The kind, how its values are written, and why the texts are not of another kind."""
    notes: list[str] = []
    for kind in [named] if named else columns.asked():
        guess = kind.infer(texts, named=named is not None) if texts.sample else None
        if guess is not None and guess.fits:
            return kind, guess, notes
        if guess is not None:
            notes.append(guess.note)
    return named or columns.CATEGORICAL, Guess(), [] if named else notes


def _draft(
    name: str, kind: ColumnKind, guess: Guess, texts: Distinct, marks: tuple[str, ...]
) -> schema.Column:
    """The column with the markers for missing values that it holds."""
    column = schema.Column(name=name, type=kind.name, missing=marks, **guess.fields)
    markers = column.markers
    seen = {text for text in texts.marked(kind.plain(column)) if text.casefold() in markers}
    more = sorted((seen | set(guess.missing)) - set(marks))
    return column.model_copy(update={"missing": (*marks, *more)})
