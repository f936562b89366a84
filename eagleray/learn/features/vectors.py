"""Text columns as vectors of the user's own encoder. Legend: B rows, D numbers of a vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eagleray import code
from eagleray.learn.features import own
from eagleray.learn.features.scales import FURTHEST

if TYPE_CHECKING:
    from eagleray.learn import schema


class Vector(NamedTuple):
    """Texts (str or None) as vectors, by the function `encoder`, `module:function`."""

    encoder: str


@dataclass(frozen=True)
class Encoder:
    """The encoder of one column, and the training part's mean and deviation (2, D), f32."""

    name: str
    function: code.Code
    scaling: np.ndarray

    @classmethod
    def fit(cls, name: str, encoder: code.Code, texts_B: np.ndarray) -> Encoder:
        """CodeError where the function does not give what it must."""
        known = [text for text in texts_B.tolist() if text is not None] or [""]
        vector_BD = own.vectors(encoder, known)
        width = vector_BD.shape[1]
        own.check_rows(encoder, vector_BD, lambda row: own.vectors(encoder, [known[row]], width))
        exact_BD = vector_BD.astype(np.float64)
        deviation = exact_BD.std(axis=0)
        scaling = np.stack([exact_BD.mean(axis=0), np.where(deviation > 1e-30, deviation, 1.0)])
        return cls(name, encoder, scaling.astype(np.float32))

    @property
    def width(self) -> int:
        return int(self.scaling.shape[1])

    def apply(self, columns: schema.Columns) -> np.ndarray:
        """f32 (B, D); a missing text becomes the mean vector."""
        texts = columns[self.name].tolist()
        vector_BD = np.zeros((len(texts), self.width), np.float32)
        rows = [row for row, text in enumerate(texts) if text is not None]
        if rows:
            mean, deviation = self.scaling
            given = own.vectors(self.function, [texts[row] for row in rows], self.width)
            with np.errstate(over="ignore"):
                vector_BD[rows] = ((given - mean) / deviation).clip(-FURTHEST, FURTHEST)
        return vector_BD


def fit(
    encodings: Mapping[str, Vector], columns: schema.Columns, functions: Mapping[str, code.Code]
) -> tuple[Encoder, ...]:
    """An encoder for each column."""
    return tuple(
        Encoder.fit(name, own.resolve(functions, one.encoder), columns[name])
        for name, one in encodings.items()
    )
