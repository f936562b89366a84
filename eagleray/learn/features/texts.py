"""Text columns as bags of weighted tokens.

Each column has its own vocabulary, a run of rows of one table whose row 0 is the padding. A row's
tokens are its known n-grams in order of appearance, weighted by tf-idf (as scikit-learn's
TfidfVectorizer: smooth idf, L2 norm); the heaviest are kept where there are too many.

Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray.learn.features import encodings

if TYPE_CHECKING:
    from eagleray.learn import schema

Bag = list[tuple[int, float]]  # row of the table, weight

WORD = r"(?u)\w+|[^\w\s]"
"""A word of any length, or one sign: unlike scikit-learn's default, `u`, `2`, `!` and `£` count."""


@dataclass(frozen=True)
class Vocabulary:
    """One column's n-grams, and what each is worth.

    Attributes:
        name: the column.
        analyzer: `word` or `char_wb`.
        ngrams: shortest and longest n-gram.
        most: tokens kept for a row.
        terms: the V n-grams, in most documents first.
        idf: (V), float32.
        start: the table's row of the first n-gram.
    """

    name: str
    analyzer: str
    ngrams: tuple[int, int]
    most: int
    terms: tuple[str, ...]
    idf: np.ndarray
    start: int
    _analyze: Callable[[str], list[str]] = field(init=False, repr=False, compare=False)
    _rows: dict[str, int] = field(init=False, repr=False, compare=False)
    _worth: list[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows = {term: self.start + place for place, term in enumerate(self.terms)}
        object.__setattr__(self, "_analyze", _analyzer(self.analyzer, self.ngrams))
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "_worth", [0.0] * self.start + self.idf.tolist())

    def bag(self, text: str | None) -> Bag:
        if text is None:
            return []
        rows, worth = self._rows, self._worth
        counts = Counter([rows[term] for term in self._analyze(text) if term in rows])
        bag = [(row, count * worth[row]) for row, count in counts.items()]
        if len(bag) > self.most:
            bag = sorted(bag, key=lambda token: (-token[1], token[0]))[: self.most]
        norm = math.sqrt(sum([weight * weight for _, weight in bag]))
        return [(row, weight / norm) for row, weight in bag]


@dataclass(frozen=True)
class Texts:
    """Fitted vocabularies of all text columns."""

    vocabularies: tuple[Vocabulary, ...]

    @classmethod
    def fit(
        cls,
        mine: Mapping[str, encodings.Text],
        columns: schema.Columns,
    ) -> Texts:
        vocabularies: list[Vocabulary] = []
        start = 1
        for name, encoding in mine.items():
            vocabularies.append(_learn(name, encoding, columns[name], start))
            start += len(vocabularies[-1].terms)
        return cls(tuple(vocabularies))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(vocabulary.name for vocabulary in self.vocabularies)

    @property
    def table(self) -> int:
        sizes = [len(vocabulary.terms) for vocabulary in self.vocabularies]
        return 1 + sum(sizes) if sizes else 0

    def apply(self, columns: schema.Columns) -> tuple[np.ndarray, np.ndarray]:
        """Tokens i32 (B, T) and weights f32 (B, T); T is what the fullest row needs, at least 1."""
        bags = self._bags(columns)
        widest = max(1, max(map(len, bags), default=1))
        tokens_BT = np.zeros((len(bags), widest), np.int32)
        weights_BT = np.zeros((len(bags), widest), np.float32)
        for place, bag in enumerate(bags):
            if bag:
                rows, weights = zip(*bag, strict=True)
                tokens_BT[place, : len(bag)] = rows
                weights_BT[place, : len(bag)] = weights
        return tokens_BT, weights_BT

    def _bags(self, columns: schema.Columns) -> Sequence[Bag]:
        found = [[v.bag(text) for text in columns[v.name].tolist()] for v in self.vocabularies]
        if len(found) == 1:
            return found[0]
        return [list(itertools.chain(*bags)) for bags in zip(*found, strict=True)]

    def state(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        described = [
            {
                "name": v.name,
                "analyzer": v.analyzer,
                "ngrams": list(v.ngrams),
                "most": v.most,
                "start": v.start,
                "terms": list(v.terms),
            }
            for v in self.vocabularies
        ]
        return described, {f"{place}.idf": v.idf for place, v in enumerate(self.vocabularies)}

    @classmethod
    def from_state(
        cls, state: Sequence[Mapping[str, Any]], tensors: Mapping[str, np.ndarray]
    ) -> Texts:
        vocabularies = [
            Vocabulary(
                name=one["name"],
                analyzer=one["analyzer"],
                ngrams=(one["ngrams"][0], one["ngrams"][1]),
                most=one["most"],
                terms=tuple(one["terms"]),
                idf=tensors[f"{place}.idf"],
                start=one["start"],
            )
            for place, one in enumerate(state)
        ]
        return cls(tuple(vocabularies))


def _learn(name: str, encoding: encodings.Text, texts: np.ndarray, start: int) -> Vocabulary:
    """The n-grams in most documents; those of a single document only where there are no others."""
    analyze = _analyzer(encoding.analyzer, encoding.ngrams)
    frequency: Counter[str] = Counter()
    for text in texts.tolist():
        if text is not None:
            frequency.update(set(analyze(text)))
    repeated = {term: count for term, count in frequency.items() if count > 1} or frequency
    terms = sorted(repeated, key=lambda term: (-repeated[term], term))[: encoding.vocabulary]
    idf = [math.log((1 + len(texts)) / (1 + frequency[term])) + 1 for term in terms]
    return Vocabulary(
        name=name,
        analyzer=encoding.analyzer,
        ngrams=encoding.ngrams,
        most=encoding.max_tokens,
        terms=tuple(terms),
        idf=np.array(idf, np.float32),
        start=start,
    )


def _analyzer(analyzer: str, ngrams: tuple[int, int]) -> Callable[[str], list[str]]:
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(analyzer=analyzer, ngram_range=ngrams, token_pattern=WORD)
    analyze: Callable[[str], list[str]] = vectorizer.build_analyzer()
    return analyze
