"""A column of texts as a file holds it, in Arrow's memory.

Of a million texts hardly one is worth a Python object: plain numbers and moments are read by Arrow,
and each of the others is looked at once, however often it stands in the column.

Legend: B rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN = {
    "number": r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?",
    "comma": r"-?(0|[1-9]\d*)(,\d+)?",
    "time": r"[1-9]\d{3}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?",
}
"""Texts that Arrow reads to the same value as `values` does; a subset of what that takes.

`comma` are numbers with a decimal comma.
"""


class Texts(Sequence[str | None]):
    """B texts, None where one is missing; a sequence of these for whoever does not know it."""

    def __init__(self, cells: pa.ChunkedArray) -> None:
        self._cells = cells
        self._masks: dict[tuple[str, frozenset[str]], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._cells)

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> Any:
        found = self._cells[index]
        return Texts(found) if isinstance(index, slice) else found.as_py()

    def __iter__(self) -> Iterator[str | None]:
        for chunk in self._cells.iterchunks():
            yield from chunk.to_pylist()

    def only(self, rows_B: np.ndarray) -> Texts:
        """The texts of the rows that are true."""
        import pyarrow as pa

        return Texts(self._cells.filter(pa.array(rows_B)))

    def different(self) -> tuple[list[str | None], np.ndarray]:
        """Each different text once, in order of appearance, and which of them each row has (B)."""
        import pyarrow as pa

        encoded = self._cells.dictionary_encode()  # its chunks share one dictionary
        if not encoded.num_chunks:
            return [], np.empty(0, np.int32)
        different: list[str | None] = encoded.chunk(0).dictionary.to_pylist()
        rows = pa.chunked_array([chunk.indices for chunk in encoded.iterchunks()])
        if rows.null_count:
            rows, different = rows.fill_null(len(different)), [*different, None]
        return different, rows.to_numpy()

    def firsts(self) -> Iterator[str | None]:
        """The different texts in order of appearance, some more than once, without reading all."""
        start, count = 0, 1000
        while start < len(self):
            yield from self._cells.slice(start, count).unique().to_pylist()
            start, count = start + count, count * 4

    def plain(self, kind: str, marks: Collection[str] = ()) -> np.ndarray:
        """Which rows hold a plain value of this form and no marker, as booleans (B)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        spellings = (name for mark in marks for name in (mark, f"{mark}.0"))
        spelled = frozenset(
            name for name in spellings if re.fullmatch(PLAIN[kind], name, re.ASCII | re.IGNORECASE)
        )
        if (kind, spelled) not in self._masks:
            mask = pc.match_substring_regex(self._cells, f"^(?:{PLAIN[kind]})$").fill_null(False)
            if spelled:
                lower = pc.utf8_lower(self._cells)
                marked = pc.is_in(lower, value_set=pa.array(sorted(spelled), lower.type))
                mask = pc.and_not(mask, marked)
            self._masks[kind, spelled] = mask.to_numpy()
        return self._masks[kind, spelled]

    def read(
        self, kind: str, marks: Collection[str], others: Callable[[list[str | None]], np.ndarray]
    ) -> np.ndarray:
        """One number for each row (B), f64.

        Args:
            kind: one of `PLAIN`.
            marks: markers for missing values, in lower case.
            others: reads texts that are not plain, each different one once.
        """
        plain_B = self.plain(kind, marks)
        found_B = np.empty(len(self))
        values = self._cast(kind, plain_B)
        if values is None:
            plain_B = np.zeros(len(self), bool)
        else:
            found_B[plain_B] = values
        if not plain_B.all():
            texts, rows = self.only(~plain_B).different()
            found_B[~plain_B] = others(texts)[rows]
        return found_B

    def _cast(self, kind: str, plain_B: np.ndarray) -> np.ndarray | None:
        """The values of plain rows; None where one is no moment, such as 30 February."""
        import pyarrow as pa
        import pyarrow.compute as pc

        cells = self.only(plain_B)._cells
        if kind == "comma":
            cells = pc.replace_substring(cells, ",", ".")
        if kind != "time":
            numbers: np.ndarray = cells.cast(pa.float64()).to_numpy()
            return numbers
        try:
            microseconds: np.ndarray = cells.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid:
            return None
        seconds: np.ndarray = microseconds // 1000 / 1000
        return seconds
