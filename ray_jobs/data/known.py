"""The different texts of one column, as guesses about its type need them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

import numpy as np

from eagleray import values
from eagleray.texts import Texts

SAMPLE = 200
"""Texts that are tried before all are."""


class Known:
    """Different texts, stripped, and how often each stands in the column.

    Texts of a file are counted when they are asked for: those of plain numbers never are.

    Attributes:
        marks: markers for missing values, in lower case; what is asked for is without them.
    """

    def __init__(self, raw: Texts | list[str | None], marks: frozenset[str]) -> None:
        self._raw, self.marks = raw, marks
        self._counted: dict[str, Counter[str]] = {}

    @functools.cached_property
    def sample(self) -> list[str]:
        """The first `SAMPLE` texts in order of appearance."""
        seen: dict[str, None] = {}
        for text in self._raw.firsts() if isinstance(self._raw, Texts) else self._raw:
            word = "" if text is None else values.category(text)
            if word.casefold() not in self.marks:
                seen[word] = None
            if len(seen) == SAMPLE:
                break
        return list(seen)

    @property
    def counts(self) -> Counter[str]:
        """All texts with their counts."""
        return self.beside("")

    def beside(self, kind: str) -> Counter[str]:
        """Texts that are not plain values of this kind, see `eagleray.texts.PLAIN`."""
        found = self._texts(kind)
        return Counter({text: n for text, n in found.items() if text.casefold() not in self.marks})

    def rows(self, kind: str) -> int:
        """How many rows hold a text; the kind is the one that is counted fastest."""
        return self._plain(kind) + self.beside(kind).total()

    def marked(self, kind: str) -> set[str]:
        """The markers that the column holds; no plain value of any kind is one."""
        return {text for text in self._texts(kind) if text.casefold() in self.marks}

    def _plain(self, kind: str) -> int:
        if not kind or not isinstance(self._raw, Texts):
            return 0
        return int(self._raw.plain(kind, self.marks).sum())

    def _texts(self, kind: str) -> Counter[str]:
        if kind not in self._counted:
            words: Counter[str] = Counter()
            for text, count in self._raw_counts(kind):
                if text is not None and (word := values.category(text)):
                    words[word] += count
            self._counted[kind] = words
        return self._counted[kind]

    def _raw_counts(self, kind: str) -> Iterable[tuple[str | None, int]]:
        if not isinstance(self._raw, Texts):
            return Counter(self._raw).items()
        rest = self._raw.only(~self._raw.plain(kind, self.marks)) if kind else self._raw
        texts, rows = rest.different()
        return zip(texts, np.bincount(rows, minlength=len(texts)).tolist(), strict=True)
