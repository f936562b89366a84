"""Tensors of the Open Inference Protocol: one column's values as JSON or as bytes.

Datatypes: https://github.com/kserve/open-inference-protocol; binary form: Triton's extension
`binary_tensor_data`. Legend: N rows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from eagleray import errors
from eagleray.learn import schema
from serving import protocol

_NUMBERS = {
    "FP64": ("<f8", float),
    "FP32": ("<f4", float),
    **{f"INT{bits}": (f"<i{bits // 8}", int) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (f"<u{bits // 8}", int) for bits in (8, 16, 32, 64)},
}
_TYPES: dict[str, tuple[str, type]] = {**_NUMBERS, "BOOL": ("?", bool), "BYTES": ("", str)}
_TAKEN = {"FP64": frozenset(_NUMBERS), "BOOL": frozenset({"BOOL", "BYTES"})}
"""The datatypes in which a column of a datatype may be sent, if others than its own."""


class Tensor(msgspec.Struct):
    """An input as a request has it; `data` is None where its values are in the binary part."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None

    @property
    def binary_size(self) -> int | None:
        return self.parameters.get("binary_data_size")


def taken(wanted: str | None) -> frozenset[str]:
    """The datatypes that a column of datatype `wanted` may be sent as; all, if it is None."""
    return frozenset(_TYPES) if wanted is None else _TAKEN.get(wanted, frozenset({wanted}))


def values(tensor: Tensor, wanted: str | None, binary: memoryview) -> schema.Raw:
    """The values (N) of an input, for a column of datatype `wanted`; RequestError names it.

    `wanted` is None where no column has the input's name.
    """
    if tensor.datatype not in (known := taken(wanted)):
        law = f"the datatype must be {' or '.join(sorted(known))}"
        raise _error(tensor, f"{law}, but got {tensor.datatype[:100]!r}")
    count = _rows(tensor)
    if tensor.binary_size is None:
        return _from_json(tensor, count)
    return _texts(tensor, count, binary) if tensor.datatype == "BYTES" else _array(tensor, binary)


def _rows(tensor: Tensor) -> int:
    """The number of rows by the shape, which is [N] or [N, 1]."""
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ([], [1]) or tensor.shape[0] < 0:
        raise _error(tensor, f"the shape must be [N] or [N, 1], but got {tensor.shape[:10]}")
    protocol.check_rows(tensor.shape[0])
    return tensor.shape[0]


def _from_json(tensor: Tensor, count: int) -> schema.Raw:
    if tensor.data is None:
        raise _error(tensor, "data or the parameter binary_data_size is needed, but got neither")
    flat: list[Any] = []
    for item in tensor.data:
        flat.extend(item) if isinstance(item, list) else flat.append(item)
    kind: Any = _TYPES[tensor.datatype][1]
    try:
        read: list[Any] = msgspec.convert(flat, list[kind | None])
    except msgspec.ValidationError as cause:
        raise _error(tensor, f"data must be {tensor.datatype}, but {cause}") from cause
    if len(read) != count:
        raise _error(tensor, f"the shape asks for {count} values, but got {len(read)}")
    return read


def _array(tensor: Tensor, binary: memoryview) -> np.ndarray:
    dtype = np.dtype(_TYPES[tensor.datatype][0])
    size = tensor.shape[0] * dtype.itemsize
    if len(binary) != size:
        raise _error(tensor, f"the shape asks for {size} bytes, but got {len(binary)}")
    if tensor.datatype == "BOOL" and not set(bytes(binary)) <= {0, 1}:
        raise _error(tensor, "each byte of a BOOL must be 0 or 1, but got another")
    array = np.frombuffer(binary, dtype)
    if np.isinf(array).any():
        raise _error(tensor, "a finite number is needed, but got Infinity")
    return array


def _texts(tensor: Tensor, count: int, binary: memoryview) -> list[str]:
    """Texts, each after its length in four bytes."""
    texts, position = [], 0
    try:
        for _ in range(count):
            (size,) = struct.unpack_from("<I", binary, position)
            position += 4 + size
            if position > len(binary):
                break
            texts.append(str(binary[position - size : position], "utf-8"))
    except struct.error:
        position = len(binary) + 1
    except UnicodeDecodeError as cause:
        raise _error(tensor, "each text must be UTF-8, but got other bytes") from cause
    if position != len(binary):
        law = f"{count} texts and their lengths must fill the binary data"
        raise _error(tensor, f"{law}, but its {len(binary)} bytes do not fit them")
    return texts


def written(datatype: str, values: Sequence[Any]) -> bytes:
    """Values in binary form."""
    if datatype != "BYTES":
        return np.asarray(values, _TYPES[datatype][0]).tobytes()
    encoded = [str(text).encode() for text in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def _error(tensor: Tensor, message: str) -> errors.RequestError:
    return errors.RequestError(message, field=tensor.name[:100])
