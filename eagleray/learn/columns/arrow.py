"""A column of texts in Arrow's memory, and its distinct texts.

A column of a million texts needs few Python objects: Arrow parses plain numbers and times, and each
other text is read once, however often it appears. Legend: B rows.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray.learn.columns import values

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = 200  # number of distinct values that are checked before the whole column

PLAIN = {
    "number": r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?",
    "comma": r"-?(0|[1-9]\d*)(,\d+)?",
    "time": r"[1-9]\d{3}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?",
}
"""Forms of texts that Arrow parses as `values` does; `comma` is a decimal comma."""


class Texts(Sequence[str | None]):
    """A sequence of B texts, None where one is missing."""

    def __init__(self, cells: pa.ChunkedArray) -> None:
        self._cells = cells
        self._masks: dict[tuple[str, frozenset[str]], np.ndarray] = {}

    @classmethod
    def from_list(cls, texts: list[str | None]) -> Texts:
        """Copy texts to Arrow; lone surrogates, from escapes in JSON, are replaced."""
        import pyarrow as pa

        try:
            cells = pa.array(texts, pa.large_string())
        except UnicodeEncodeError:
            encoded = (text and text.encode(errors="surrogatepass") for text in texts)
            decoded = [text and text.decode(errors="replace") for text in encoded]
            cells = pa.array(decoded, pa.large_string())
        return cls(pa.chunked_array([cells]))

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, index: Any) -> Any:
        found = self._cells[index]
        return Texts(found) if isinstance(index, slice) else found.as_py()

    def __iter__(self) -> Iterator[str | None]:
        for chunk in self._cells.iterchunks():
            yield from chunk.to_pylist()

    def filter(self, rows_B: np.ndarray) -> Texts:
        """The texts of the rows that are true."""
        import pyarrow as pa

        return Texts(self._cells.filter(pa.array(rows_B)))

    def distinct(self) -> tuple[list[str | None], np.ndarray]:
        """The distinct texts in order of appearance, and the index of each row's text (B)."""
        import pyarrow as pa

        encoded = self._cells.dictionary_encode()  # its chunks share one dictionary
        if not encoded.num_chunks:
            return [], np.empty(0, np.int32)
        distinct: list[str | None] = encoded.chunk(0).dictionary.to_pylist()
        rows = pa.chunked_array([chunk.indices for chunk in encoded.iterchunks()])
        if rows.null_count:
            rows, distinct = rows.fill_null(len(distinct)), [*distinct, None]
        return distinct, rows.to_numpy()

    def leading(self) -> Iterator[str | None]:
        """Distinct texts in order of appearance, some repeated, from the start of the column."""
        start, count = 0, 1000
        while start < len(self):
            yield from self._cells.slice(start, count).unique().to_pylist()
            start, count = start + count, count * 4

    def is_plain(self, form: str, markers: Collection[str] = ()) -> np.ndarray:
        """Whether each row (B) holds a text of this form, other than `markers` (lower case)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        spellings = (text for marker in markers for text in (marker, f"{marker}.0"))
        plain = re.compile(PLAIN[form], re.ASCII | re.IGNORECASE)
        marked = frozenset(text for text in spellings if plain.fullmatch(text))
        if (form, marked) not in self._masks:
            mask = pc.match_substring_regex(self._cells, f"^(?:{PLAIN[form]})$").fill_null(False)
            if marked:
                lower = pc.utf8_lower(self._cells)
                others = pc.is_in(lower, value_set=pa.array(sorted(marked), lower.type))
                mask = pc.and_not(mask, others)
            self._masks[form, marked] = mask.to_numpy()
        return self._masks[form, marked]

    def read(
        self, form: str, markers: Collection[str], parse: Callable[[list[str | None]], np.ndarray]
    ) -> np.ndarray:
        """Numbers (B), f64: Arrow parses plain texts, `parse` the distinct others and `markers`."""
        import pyarrow as pa

        plain_B, numbers_B = self.is_plain(form, markers), np.empty(len(self))
        try:
            numbers_B[plain_B] = self.filter(plain_B)._cast(form)
        except pa.ArrowInvalid:  # one is no date, such as 30 February
            plain_B = np.zeros(len(self), bool)
        if not plain_B.all():
            texts, rows = self.filter(~plain_B).distinct()
            numbers_B[~plain_B] = parse(texts)[rows]
        return numbers_B

    def _cast(self, form: str) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.compute as pc

        cells = self._cells
        if form == "comma":
            cells = pc.replace_substring(cells, ",", ".")
        if form != "time":
            numbers: np.ndarray = cells.cast(pa.float64()).to_numpy()
            return numbers
        microseconds = cells.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        seconds: np.ndarray = microseconds // 1000 / 1000
        return seconds


class Distinct:
    """The distinct texts of a column, stripped and counted, except `markers` (lower case).

    `comma` says that numbers in other columns of the table have a decimal comma.
    """

    def __init__(self, texts: Texts, markers: frozenset[str], *, comma: bool = False) -> None:
        self._texts, self._markers, self.comma = texts, markers, comma
        self._counted: dict[str, Counter[str]] = {}

    @functools.cached_property
    def sample(self) -> list[str]:
        """The first `SAMPLE` texts in order of appearance."""
        sample: dict[str, None] = {}
        for word in map(values.category, filter(None, self._texts.leading())):
            if word.casefold() not in self._markers:
                sample[word] = None
            if len(sample) == SAMPLE:
                break
        return list(sample)

    @property
    def counts(self) -> Counter[str]:
        return self.not_plain("")

    def not_plain(self, form: str) -> Counter[str]:
        """Counts of the texts that are not of this form, a key of `PLAIN`."""
        counts = self._count(form).items()
        return Counter({text: n for text, n in counts if text.casefold() not in self._markers})

    def spellings(self) -> list[list[str]]:
        """Different texts that are read as one category, for each that has several."""
        spelled: dict[str, list[str]] = {}
        for text in filter(None, self._texts.distinct()[0]):
            if (word := values.category(text)).casefold() not in self._markers:
                spelled.setdefault(word, []).append(text)
        return [texts for texts in spelled.values() if len(texts) > 1]

    def rows(self, form: str) -> int:
        """Number of rows that hold a text; `form` only makes it faster."""
        plain = self._texts.is_plain(form, self._markers)
        return int(plain.sum()) + self.not_plain(form).total()

    def markers(self, form: str) -> set[str]:
        """The markers that the column holds; `form` only makes it faster."""
        return {text for text in self._count(form) if text.casefold() in self._markers}

    def _count(self, form: str) -> Counter[str]:
        if form not in self._counted:
            others = self._texts
            if form:
                others = others.filter(~others.is_plain(form, self._markers))
            texts, rows = others.distinct()
            counted: Counter[str] = Counter()
            for text, count in zip(texts, np.bincount(rows, minlength=len(texts)), strict=True):
                if word := values.category(text or ""):
                    counted[word] += int(count)
            self._counted[form] = counted
        return self._counted[form]
