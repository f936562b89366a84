"""The log of a run, as a stream here may have it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CUT = re.compile(r"\x1b(?:\[[0-9;]*)?$")


def shown(pieces: Iterable[str], stream: IO[str]) -> Iterator[str]:
    """A log without colour codes (ECMA-48, SGR), unless the stream is a terminal.

    Ray colours its messages wherever they go. A code may be cut between two pieces.
    """
    if stream.isatty():
        yield from pieces
        return
    rest = ""
    for piece in pieces:
        text = _COLOUR.sub("", rest + piece)
        cut = _CUT.search(text)
        rest = cut[0] if cut else ""
        yield text.removesuffix(rest)
    yield rest
