"""`ensemble`: several models as one, whose answer is the weighted mean of theirs.

    members/{n}/…    the files of each member, as its own engine has them
    code/{module}.py source of the user's architecture, which members share

Legend: B rows, C outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np

from eagleray import code, engines
from eagleray.engines.engine import Engine
from eagleray.learn import features
from eagleray.learn.tasks import Averaged

FOLDER = "members/{number}/"
_LEAST = 1e-30
"""Least mean probability, whose logarithm is a raw output."""


class Member(NamedTuple):
    """A model of an ensemble; `encoding` is the place of its transforms among the bundle's."""

    engine: Engine
    weight: int  # relative to the others'
    shape: features.Shape  # of its inputs
    encoding: int = 0
    factor: float = 1.0  # its raw outputs times it, plus the offset, are on the ensemble's scale
    offset: float = 0.0


class Ensemble:
    """Runs its members one after another."""

    name: ClassVar[str] = "ensemble"

    def __init__(self, members: Sequence[Member], averaged: Averaged) -> None:
        self.members, self._averaged = tuple(members), averaged
        self.chunk = max(one.engine.chunk for one in members)
        self.tolerance = max(one.engine.tolerance for one in members)
        self._total = sum(one.weight for one in members)

    @classmethod
    def load(
        cls,
        described: Mapping[str, Any],
        files: Mapping[str, bytes],
        shape: features.Shape,
        outputs: int,
    ) -> Ensemble:
        members = [
            _member(one, _own(files, number), outputs)
            for number, one in enumerate(described["members"])
        ]
        return cls(members, described["averaged"])

    def run(self, inputs: features.Inputs) -> np.ndarray:
        """The mean of raw outputs, or the logarithm of the mean of probabilities."""
        parts = (self._weighted(one, own) for one, own in self.parts(inputs))
        mean_BC: np.ndarray = sum(parts, np.zeros(1)) / self._total
        if self._averaged == "raw":
            return mean_BC
        logarithm_BC: np.ndarray = np.log(np.maximum(mean_BC, _LEAST))
        return logarithm_BC

    def parts(self, inputs: features.Inputs) -> Iterator[tuple[Member, features.Inputs]]:
        """Each member with its own inputs."""
        own = [features.several.of(inputs, place) for place in range(self._encodings)]
        for one in self.members:
            yield one, own[one.encoding]

    def describe(self) -> dict[str, Any]:
        members = [
            {
                "engine": one.engine.name,
                "weight": one.weight,
                "shape": dataclasses.asdict(one.shape),
                "encoding": one.encoding,
                "factor": one.factor,
                "offset": one.offset,
                **one.engine.describe(),
            }
            for one in self.members
        ]
        return {"members": members, "averaged": self._averaged}

    def files(self) -> dict[str, bytes]:
        return {
            path if path.startswith(code.FOLDER) else FOLDER.format(number=number) + path: content
            for number, one in enumerate(self.members)
            for path, content in one.engine.files().items()
        }

    @property
    def _encodings(self) -> int:
        return 1 + max(one.encoding for one in self.members)

    def _weighted(self, one: Member, inputs: features.Inputs) -> np.ndarray:
        raw_BC: np.ndarray = engines.run(one.engine, inputs).astype(np.float64)
        if self._averaged == "probabilities":
            raw_BC = np.exp(raw_BC - raw_BC.max(1, keepdims=True))
            raw_BC /= raw_BC.sum(1, keepdims=True)
        return one.weight * (one.factor * raw_BC + one.offset)


def _member(described: Mapping[str, Any], files: Mapping[str, bytes], outputs: int) -> Member:
    shape = msgspec.convert(described["shape"], features.Shape, strict=False)
    return Member(
        engines.load(described, files, shape, outputs),
        described["weight"],
        shape,
        described["encoding"],
        described["factor"],
        described["offset"],
    )


def _own(files: Mapping[str, bytes], number: int) -> dict[str, bytes]:
    """The files of a member by its own paths."""
    folder = FOLDER.format(number=number)
    own = {path.removeprefix(folder): files[path] for path in files if path.startswith(folder)}
    return own | {path: files[path] for path in files if path.startswith(code.FOLDER)}
