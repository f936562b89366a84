"""Tensors in safetensors files: written as streams that copy nothing, read mapped.

The format is https://github.com/huggingface/safetensors#format: the length of a JSON header in 8
bytes, the header, then each tensor's bytes. The library writes it from a copy of the whole.

A file may hold a part of a tensor: some of its rows. Its metadata says which, as JSON, in `rows`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from eagleray import errors
from eagleray.storage import streams

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class RowRange(NamedTuple):
    """A range of rows of a tensor: the shard that one worker holds."""

    start: int
    stop: int
    total: int  # of the whole tensor


class Reader:
    """Reads the tensors of one file, or of several that hold shards of them, by rank.

    Names begin with `prefix`, which is left out. Nothing is read before it is used.
    """

    def __init__(self, paths: Iterable[Path], prefix: str = "") -> None:
        self._files: list[Any] = [safe_open(path, "pt") for path in paths]  # untyped
        about = [file.metadata() or {} for file in self._files]
        self._rows = [json.loads(one.get("rows", "{}")) for one in about]
        self._prefix, self.metadata = prefix, about[0]

    def names(self) -> list[str]:
        found, cut = self._files[0].keys(), len(self._prefix)
        return [name[cut:] for name in found if name.startswith(self._prefix)]

    def read(self, name: str, wanted: RowRange | None = None) -> Tensor:
        """A tensor, or the rows of it that are wanted; it may be mapped memory.

        Raises:
            CorruptObjectError: the files do not hold all of them.
        """
        values: list[Tensor] = [one.get_tensor(self._prefix + name) for one in self._files]
        if not values[0].dim():
            return values[0]
        found = list[Tensor]()
        for value, rows in zip(values, self._rows, strict=True):
            held = RowRange(*rows.get(name, (0, len(value), len(value))))
            wanted = wanted or RowRange(0, held.total, held.total)
            start, stop = max(held.start, wanted.start), min(held.stop, wanted.stop)
            if start < stop and wanted.start + sum(map(len, found)) == start:
                found.append(value[start - held.start : stop - held.start])
        count = sum(map(len, found))
        if wanted is None or count != wanted.stop - wanted.start:
            law = f"{name}: parts must hold all rows that are wanted"
            raise errors.CorruptObjectError(f"{law}, but of {wanted} got {count}")
        return torch.cat(found) if len(found) > 1 else found[0] if found else values[0][:0]


def stream(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    rows: Mapping[str, RowRange] | None = None,
) -> streams.Buffers:
    """Stream contiguous tensors in host memory as a safetensors file, without copies.

    They must stay unchanged until it is read. `rows` says of each shard which rows it has.
    """
    about = {**metadata, **({"rows": json.dumps(rows)} if rows else {})}
    header, start = dict[str, object](__metadata__=about), 0
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # aligned
    for name in ordered:
        value, end = tensors[name], start + tensors[name].nbytes
        header[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return streams.Buffers(
        [len(text).to_bytes(8, "little") + text, *(_bytes(tensors[name]) for name in ordered)]
    )


def on_host(
    tensors: Iterable[tuple[str, Tensor]], spare: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Copy tensors to host memory, contiguous; into those of an earlier copy where they fit.

    Memory that was used before takes less than half of the time.
    """
    with torch.no_grad():
        return {name: _like(value, (spare or {}).get(name)).copy_(value) for name, value in tensors}


def _like(value: Tensor, spare: Tensor | None) -> Tensor:
    if spare is not None and (spare.shape, spare.dtype) == (value.shape, value.dtype):
        return spare
    return torch.empty_like(value, device="cpu", memory_format=torch.contiguous_format)


def _bytes(value: Tensor) -> memoryview:
    return value.reshape(-1).view(torch.uint8).numpy().data
