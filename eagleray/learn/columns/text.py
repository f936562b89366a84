"""`text`: prose, not names."""

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pydantic
from pydantic import AfterValidator, Field, Strict
from pydantic_core import PydanticCustomError

from eagleray.learn import features
from eagleray.learn.columns import fields
from eagleray.learn.columns.arrow import Distinct
from eagleray.learn.columns.column import Column
from eagleray.learn.columns.kind import Guess
from eagleray.learn.columns.made import Own
from eagleray.learn.columns.words import WordKind
from eagleray.learn.needs import Need

HASHED, COMPONENTS = 1 << 12, 30
"""Words that quick models tell apart, and numbers that they are given of them."""

_UNSPACED = re.compile(f"[{features.texts.UNSPACED}]")
_LETTERS_OF_ONE = 3  # that say as much as one of Han, kana and their like

Size = Annotated[int, Field(ge=1)]


def _ascending(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise PydanticCustomError("law", "must be [shortest, longest]")
    return value


class Options(pydantic.BaseModel):
    vocabulary: Size = Field(20_000, description="text: most frequent n-grams that count.")
    ngrams: Annotated[tuple[Size, Size], Strict(False), AfterValidator(_ascending)] = Field(
        (1, 2), description="text: shortest and longest n-gram."
    )
    analyzer: Literal["word", "char_wb"] = Field(
        "word", description="text: n-grams of words, or of letters inside words."
    )
    max_tokens: Size = Field(256, description="text: n-grams of one row that count.")
    encoder: Own | None = Field(
        None, description="text: your function that gives vectors, in place of n-grams."
    )


class Text(WordKind):
    name = "text"
    need = "text"
    measured = "number of words in {}"
    options = Options
    is_rich = True
    markers = frozenset({""})
    dependent: ClassVar = dict.fromkeys(
        ("vocabulary", "ngrams", "analyzer", "max_tokens"),
        Need("encoder", "would do nothing beside encoder", lambda encoder: encoder is None),
    )

    def infer(self, texts: Distinct, *, named: bool) -> Guess | None:
        """Text where many values are distinct, and are long or almost all distinct."""
        counts = texts.counts
        many, mostly_distinct = len(counts) > 100, len(counts) * 2 > counts.total()
        words = sum(len(text.split()) for text in counts) / len(counts)
        letters = sum(map(_letters, counts)) / len(counts)
        long = words >= 3 or letters >= 40
        fits = (many or mostly_distinct) if long else (many and mostly_distinct)
        return Guess() if fits else None

    def encoding(self, options: Any) -> features.Encoding:
        if options.encoder is not None:
            return features.Vector(options.encoder)
        return features.Text(**{name: getattr(options, name) for name in features.Text._fields})

    def simplified(self, text: str) -> str:
        """Its letters."""
        return "".join(filter(str.isalpha, text.casefold())) or text

    def traits(self, array: np.ndarray) -> np.ndarray:
        """The number of words, and the leading components of hashed words."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import HashingVectorizer

        hashing = HashingVectorizer(n_features=HASHED, token_pattern=features.texts.WORD)
        words = hashing.transform(["" if text is None else text for text in array.tolist()])
        reduced = TruncatedSVD(COMPONENTS, n_iter=2, random_state=0).fit_transform(words)
        return np.column_stack([self.quantity(array), reduced])

    def field(
        self, column: Column, examples: Sequence[Any], extremes: fields.Range | None
    ) -> fields.Field:
        return fields.Field(control="lines", value=fields.written(examples[0]))

    def quantity(self, array: np.ndarray) -> np.ndarray:
        """The number of words."""
        words = [math.nan if text is None else len(text.split()) for text in array.tolist()]
        return np.array(words, np.float64)


TEXT = Text()


def _letters(text: str) -> int:
    """How long a text is, in letters of a script with blanks between words."""
    wide = 0 if text.isascii() else len(_UNSPACED.findall(text))
    return len(text) + (_LETTERS_OF_ONE - 1) * wide
