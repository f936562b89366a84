"""The protocol of an engine, and what a model that was made elsewhere says of itself.

Legend: B rows, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from eagleray.learn import features


class Engine(Protocol):
    """Runs a model; safe to call from several threads."""

    name: ClassVar[str]  # in bundles and on the command line
    chunk: int  # rows that `run` takes at most, see `engines.run`
    tolerance: float  # largest error of a golden output, relative to max(1, |output|)

    @classmethod
    def load(
        cls,
        described: Mapping[str, Any],
        files: Mapping[str, bytes],
        shape: features.Shape,
        outputs: int,
    ) -> Engine:
        """Load what `describe` and `files` gave; `shape` and C `outputs` are the bundle's."""

    def run(self, inputs: features.Inputs) -> np.ndarray:
        """Raw outputs (B, C), floating-point, of B rows by the name of the model's input."""

    def describe(self) -> dict[str, Any]:
        """Keys of `bundle.json` that `load` needs, as JSON."""

    def files(self) -> dict[str, bytes]:
        """The bundle's files that hold the model, by path."""


@runtime_checkable
class Remembering(Engine, Protocol):
    """An engine that leaves out of a row's answer what is known of its user."""

    def remember(self, inputs: features.Inputs, target_B: np.ndarray) -> None:
        """Leave these targets of the rows out of later answers."""

    def forget(self) -> None:
        """Forget all of them."""

    def baselines(self) -> dict[str, Callable[[features.Inputs], np.ndarray]]:
        """Raw outputs of plain models by name, which leave out the same."""


class Input(NamedTuple):
    """An input of a model that was made elsewhere."""

    name: str
    dtype: str  # of numpy: `float32`, `int64`, `bool` and the like; `object` for texts
    width: int | None = None  # columns (B, width); None for any number
    is_flat: bool = False  # whether it is (B) in place of (B, 1)
    columns: tuple[str, ...] = ()  # names of its columns; empty where the model has none


class Output(NamedTuple):
    """What a model that was made elsewhere gives for B rows."""

    raw_BC: np.ndarray
    labels: Sequence[object] | None = None  # the class that it predicts for each row
    classes: tuple[str, ...] = ()  # of the C outputs, in order; empty where the model has none


class Imported(Engine, Protocol):
    """An engine of models that were made elsewhere, each a file; `eagleray models add` takes it."""

    library: ClassVar[str]  # the package that runs the model
    inputs: tuple[Input, ...]
    classifies: bool | None  # whether it has classes; None where the file does not say
    made_with: str  # program that wrote the file; empty where it does not say

    @classmethod
    def read(cls, content: bytes, *, output: str | None = None) -> Imported:
        """Read a model's file; `output` names one of its outputs, where there are several.

        UserError where the file is no such model, or one that cannot be served.
        """

    def explore(self, inputs: features.Inputs) -> Output:
        """Run the model, and tell all that it gives."""
