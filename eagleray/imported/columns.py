"""The columns of an example as the inputs of a model: each an input, or all in one matrix.

Legend: B rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eagleray import errors, messages, names
from eagleray.engines import Input
from eagleray.engines.feed import Block, Feed
from eagleray.learn import columns, features, schema
from eagleray.tabular import inference

_MOST_SHOWN = 20
_FIX = "; leave it out of the example, or name the column with the truth (--target)"


@dataclass(frozen=True)
class Example:
    """An example as a model takes it."""

    described: tuple[schema.Column, ...]
    columns: schema.Columns  # canonical
    feed: Feed
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))

    def some(self, count: int) -> schema.Columns:
        """At most `count` rows, evenly spaced."""
        chosen = np.linspace(0, self.rows - 1, min(self.rows, count)).astype(int)
        return {name: column[chosen] for name, column in self.columns.items()}


def fit(inputs: Sequence[Input], raw: Mapping[str, schema.Raw], *, rows: int) -> Example:
    """Infer the example's columns, of the kinds that the inputs take.

    UserError where names or widths do not fit, DataError for values that an input cannot hold.
    """
    if not rows or not raw:
        raise errors.DataError(f"example: rows of input columns are needed, but got {rows} rows")
    blocks = list(_blocks(inputs, list(raw)))
    problems: list[str] = []
    inferred = {}
    for block in blocks:
        for name in block.columns:
            try:
                inferred[name] = _infer(name, raw[name], block.dtype)
            except errors.DataError as cause:
                problems += cause.problems
    if problems:
        raise errors.DataError(*problems)
    ordered = [inferred[name] for name in raw]
    return Example(
        described=tuple(one.column for one in ordered),
        columns={one.column.name: one.array for one in ordered},
        feed=Feed(blocks=tuple(blocks)),
        notes=tuple(note for one in ordered for note in one.notes),
    )


def _blocks(inputs: Sequence[Input], known: list[str]) -> Iterator[Block]:
    first = inputs[0]
    if len(inputs) == 1 and (first.columns or first.width != 1 or first.name not in known):
        chosen = _named(first, known) if first.columns else _all(first, known)
        flat = first.is_flat and len(chosen) == 1
        yield Block(input=first.name, columns=chosen, dtype=first.dtype, is_flat=flat)
        return
    wide = [one for one in inputs if one.width not in (1, None)]
    if wide:
        raise errors.UserError(
            "the model must have an input for each column, or one for all of them, but has "
            f"{len(inputs)}, of which {wide[0].name} takes {wide[0].width} columns"
        )
    _check_names([one.name for one in inputs], known)
    for one in inputs:
        yield Block(input=one.name, columns=(one.name,), dtype=one.dtype, is_flat=one.is_flat)


def _all(one: Input, known: list[str]) -> tuple[str, ...]:
    """All columns, in the example's order, for an input without names."""
    if one.width not in (None, len(known)):
        raise errors.UserError(
            f"input {one.name}: the example must have {one.width} columns, but has {len(known)}: "
            f"{messages.listed(known, _MOST_SHOWN)}; leave some out, or name the column with the "
            "truth (--target)"
        )
    return tuple(known)


def _named(one: Input, known: list[str]) -> tuple[str, ...]:
    """The columns in the model's order; LightGBM writes `_` for blanks in their names."""
    spelt = {re.sub(r"\s", "_", name): name for name in known} | {name: name for name in known}
    written = [spelt.get(name, name) for name in one.columns]
    _check_names(written, known)
    return tuple(written)


def _check_names(needed: Sequence[str], known: Sequence[str]) -> None:
    absent = [name for name in needed if name not in known]
    unknown = [name for name in known if name not in needed]
    if absent:
        near = names.near(absent[0], unknown)
        raise errors.UserError(
            f"example: the model needs {messages.listed(list(map(repr, absent)), _MOST_SHOWN)}, "
            f"but the columns are {messages.listed(list(known), _MOST_SHOWN)}{near}"
        )
    if unknown:
        listed = messages.listed(list(map(repr, unknown)), _MOST_SHOWN)
        raise errors.UserError(f"example: the model must know each column, but not {listed}{_FIX}")


def _infer(name: str, raw: schema.Raw, dtype: str) -> inference.Inferred:
    found = _texts(name, raw) if dtype == "object" else inference.infer(name, raw)
    if found is None:
        raise errors.DataError(f"{name}: at least one value is needed, but all are missing")
    column = found.column
    if dtype != "object" and not _is_number(column):
        raise errors.DataError(
            f"{name}: the model takes numbers ({dtype}), but the example's column is {column.type}"
        )
    if column.nullable and np.dtype(dtype).kind != "f":
        what = "a text" if dtype == "object" else f"a whole number ({dtype})"
        raise errors.DataError(
            f"{name}: the model takes {what} in every row, but some rows of the example have none"
        )
    return found


def _texts(name: str, raw: schema.Raw) -> inference.Inferred | None:
    """Categories; plain text where some are marks of a missing value, which the model may know."""
    found = inference.infer(name, raw, columns.CATEGORICAL)
    is_plain = found is not None and found.column.nullable
    return inference.infer(name, raw, columns.TEXT) if is_plain else found


def _is_number(column: schema.Column) -> bool:
    encoding = column.kind.encoding(column.kind.options())
    return isinstance(encoding, features.Number) and not encoding.cyclic
