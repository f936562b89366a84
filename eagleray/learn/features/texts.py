"""Text columns as bags of weighted tokens. Legend: B rows, T tokens, V vocabulary.

All columns share one table: row 0 is the padding, each vocabulary takes the rows after the last.
A text's tokens are its known n-grams in order of appearance, weighted by tf-idf (as scikit-learn's
TfidfVectorizer: smooth idf, L2 norm); of too many, the heaviest are used.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from eagleray.learn import schema

Bag = list[tuple[int, float]]
"""Rows of the table with their weights."""

UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003134f"
)
"""Letters of scripts without blanks between words: Thai and Lao, Burmese, Khmer, kana, Han."""
_MARKS = (
    r"\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a"
    r"\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u0900-\u0963\u0966-\u0dff"
)
"""Signs of vowels and accents that belong to the letter before, which Python's `\\w` leaves out."""
WORD = rf"(?u)[{UNSPACED}]|(?:[^\W{UNSPACED}]|[{_MARKS}])+|[^\w\s]"
"""A word of any length, or one sign: unlike scikit-learn's default, `u`, `2`, `!` and `£` count.

Where words have no blanks between them each letter is one, and n-grams of two are its words.
"""
_WORDS = {1: r"(?u)\w+|[^\w\s]", 2: WORD}
"""Patterns of words by `Vocabulary.words`."""


class Text(NamedTuple):
    """Texts (str or None) as tokens, at most `max_tokens` a row; see `Vocabulary`."""

    vocabulary: int
    ngrams: tuple[int, int]
    analyzer: str
    max_tokens: int


@dataclass(frozen=True)
class Vocabulary:
    """The V n-grams of one column by descending document frequency, and their weights."""

    name: str
    analyzer: str
    ngrams: tuple[int, int]  # shortest and longest
    most: int  # tokens of a row
    terms: tuple[str, ...]
    idf: np.ndarray  # (V), float32
    start: int  # the table's row of the first n-gram
    words: int = 1  # how texts are cut into words; bundles of before have no field

    @classmethod
    def fit(cls, name: str, encoding: Text, texts: np.ndarray, start: int) -> Vocabulary:
        """The n-grams in most documents; those of one document only where there are no others."""
        words = max(_WORDS)
        analyze = _analyzer(encoding.analyzer, encoding.ngrams, words)
        frequency: Counter[str] = Counter()
        for text in texts.tolist():
            if text is not None:
                frequency.update(set(analyze(text)))
        repeated = {term: count for term, count in frequency.items() if count > 1} or frequency
        terms = sorted(repeated, key=lambda term: (-repeated[term], term))[: encoding.vocabulary]
        idf = [math.log((1 + len(texts)) / (1 + frequency[term])) + 1 for term in terms]
        return cls(
            name=name,
            analyzer=encoding.analyzer,
            ngrams=encoding.ngrams,
            most=encoding.max_tokens,
            terms=tuple(terms),
            idf=np.array(idf, np.float32),
            start=start,
            words=words,
        )

    @cached_property
    def _analyze(self) -> Callable[[str], list[str]]:
        return _analyzer(self.analyzer, self.ngrams, self.words)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {term: row for row, term in enumerate(self.terms, self.start)}

    @cached_property
    def _idf(self) -> list[float]:
        idf: list[float] = self.idf.tolist()
        return [0.0] * self.start + idf

    def bag(self, text: str | None) -> Bag:
        if text is None:
            return []
        rows, idf = self._rows, self._idf
        counts = Counter([rows[term] for term in self._analyze(text) if term in rows])
        bag = [(row, count * idf[row]) for row, count in counts.items()]
        if len(bag) > self.most:
            bag = sorted(bag, key=lambda token: (-token[1], token[0]))[: self.most]
        norm = math.sqrt(sum([weight * weight for _, weight in bag]))
        return [(row, weight / norm) for row, weight in bag]


def fit(encodings: Mapping[str, Text], columns: schema.Columns) -> tuple[Vocabulary, ...]:
    """One vocabulary for each column."""
    vocabularies: list[Vocabulary] = []
    start = 1
    for name, encoding in encodings.items():
        vocabularies.append(Vocabulary.fit(name, encoding, columns[name], start))
        start += len(vocabularies[-1].terms)
    return tuple(vocabularies)


def table_rows(vocabularies: Sequence[Vocabulary]) -> int:
    """0 without text columns."""
    return vocabularies[-1].start + len(vocabularies[-1].terms) if vocabularies else 0


def apply(
    vocabularies: Sequence[Vocabulary], columns: schema.Columns
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens i32 (B, T) and weights f32 (B, T); the fullest row sets T, which is at least 1."""
    found = [[v.bag(text) for text in columns[v.name].tolist()] for v in vocabularies]
    bags = found[0]
    if len(found) > 1:
        bags = [list(itertools.chain(*row)) for row in zip(*found, strict=True)]
    widest = max(1, max(map(len, bags), default=1))
    tokens_BT = np.zeros((len(bags), widest), np.int32)
    weights_BT = np.zeros((len(bags), widest), np.float32)
    for place, bag in enumerate(bags):
        if bag:
            rows, weights = zip(*bag, strict=True)
            tokens_BT[place, : len(bag)] = rows
            weights_BT[place, : len(bag)] = weights
    return tokens_BT, weights_BT


def _analyzer(analyzer: str, ngrams: tuple[int, int], words: int) -> Callable[[str], list[str]]:
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(analyzer=analyzer, ngram_range=ngrams, token_pattern=_WORDS[words])
    analyze: Callable[[str], list[str]] = vectorizer.build_analyzer()
    return analyze
