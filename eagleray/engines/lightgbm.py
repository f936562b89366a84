"""`lightgbm`: the text of a LightGBM booster. Legend: B rows, F columns, C outputs.

A booster that was made elsewhere takes the columns as they are, and gives what its file says; one
that EagleRay has trained takes encoded inputs (`features.Matrix`), and gives raw outputs.

https://lightgbm.readthedocs.io. Its reader trusts what it reads (a text that is cut makes it read
beyond its memory), so `trees.check` holds the text to its own lengths before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import lightgbm
import numpy as np

from eagleray import errors
from eagleray.engines import placement, trees
from eagleray.engines.engine import Input, Output
from eagleray.learn import features

FILE = "model.txt"
INPUT = "data"
_CLASSES = re.compile(r"(binary|multiclass|multiclassova)\b")  # objectives


class LightGbm:
    """A booster on the cores of this process."""

    name: ClassVar[str] = "lightgbm"
    library: ClassVar[str] = "lightgbm"
    chunk = 16_384
    made_with = "lightgbm"

    def __init__(
        self, content: bytes, matrix: features.Matrix | None = None, outputs: int = 0
    ) -> None:
        self._matrix, self._outputs = matrix, outputs
        self._content, self.tolerance = content, placement.TOLERANCES["fp32"]
        described = trees.check(content)
        try:
            self._booster = lightgbm.Booster(model_str=content.decode("utf-8"))
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as cause:
            raise errors.UserError(f"LightGBM's text is needed, but {cause}") from cause
        self.classifies: bool | None = _CLASSES.match(described["objective"]) is not None
        width, known = self._booster.num_feature(), tuple(self._booster.feature_name())
        named = known != tuple(f"Column_{number}" for number in range(width))
        self.inputs = (Input(INPUT, "float64", width, columns=known if named else ()),)

    @classmethod
    def read(cls, content: bytes, *, output: str | None = None) -> LightGbm:
        if output is not None:
            raise errors.UserError(f"output: LightGBM has only one, but got {output!r}")
        return cls(content)

    @classmethod
    def load(
        cls,
        described: Mapping[str, Any],
        files: Mapping[str, bytes],
        shape: features.Shape,
        outputs: int,
    ) -> LightGbm:
        made = described.get("matrix")
        return cls(files[FILE], features.Matrix.model_validate(made) if made else None, outputs)

    def run(self, inputs: features.Inputs) -> np.ndarray:
        threads = placement.now().threads
        if self._matrix is not None:
            matrix_BF = self._matrix.apply(inputs)
            return raw_outputs(self._booster, matrix_BF, self._outputs, num_threads=threads)
        raw = self._booster.predict(inputs[INPUT], num_threads=threads)
        return np.asarray(raw).reshape(len(inputs[INPUT]), -1)

    def explore(self, inputs: features.Inputs) -> Output:
        return Output(self.run(inputs))

    def describe(self) -> dict[str, Any]:
        return {"matrix": self._matrix.model_dump(mode="json")} if self._matrix else {}

    def files(self) -> dict[str, bytes]:
        return {FILE: self._content}


def raw_outputs(
    booster: lightgbm.Booster, matrix_BF: np.ndarray, outputs: int, **options: Any
) -> np.ndarray:
    """Outputs (B, C) before their activation: values, or logits, of which LightGBM has one of two.

    `options` are those of `Booster.predict`.
    """
    raw = np.asarray(booster.predict(matrix_BF, raw_score=True, **options))
    raw_BC: np.ndarray = raw.reshape(len(matrix_BF), -1)
    if raw_BC.shape[1] < outputs:
        return np.concatenate([np.zeros_like(raw_BC), raw_BC], axis=1)
    return raw_BC
