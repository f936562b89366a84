"""Kinds whose canonical values are words: object, str or None where missing."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from eagleray import messages
from eagleray.learn import features
from eagleray.learn.columns import numeric, values
from eagleray.learn.columns.column import Column, Raw, Tolerance, read_each
from eagleray.learn.columns.kind import ColumnKind

LEAST_NUMERIC_SHARE = 1 - numeric.MOST_OTHER_SHARE_NAMED
SAMPLED_ROWS = 10_000

_CODE = re.compile(r"\S*\d\S*")
_IDENTIFIER = re.compile(
    r"(?i:(?:^|[_\W])(?:id|uuid|guid|key|index|idx|rowid|row)$|^unnamed: \d+$)|[a-z](?:Id|ID|Key)$"
)


class WordKind(ColumnKind):
    target: ClassVar[str | None] = "categorical"
    takes_any_text = True
    encoded = features.Category()
    json_types = str
    json_schema: ClassVar = {"type": "string"}

    def is_key(self, column: Column, array: np.ndarray, *, hinted: bool) -> bool:
        return hinted or all(_CODE.fullmatch(text) for text in array.tolist())

    def parse(self, column: Column, raw: Raw, tolerance: Tolerance | None = None) -> np.ndarray:
        words = np.empty(len(raw), object)
        words[:] = read_each(column, raw, values.category, None, tolerance)
        return words

    def to_json(self, array: np.ndarray) -> list[Any]:
        return list(array)

    def remarks(
        self, column: Column, array: np.ndarray, train: np.ndarray, options: Any | None
    ) -> Iterator[str]:
        if options is None and not hints_at_identifier(column.name):
            yield from _mostly_numbers(column, array)


def hints_at_identifier(name: str) -> bool:
    """Whether a column has a name such as id, user_id or customerId."""
    return _IDENTIFIER.search(name) is not None


def _mostly_numbers(column: Column, array: np.ndarray) -> Iterator[str]:
    step = max(1, len(array) // SAMPLED_ROWS)
    if _numbers(Counter(array[::step].tolist()))[0] < LEAST_NUMERIC_SHARE / 2:
        return
    share, others = _numbers(Counter(array.tolist()))
    if not LEAST_NUMERIC_SHARE <= share < 1:
        return
    shown = messages.listed([repr(text) for text in others])
    fix = messages.setting({"features": {column.name: {"type": numeric.NUMERIC.name}}})
    yield (
        f"{column.name}: {messages.percent(share)} of its values are numbers, but not {shown},"
        f" so it is {column.type}; {fix} makes it numeric, with these as missing"
    )


def _numbers(counts: Counter[str | None]) -> tuple[float, list[str]]:
    """Share of numbers among texts (0 if there are codes), and the other texts by frequency."""
    known = {text: count for text, count in counts.most_common() if text is not None}
    if not known or any(map(numeric.is_code, known)):
        return 0.0, []
    readings = (numeric.not_numbers(known, comma) for comma in (False, True))
    others = min(readings, key=lambda texts: sum(known[text] for text in texts))
    return 1 - sum(known[text] for text in others) / sum(known.values()), others
