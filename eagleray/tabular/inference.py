"""The kind of one column, from its values. docs/data.md has the rules for people.

A column is judged as a whole: `none` is missing among numbers, and a category among others.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType

import numpy as np

from eagleray import errors, messages
from eagleray.learn import columns, schema
from eagleray.learn.columns import ColumnKind, Distinct, Guess, numeric, values
from eagleray.learn.columns.arrow import Texts

LOOKED_AT = 200
"""Different texts of a column that may settle how its table writes decimals."""
MOST_SPELLINGS = 20
"""Names with several spellings that are kept of a column."""


@dataclass(frozen=True)
class Inferred:
    """A column, its canonical values, and notes for people."""

    column: schema.Column
    array: np.ndarray
    notes: tuple[str, ...] = ()
    spellings: tuple[tuple[str, ...], ...] = ()  # texts that are read as one name


def infer(
    name: str,
    raw: schema.Raw,
    kind: ColumnKind | None = None,
    markers: tuple[str, ...] = (),
    *,
    comma: bool = False,
) -> Inferred | None:
    """Infer a column, of `kind` if it is given; None where all values are missing.

    DataError for values that the kind, or any kind, cannot hold. See `has_comma`.
    """
    native = _native(raw)
    usual = values.markers(values.PLACEHOLDERS, markers)
    texts = Distinct(Texts.from_list([]) if native else _texts(name, raw), usual, comma=comma)
    if native is None and not texts.sample:
        return None
    kind, guess, notes = _guess(kind or native, texts)
    draft = schema.Column(name=name, type=kind.name, missing=markers, **guess.fields)
    seen = {text for text in texts.markers(kind.plain(draft)) if text.casefold() in draft.markers}
    more = sorted((seen | set(guess.missing)) - set(markers))
    fields = {"missing": (*markers, *more), **kind.raw_fields(name, raw)}
    column = draft.model_copy(update=fields)
    array, unreadable = _parsed(column, raw)
    missing_B = columns.missing_rows(array)
    if missing_B.all():
        return None
    fields = {"nullable": bool(missing_B.any()), **kind.parsed_fields(array, texts)}
    noted = tuple(f"{name}: {note}" for note in (*notes, guess.note, unreadable) if note)
    spellings = texts.spellings() if array.dtype == object and not kind.is_rich else []
    return Inferred(
        column=column.model_copy(update=fields),
        array=array,
        notes=noted,
        spellings=tuple(map(tuple, spellings[:MOST_SPELLINGS])),
    )


def has_comma(table: Mapping[str, schema.Raw]) -> bool:
    """Whether numbers of a table have a decimal comma: those of a column have, of none a point.

    The first texts of each column are looked at.
    """
    columns = (raw for raw in table.values() if isinstance(raw, Texts))
    leading = (filter(None, itertools.islice(raw.leading(), LOOKED_AT)) for raw in columns)
    found = {numeric.has_comma(map(str.strip, texts)) for texts in leading}
    return True in found and False not in found


def _parsed(column: schema.Column, raw: schema.Raw) -> tuple[np.ndarray, str]:
    """Canonical values, and a note on those that cannot be read; DataError if these are many."""
    if not column.kind.most_unreadable:
        return schema.parse_column(column, raw), ""
    tolerance = schema.Tolerance()
    array = schema.parse_column(column, raw, tolerance)
    if not tolerance.failures:
        return array, ""
    places = sorted(tolerance.failures)
    named = [getattr(raw[place], "name", "") or f"value {place + 1:,}" for place in places]
    count, shown = f"{len(places):,} of {len(raw):,}", messages.listed(named)
    most = column.kind.most_unreadable
    if len(places) > most * len(raw):
        law = f"{column.kind.need} is needed in all rows but {messages.percent(most)}"
        raise errors.DataError(f"{column.name}: {law}, but {count} have none: {shown}")
    return array, f"{count} cannot be read and are taken as missing: {shown}"


def _native(raw: schema.Raw) -> ColumnKind | None:
    """The kind of values that are no text; None for text and mixtures."""
    if isinstance(raw, Texts):
        return None
    types = {raw.dtype.type} if isinstance(raw, np.ndarray) else set(map(type, raw)) - {NoneType}
    return next((kind for kind in columns.candidates() if types and kind.holds(types)), None)


def _texts(name: str, raw: schema.Raw) -> Texts:
    if isinstance(raw, Texts):
        return raw
    text = schema.Column(name=name, type=columns.TEXT.name)
    return Texts.from_list(schema.parse_column(text, raw).tolist())


def _guess(named: ColumnKind | None, texts: Distinct) -> tuple[ColumnKind, Guess, list[str]]:
    """The kind, how its values are written, and why the column is of no other kind."""
    notes: list[str] = []
    for kind in [named] if named else columns.candidates():
        guess = kind.infer(texts, named=named is not None) if texts.sample else None
        if guess is not None and guess.fits:
            return kind, guess, notes
        if guess is not None:
            notes.append(guess.note)
    return named or columns.CATEGORICAL, Guess(), [] if named else notes
