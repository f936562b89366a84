"""Which part a streamed row is in, from its place alone. Legend: B rows.

Each row has a number in [0, 1), its lot, which follows from the seed, its file and its number in
the file. A part is a range of lots: it has about its share of the rows, and no row's part depends
on another row.

    0 ……… test │ … │ split.test ……… validation │ ……… │ sample ……… 1

What is in none of the ranges is trained on, and so is the sample, which transforms are fitted on.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from eagleray import spec

TRAIN, SAMPLE, VALIDATION, TEST = range(4)


@dataclass(frozen=True)
class Ranges:
    """How wide the ranges of lots are."""

    split: spec.Split
    test: float
    validation: float
    sample: float

    @classmethod
    def of(cls, split: spec.Split, rows: float, most: int) -> "Ranges":
        """Ranges of at most `most` of so many rows each, and at most the shares of `split`."""
        width = most / max(1.0, rows)
        rest = 1 - split.test - split.validation
        return cls(split, min(split.test, width), min(split.validation, width), min(rest, width))

    def within(self, other: "Ranges") -> "Ranges":
        """These ranges, none wider than the other's."""
        names = ("test", "validation", "sample")
        return Ranges(self.split, *(min(getattr(self, n), getattr(other, n)) for n in names))

    def parts(self, lot_B: np.ndarray) -> np.ndarray:
        """The part of each row (B), int8."""
        part_B, start = np.full(len(lot_B), TRAIN, np.int8), self.split.test
        part_B[lot_B >= 1 - self.sample] = SAMPLE
        part_B[(lot_B >= start) & (lot_B < start + self.validation)] = VALIDATION
        part_B[lot_B < self.test] = TEST
        return part_B


def lots(seed: int, file: int, first: int, count: int) -> np.ndarray:
    """The lots of `count` rows of a file, from the row `first` on (B); the same on every machine.

    Source: the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
    """
    base = hashlib.sha256(f"{seed} {file}".encode()).digest()
    z = np.arange(first, first + count, dtype=np.uint64)
    z += np.uint64(int.from_bytes(base[:8], "little"))
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    lot_B: np.ndarray = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return lot_B
