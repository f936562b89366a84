"""`lightgbm`: the text of a LightGBM booster. Legend: B rows, F columns, C outputs.

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

    def __init__(self, content: bytes) -> None:
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
        return cls(files[FILE])

    def run(self, inputs: features.Inputs) -> np.ndarray:
        raw = self._booster.predict(inputs[INPUT], num_threads=placement.now().threads)
        return np.asarray(raw).reshape(len(inputs[INPUT]), -1)

    def explore(self, inputs: features.Inputs) -> Output:
        return Output(self.run(inputs))

    def describe(self) -> dict[str, Any]:
        return {}

    def files(self) -> dict[str, bytes]:
        return {FILE: self._content}
