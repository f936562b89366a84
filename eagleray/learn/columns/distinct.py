"""The different texts of one column, from which kinds infer what it is."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

import numpy as np

from eagleray.learn.columns import values
from eagleray.learn.columns.arrow import Texts

SAMPLE = 200
"""Number of distinct texts that are checked before the whole column."""


class Distinct:
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

    def beside(self, form: str) -> Counter[str]:
        """Texts that are not plain values of this form, see `arrow.PLAIN`."""
        found = self._texts(form)
        return Counter({text: n for text, n in found.items() if text.casefold() not in self.marks})

    def rows(self, form: str) -> int:
        """How many rows hold a text; the form is the one that is counted fastest."""
        return self._plain(form) + self.beside(form).total()

    def marked(self, form: str) -> set[str]:
        """The markers that the column holds; no plain value of any form is one."""
        return {text for text in self._texts(form) if text.casefold() in self.marks}

    def _plain(self, form: str) -> int:
        if not form or not isinstance(self._raw, Texts):
            return 0
        return int(self._raw.plain(form, self.marks).sum())

    def _texts(self, form: str) -> Counter[str]:
        if form not in self._counted:
            words: Counter[str] = Counter()
            for text, count in self._raw_counts(form):
                if text is not None and (word := values.category(text)):
                    words[word] += count
            self._counted[form] = words
        return self._counted[form]

    def _raw_counts(self, form: str) -> Iterable[tuple[str | None, int]]:
        if not isinstance(self._raw, Texts):
            return Counter(self._raw).items()
        rest = self._raw.only(~self._raw.plain(form, self.marks)) if form else self._raw
        texts, rows = rest.different()
        return zip(texts, np.bincount(rows, minlength=len(texts)).tolist(), strict=True)
