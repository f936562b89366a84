"""`onnx`: models in ONNX, by ONNX Runtime. Legend: B rows, C outputs.

https://onnx.ai, https://onnxruntime.ai. A file is data, and names operators of the runtime.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import onnxruntime

from eagleray import errors, messages, names
from eagleray.engines import placement
from eagleray.engines.engine import Input, Output
from eagleray.learn import features

FILE = "model.onnx"
NO_FOLDER = "/dev/null/"
"""Where weights outside the file would be looked for: nowhere."""
_QUIET = 4  # log level: what is wrong is raised
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}
_LABELS = ("tensor(int64)", "tensor(int32)", "tensor(string)")
_ZIPPED = re.compile(r"seq\(map\((?:string|int64),tensor\((?:float|double)\)\)\)")  # of skl2onnx


class Onnx:
    """A session on the cores of this process."""

    name: ClassVar[str] = "onnx"
    library: ClassVar[str] = "onnxruntime"
    chunk = 1024
    classifies: bool | None = None

    def __init__(self, content: bytes, output: str | None = None) -> None:
        self._content, self._session = content, session(content)
        self.tolerance = placement.TOLERANCES["fp32"]
        self.made_with = " ".join(_producer(self._session))
        self.inputs = tuple(_input(one) for one in self._session.get_inputs())
        given = {one.name: one.type for one in self._session.get_outputs()}
        self._output = _scores(given, output)
        self._labels = next((name for name in given if given[name] in _LABELS), None)

    @classmethod
    def read(cls, content: bytes, *, output: str | None = None) -> Onnx:
        return cls(content, output)

    @classmethod
    def load(
        cls,
        described: Mapping[str, Any],
        files: Mapping[str, bytes],
        shape: features.Shape,
        outputs: int,
    ) -> Onnx:
        return cls(files[FILE], described["output"])

    def run(self, inputs: features.Inputs) -> np.ndarray:
        return _matrix(self._session.run([self._output], inputs)[0])

    def explore(self, inputs: features.Inputs) -> Output:
        wanted = [self._output, *([self._labels] if self._labels else [])]
        try:
            scores, *labels = self._session.run(wanted, inputs)
        except Exception as cause:  # ONNX Runtime has errors of its own
            raise errors.UserError(
                f"the model must answer the example, but {_why(cause)}"
            ) from cause
        classes = tuple(map(str, scores[0])) if isinstance(scores, list) and scores else ()
        return Output(_matrix(scores), labels[0].reshape(-1).tolist() if labels else None, classes)

    def describe(self) -> dict[str, Any]:
        return {"output": self._output}

    def files(self) -> dict[str, bytes]:
        return {FILE: self._content}


def session(content: bytes) -> onnxruntime.InferenceSession:
    """A session on the cores of this process; UserError where the content is no model for it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = placement.now().threads, 1
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # replicas share cores
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", NO_FOLDER
    )
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # ONNX Runtime has errors of its own
        version = onnxruntime.__version__
        raise errors.UserError(
            "a model in ONNX, in one file and of operators that ONNX Runtime "
            f"{version} has, is needed, but {_why(cause)}"
        ) from cause


def _why(cause: Exception) -> str:
    """The runtime's message without its code, source file and function."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(cause).strip())
    text = re.sub(r"/onnxruntime_src/\S+ .*?\) (?=[^)]*$)", "", text.splitlines()[0])
    return messages.shortened(text, 300)


def _producer(session: onnxruntime.InferenceSession) -> list[str]:
    return [part for part in (session.get_modelmeta().producer_name,) if part]


def _input(one: Any) -> Input:
    dtype, shape = _DTYPES.get(one.type), list(one.shape)
    if dtype is None:
        known = ", ".join(_DTYPES.values())
        raise errors.UserError(
            f"input {one.name}: must be of one of {known} (object: texts), but is {one.type}"
        )
    if not 1 <= len(shape) <= 2:
        raise errors.UserError(
            f"input {one.name}: must be (rows) or (rows, columns), but is {shape}"
        )
    if isinstance(shape[0], int):
        raise errors.UserError(
            f"input {one.name}: must take any number of rows, but takes {shape[0]}; "
            "export it with a first axis that is dynamic"
        )
    if len(shape) == 1:
        return Input(one.name, dtype, 1, is_flat=True)
    return Input(one.name, dtype, shape[1] if isinstance(shape[1], int) else None)


def _scores(given: Mapping[str, str], chosen: str | None) -> str:
    """The output with numbers: the only one, or the one that is chosen."""
    numbers = [name for name in given if _is_scores(given[name])]
    shown = ", ".join(f"{name} {kind}" for name, kind in given.items())
    if chosen is not None and chosen not in numbers:
        near = names.near(chosen, numbers)
        raise errors.UserError(
            f"output: must be one with numbers, of {shown}, but got {chosen!r}{near}"
        )
    if chosen is None and len(numbers) != 1:
        many = f"has {', '.join(numbers)}; choose with --output" if numbers else f"gives {shown}"
        raise errors.UserError(f"the model must give numbers in one output, but {many}")
    return chosen or numbers[0]


def _is_scores(kind: str) -> bool:
    return kind in ("tensor(float)", "tensor(double)", "tensor(float16)") or bool(
        _ZIPPED.fullmatch(kind)
    )


def _matrix(scores: Any) -> np.ndarray:
    """(B, C) from (B), (B, C), or a mapping from class to number for each row."""
    if isinstance(scores, list):
        return np.array([list(row.values()) for row in scores])
    matrix: np.ndarray = scores.reshape(len(scores), -1) if scores.ndim else scores.reshape(1, 1)
    return matrix
