"""Texts and times in one line."""

from __future__ import annotations


def one_line(text: str, most: int = 300) -> str:
    """A message in one line, cut where it is very long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]} …"


def last_line(text: str) -> str:
    """The last line of a log that is not blank."""
    return one_line(text.rstrip().rpartition("\n")[2])


def span(seconds: float) -> str:
    """`40 s`, `5 min`, `3 h`."""
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
