"""Kinds whose canonical values are words: object, str or None where missing."""

import math
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

LEAST_SIZES = 10
"""The fewest different numbers of which a common word counts as their unit."""

_MEASURED = re.compile(r"([-+]?\d[\d.,]*)\s?([^\W\d_]{1,8})")
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

    def traits(self, array: np.ndarray) -> np.ndarray:
        """Its place among the names by frequency."""
        import pandas as pd

        codes, _ = pd.factorize(array)  # -1 where missing
        counts = np.bincount(codes[codes >= 0])
        place = np.empty(len(counts))
        place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        return np.where(codes >= 0, np.append(place, math.nan)[codes], math.nan)[:, None]

    def blurred(self, array: np.ndarray) -> np.ndarray:
        """The names without case and blanks, see `simplified`."""
        known = {text: self.simplified(text) for text in set(array.tolist()) - {None}}
        blurred = np.empty(len(array), object)
        blurred[:] = [known.get(text) for text in array.tolist()]
        return blurred

    def simplified(self, text: str) -> str:
        """Without case, and with single blanks; numbers as numbers."""
        if not numeric.is_code(text) and values.is_number(text):
            return values.category(values.number(text))
        return " ".join(text.casefold().split())

    def mixture(self, column: Column, array: np.ndarray) -> tuple[float, list[str]] | None:
        step = max(1, len(array) // SAMPLED_ROWS)
        if _numbers(Counter(array[::step].tolist()))[0] < LEAST_NUMERIC_SHARE / 2:
            return None
        share, others = _numbers(Counter(array.tolist()))
        return (share, others) if LEAST_NUMERIC_SHARE <= share < 1 else None

    def remarks(
        self, column: Column, array: np.ndarray, train: np.ndarray, options: Any | None
    ) -> Iterator[str]:
        if options is None and not hints_at_identifier(column.name):
            if found := self.mixture(column, array):
                yield _mostly_numbers(column, *found)
            elif word := shared_unit(array):
                yield (
                    f"{column.name}: its values are numbers with {word!r} behind them, so it is"
                    f" {column.type}; write them without {word!r} to make it numeric"
                )


def hints_at_identifier(name: str) -> bool:
    """Whether a column has a name such as id, user_id or customerId."""
    return _IDENTIFIER.search(name) is not None


def shared_unit(array: np.ndarray) -> str:
    """The unit that follows the number in every name of a column, such as kg; empty without one."""
    known = {text for text in array[:: max(1, len(array) // SAMPLED_ROWS)].tolist() if text}
    found = [_MEASURED.fullmatch(text) for text in known]
    words = {one[2] if one else "" for one in found}
    sizes = [one[1] for one in found if one]
    is_size = len(known) >= LEAST_SIZES and all(map(values.is_number, sizes))
    return words.pop() if is_size and len(words) == 1 and len(sizes) == len(known) else ""


def _mostly_numbers(column: Column, share: float, others: list[str]) -> str:
    shown = messages.listed([repr(text) for text in others])
    fix = messages.setting({"features": {column.name: {"type": numeric.NUMERIC.name}}})
    return (
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
