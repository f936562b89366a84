"""What the user's own functions give, held to their contract (docs/code.md).

Legend: B rows, D numbers of a vector.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eagleray import code, errors, messages

FUNCTIONS = ("made_by", "encoder")
"""Options of a column that name a function."""
OPTIONS = (*FUNCTIONS, "of")
"""These, and the option that names what a function is given: the same for all trials."""
ALONE = 3
"""Training rows that a function is given one by one too, to see that they do not mix."""
MOST_TEXTS = 1024
"""Texts of one call."""
CLOSE = 1e-3
"""Largest difference of a value alone and in a batch, relative to max(1, |value|)."""


def resolve(own: Mapping[str, code.Code], name: str) -> code.Code:
    """The function of this name; CodeError where its source is not at hand."""
    if name not in own:
        raise errors.CodeError(f"{name}: its source is needed, but is not at hand")
    return own[name]


def numbers(own: code.Code, columns: Sequence[np.ndarray]) -> np.ndarray:
    """f64 (B), finite or NaN, of a function of canonical columns.

    Raises:
        CodeError: it fails, or gives no number for each row.
    """
    rows = len(columns[0])
    if not rows:
        return np.empty(0)
    given = _array(own, "a number for each row", columns)
    if given.shape != (rows,) or given.dtype.kind not in "biuf":
        raise _wrong(own, f"a number for each row, here of shape {(rows,)}", given)
    limit = sys.float_info.max
    finite: np.ndarray = given.astype(np.float64).clip(-limit, limit)
    return finite


def names(own: code.Code, columns: Sequence[np.ndarray]) -> np.ndarray:
    """Objects (B), str or None, of a function of canonical columns; raises as `numbers`."""
    rows, law = len(columns[0]), "a name or None for each row"
    if not rows:
        return np.empty(0, object)
    given = _array(own, law, columns)
    if given.shape != (rows,):
        raise _wrong(own, f"{law}, here of shape {(rows,)}", given)
    found = np.empty(rows, object)
    found[:] = given.tolist()
    odd = next((one for one in found if not (one is None or isinstance(one, str))), None)
    if odd is not None:
        got = messages.shortened(repr(odd))
        raise errors.CodeError(f"{own.file}: {own.name}: must give {law}, but gave {got}")
    return found


def vectors(own: code.Code, texts: Sequence[str], width: int | None = None) -> np.ndarray:
    """f32 (B, D) of texts; D is `width`, if it is known. `texts` are one at least.

    Raises:
        CodeError: the function fails, or gives no finite vector of the same length for each text.
    """
    parts: list[np.ndarray] = []
    for start in range(0, len(texts), MOST_TEXTS):
        some = list(texts[start : start + MOST_TEXTS])
        parts.append(_vectors(own, some, parts[0].shape[1] if parts else width))
    return np.concatenate(parts)


def check_rows(own: code.Code, whole: np.ndarray, alone: Callable[[int], np.ndarray]) -> None:
    """Compare the first rows of a batch with each alone; CodeError where one depends on others."""
    for row in range(min(ALONE, len(whole))):
        given = alone(row)[0]
        if whole.dtype == object:
            same = given == whole[row]
        else:
            most = CLOSE * np.maximum(1.0, np.abs(whole[row]))
            near = np.abs(given - whole[row]) <= most
            same = bool(np.all(near | (np.isnan(given) & np.isnan(whole[row]))))
        if not same:
            law = "what it gives for a row must not depend on the batch's other rows"
            raise errors.CodeError(f"{own.file}: {own.name}: {law}, but does in row {row + 1}")


def _vectors(own: code.Code, texts: list[str], width: int | None) -> np.ndarray:
    law = "finite numbers of shape (B, D)"
    given = _array(own, law, [texts])
    shape = (len(texts), "D" if width is None else width)
    here = f"{law}, here ({shape[0]}, {shape[1]})"
    flat = given.ndim != 2 or len(given) != len(texts) or not given.shape[1]
    if flat or given.dtype.kind not in "iuf" or width not in (None, given.shape[1]):
        raise _wrong(own, here, given)
    with np.errstate(over="ignore"):
        vector_BD: np.ndarray = given.astype(np.float32)
    if not np.isfinite(vector_BD).all():
        row = int(np.flatnonzero(~np.isfinite(vector_BD).all(axis=1))[0])
        got = f"NaN or infinity for {messages.shortened(repr(texts[row]))}"
        raise errors.CodeError(f"{own.file}: {own.name}: must give {law}, but gave {got}")
    return vector_BD


def _array(own: code.Code, law: str, arguments: Sequence[Any]) -> np.ndarray:
    """What the function gives, as an array; it may change its arguments."""
    copies = [one.copy() for one in arguments]
    with code.guard(f"must give {law}", own):
        given = own.load()(*copies)
    try:
        return np.asarray(given)
    except Exception as cause:  # what it gives may raise anything
        got = f"{type(given).__name__}, of which numpy makes no array: {cause}"
        raise errors.CodeError(
            f"{own.file}: {own.name}: must give {law}, but gave {got}"
        ) from cause


def _wrong(own: code.Code, law: str, given: np.ndarray) -> errors.CodeError:
    got = f"{given.shape} of {given.dtype}"
    return errors.CodeError(f"{own.file}: {own.name}: must give {law}, but gave {got}")
