"""The engine of a bundle whose model runs in another process; see `bundle.outline`."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import numpy as np

from eagleray import errors
from eagleray.learn import features


class Absent:
    """Stands for a model; it runs nothing."""

    name: ClassVar[str] = "absent"
    chunk, tolerance = 1, 0.0

    @classmethod
    def load(cls, *_: object) -> Absent:
        return cls()

    def run(self, _: features.Inputs) -> np.ndarray:
        self._refuse()

    def describe(self) -> dict[str, Any]:
        self._refuse()

    def files(self) -> dict[str, bytes]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise errors.ServingError("the model must be in this process, but runs in another one")
