"""Rows that repeat others, and which of them chance does not explain. Legend: B rows.

Rows of few different values repeat by chance. A row whose values are so frequent that another one
may have them by chance does not count; columns are taken for less independent than they look.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from eagleray.learn import columns
from eagleray.learn.schema import Column

DEPENDENT, SPARE_BITS, RICH_BITS = 0.6, 2.0, 1000.0
"""Share of a row's bits that counts, bits above those of the rows' number from which a repetition
is no chance, and bits of a text or a picture."""


@dataclass(frozen=True)
class Rows:
    """Hashes of rows (B).

    Attributes:
        inputs_B: of the inputs.
        whole_B: of the inputs and all else that makes rows different.
        telling_B: whether another row can hardly have these inputs by chance.
    """

    inputs_B: np.ndarray
    whole_B: np.ndarray
    telling_B: np.ndarray

    @property
    def alike_B(self) -> np.ndarray:
        """Whether a row (B) is equal to an earlier one."""
        alike_B: np.ndarray = ~columns.first_of_each(self.whole_B)
        return alike_B

    @property
    def repeated_B(self) -> np.ndarray:
        """Whether a row (B) is equal to an earlier one, and hardly by chance."""
        repeated_B: np.ndarray = self.alike_B & self.telling_B
        return repeated_B


def rows(
    inputs: Iterable[tuple[Column, np.ndarray]],
    beside: Iterable[np.ndarray] = (),
    *,
    blurred: bool = False,
) -> Rows:
    """Hash rows by their inputs, canonical, and by arrays `beside` them, such as the target.

    With `blurred`, inputs that nearly are the same have one hash.
    """
    hashes, bits_B = list[np.ndarray](), np.zeros(1)
    for column, array in inputs:
        hash_B = columns.hashed(column.kind.blurred(array) if blurred else array)
        present_B = ~columns.missing_rows(array)
        bits_B = bits_B + present_B * (RICH_BITS if column.kind.is_rich else _bits(hash_B))
        hashes.append(hash_B)
    telling_B = bits_B * DEPENDENT >= np.log2(max(2, len(hashes[0]))) + SPARE_BITS
    whole_B = columns.joined([*hashes, *map(columns.hashed, beside)])
    return Rows(columns.joined(hashes), whole_B, telling_B)


def _bits(hash_B: np.ndarray) -> np.ndarray:
    """How little each value is to be expected (B), in bits."""
    import pandas as pd

    code_B, _ = pd.factorize(hash_B)
    bits_B: np.ndarray = -np.log2(np.bincount(code_B) / len(hash_B))[code_B]
    return bits_B
