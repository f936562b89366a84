"""`export`: programs of `torch.export`, see `program`. Legend: B rows, C outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from eagleray import errors, messages, names
from eagleray.engines import placement, program
from eagleray.engines.engine import Input, Output
from eagleray.engines.torch import CHUNKS
from eagleray.learn import arrays, features

FILE = "model.pt2"
_NUMPY = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.int16: "int16",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.bool: "bool",
}


class Export:
    """A program on the device of this process."""

    name: ClassVar[str] = "export"
    library: ClassVar[str] = "torch"
    classifies: bool | None = None

    def __init__(self, content: bytes, output: str | None = None) -> None:
        place = placement.now()
        self._content, self._device = content, torch.device(place.device)
        self._program = program.read(content, self._device)
        self.chunk, self.tolerance = CHUNKS[place.device], placement.TOLERANCES["fp32"]
        self.made_with = f"torch {self._program.version}"
        self.inputs = tuple(_input(*pair) for pair in self._program.inputs.items())
        self._output = _output(self._program.outputs, output)

    @classmethod
    def read(cls, content: bytes, *, output: str | None = None) -> Export:
        return cls(content, output)

    @classmethod
    def load(
        cls,
        described: Mapping[str, Any],
        files: Mapping[str, bytes],
        shape: features.Shape,
        outputs: int,
    ) -> Export:
        return cls(files[FILE], described["output"])

    def run(self, inputs: features.Inputs) -> np.ndarray:
        tensors = {name: arrays.tensor(value).to(self._device) for name, value in inputs.items()}
        with torch.inference_mode():
            given = self._program.run(tensors, self._output)
            raw: np.ndarray = given.reshape(len(given), -1).double().cpu().numpy()
        return raw

    def explore(self, inputs: features.Inputs) -> Output:
        try:
            return Output(self.run(inputs))
        except Exception as cause:  # torch raises anything for what does not fit
            law = "the model must answer the example"
            why = messages.shortened((str(cause).splitlines() or [repr(cause)])[0], 300)
            raise errors.UserError(f"{law}, but {why}") from cause

    def describe(self) -> dict[str, Any]:
        return {"output": self._output}

    def files(self) -> dict[str, bytes]:
        return {FILE: self._content}


def _input(name: str, meta: Mapping[str, Any]) -> Input:
    dtype, sizes = (
        _NUMPY.get(program.DTYPES.get(meta["dtype"], torch.bfloat16)),
        program.sizes(meta),
    )
    if dtype is None or not 1 <= len(sizes) <= 2:
        raise errors.UserError(
            f"input {name}: must be numbers of (rows) or (rows, columns), but is of {len(sizes)} "
            f"dimensions and dtype {meta['dtype']}"
        )
    if sizes[0] is not None:
        raise errors.UserError(
            f"input {name}: must take any number of rows, but takes {sizes[0]}; "
            "export it with a first dimension that is dynamic (dynamic_shapes)"
        )
    if len(sizes) == 1:
        return Input(name, dtype, 1, is_flat=True)
    return Input(name, dtype, sizes[1])


def _output(given: tuple[str, ...], chosen: str | None) -> str:
    if chosen is None and len(given) == 1:
        return given[0]
    if chosen not in given:
        near = names.near(chosen or "", given)
        got = "several; choose with --output" if chosen is None else f"got {chosen!r}{near}"
        raise errors.UserError(f"output: must be one of {', '.join(given)}, but {got}")
    return chosen
