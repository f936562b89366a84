"""Output of commands: JSON for programs, columns for people."""

import dataclasses
import json
from collections.abc import Sequence

from eagleray import display


def emit(value: object, as_json: bool, *, table: Sequence[Sequence[object]]) -> None:
    """Print a value as JSON, or the table that shows it.

    `value` is JSON, dataclasses or pydantic models, also in lists and mappings. The rows of `table`
    have equally many cells.
    """
    if as_json:
        print(json.dumps(value, indent=2, default=_json, ensure_ascii=False))
        return
    rows = [[display.text(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _json(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    dump = getattr(value, "model_dump", None)  # pydantic's, without importing it here
    return dump(mode="json") if dump else str(value)
