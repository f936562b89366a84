"""Column names: which one was meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from eagleray import values


def values_for_names(names: Sequence[str]) -> str:
    """The end of a message, where a name is a number: perhaps the file has no header."""
    if not any(map(values.is_number, names)):
        return ""
    return "; if line 1 holds values, put a line of names above it"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of a message, where a known name is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}" if near else ""
