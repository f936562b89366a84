"""Column names: which one was meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from eagleray import values


def values_for_names(names: Sequence[str]) -> str:
    """The end of a message, where a name is a number: perhaps the file has no header."""
    if not any(map(is_number, names)):
        return ""
    return "; if line 1 holds values, put a line of names above it"


def is_number(name: str) -> bool:
    """Whether a name, of a column or a class, is a number."""
    try:
        values.number(name)
    except ValueError:
        return False
    return True


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of a message, where a known name is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}" if near else ""
