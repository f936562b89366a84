"""Column names in messages."""

from __future__ import annotations

from collections.abc import Sequence

from eagleray.learn.columns import values


def values_for_names(names: Sequence[str]) -> str:
    """The end of a message, where a name is a number: perhaps the file has no header."""
    if not any(map(values.is_number, names)):
        return ""
    return "; if line 1 holds values, put a line of names above it"
