"""What commands print: JSON for programs, columns for people."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CUT = re.compile(r"\x1b(?:\[[0-9;]*)?$")


def emit(value: object, as_json: bool, *, table: Sequence[Sequence[object]]) -> None:
    """Print a value as JSON, or the rows that stand for it.

    Args:
        value: JSON, dataclasses, or lists and mappings of them.
        as_json: which of the two.
        table: rows of as many cells each, for people; the first may be a heading.
    """
    if as_json:
        print(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))
        return
    rows = [[_shown(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def shown(pieces: Iterable[str], stream: IO[str]) -> Iterator[str]:
    """A log as a stream may have it: what is no terminal gets no colour codes (ECMA-48, SGR).

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


def _shown(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
