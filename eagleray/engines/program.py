"""A program of `torch.export`, read as data and run operator by operator.

`torch.export.load` unpickles, evaluates expressions and executes guards, so whoever writes a file
would write code. Here the graph is JSON, weights are bytes, and only pure operators of ATen run.

    NAME/models/model.json                          graph, signature, schema_version
    NAME/data/weights/model_weights_config.json     file, dtype and strides of each weight
    NAME/data/constants/model_constants_config.json likewise
    NAME/data/weights/weight_0 …                    bytes, little-endian

Schema: torch/_export/serde/schema.py of torch 2.13, major version 8.
"""

from __future__ import annotations

import io
import json
import operator
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload

from eagleray import errors

MAJOR = 8  # of the schema
_GRAPH = "/".join(("models", "model.json"))  # in the archive
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_STRIDED = 7  # the only layout
_STRINGS = frozenset({"none", "tanh", "floor", "trunc", "same", "valid", "mean", "sum"})
_ATEN = re.compile(r"torch\.ops\.aten\.([a-z_0-9]+)\.([a-zA-Z_0-9]+)")
_DATA = re.compile(r"(Optional\[|List\[)*(Tensor|int|float|bool|number|Device)\]*")  # no paths
_ASSERTION = "torch.ops.aten._assert_"  # of what follows from the inputs' dtypes; gives nothing
_ARITHMETIC = re.compile(r"_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge)")
_PARTS = ("parameter", "buffer", "tensor_constant")

Values = dict[str, Any]
"""Tensors and numbers by their name in the graph."""
Read = Callable[[Values], Any]


@dataclass(frozen=True)
class Step:
    """One operator, what it takes of the values, and under which names it gives others."""

    call: Callable[..., Any]
    arguments: tuple[Read, ...]
    keywords: Mapping[str, Read]
    outputs: tuple[str | tuple[str, ...], ...]

    def run(self, values: Values) -> None:
        keywords = {name: read(values) for name, read in self.keywords.items()}
        given = self.call(*(read(values) for read in self.arguments), **keywords)
        several = given if len(self.outputs) > 1 else (given,)
        for name, value in zip(self.outputs, several, strict=True):
            if isinstance(name, str):
                values[name] = value
            else:
                values.update(zip(name, value, strict=True))


@dataclass(frozen=True)
class Program:
    """A graph without side effects; safe to run from several threads."""

    steps: tuple[Step, ...]
    weights: Mapping[str, torch.Tensor]  # by name in the graph
    inputs: Mapping[str, Mapping[str, Any]]  # of the user: dtype and sizes, as the file has them
    outputs: tuple[str, ...]
    version: str  # of the torch that wrote it

    def run(self, inputs: Mapping[str, torch.Tensor], output: str) -> torch.Tensor:
        values: Values = {**self.weights, **inputs}
        for step in self.steps:
            step.run(values)
        result: torch.Tensor = values[output]
        return result


def read(content: bytes, device: torch.device) -> Program:
    """Read a `.pt2` file; UserError where it is damaged, or holds more than data."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read(_Archive(archive), device)
    except errors.UserError:
        raise
    except Exception as cause:  # a damaged or foreign file raises anything
        law = "a file of torch.export.save is needed"
        raise errors.UserError(f"{law}, but {type(cause).__name__}: {cause}") from cause


class _Archive:
    """Members of the zip file, which is no larger unpacked than packed."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        packed = [one for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED]
        self._folder = archive.namelist()[0].partition("/")[0]
        if packed or not self.has(_GRAPH):
            got = f"{packed[0].filename} is compressed" if packed else f"it has no {_GRAPH}"
            raise errors.UserError(f"a file of torch.export.save is needed, but {got}")

    def has(self, path: str) -> bool:
        return f"{self._folder}/{path}" in self._archive.namelist()

    def bytes(self, path: str) -> bytes:
        return self._archive.read(f"{self._folder}/{path}")

    def json(self, path: str) -> Any:
        return json.loads(self.bytes(path)) if self.has(path) else {"config": {}}


def _read(archive: _Archive, device: torch.device) -> Program:
    model = archive.json(_GRAPH)
    major = model["schema_version"]["major"]
    if major != MAJOR:
        raise errors.UserError(f"the schema of a program must be {MAJOR}, but got {major}")
    graph, signature = model["graph_module"]["graph"], model["graph_module"]["signature"]
    tensors = _tensors(archive, "weights", device) | _tensors(archive, "constants", device)
    weights, inputs = {}, {}
    for kind, spec in _pairs(signature["input_specs"]):
        if kind == "user_input":
            name = spec["arg"]["as_tensor"]["name"]
            inputs[name] = graph["tensor_values"][name]
        elif kind in _PARTS:
            weights[spec["arg"]["name"]] = tensors[spec[f"{kind}_name"]]
        else:
            raise errors.UserError(f"an input of a program must be a tensor, but got {kind}")
    outputs = []
    for kind, spec in _pairs(signature["output_specs"]):
        if kind != "user_output":
            raise errors.UserError(f"a program must change no state, but gives {kind}")
        outputs.append(spec["arg"]["as_tensor"]["name"])
    nodes = [node for node in graph["nodes"] if not node["target"].startswith(_ASSERTION)]
    steps = tuple(_step(node, device) for node in nodes)
    return Program(steps, weights, inputs, tuple(outputs), str(model.get("torch_version", "")))


def _pairs(specs: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [next(iter(spec.items())) for spec in specs]


def _tensors(archive: _Archive, part: str, device: torch.device) -> dict[str, torch.Tensor]:
    config = archive.json(f"data/{part}/model_{part}_config.json")["config"]
    tensors = {}
    for name, entry in config.items():
        if entry["use_pickle"] or not entry["tensor_meta"]:
            raise errors.UserError(f"{name}: a weight must be plain bytes, but is pickled")
        about = entry["tensor_meta"]
        data = bytearray(archive.bytes(f"data/{part}/{entry['path_name']}"))
        dtype, sizes = DTYPES[about["dtype"]], [one["as_int"] for one in about["sizes"]]
        if not all(sizes):
            tensors[name] = torch.empty(sizes, dtype=dtype, device=device)
            continue
        strides = [one["as_int"] for one in about["strides"]]
        flat = torch.frombuffer(data, dtype=dtype)
        start = about["storage_offset"]["as_int"]
        tensors[name] = torch.as_strided(flat, sizes, strides, start).to(device)
    return tensors


def _step(node: Mapping[str, Any], device: torch.device) -> Step:
    readers = [(one, _reader(one["arg"], device)) for one in node["inputs"]]
    keyword = {one["name"]: read for one, read in readers if one.get("kind") == 2}
    plain = tuple(read for one, read in readers if one.get("kind") != 2)
    return Step(
        _operator(node["target"]), plain, keyword, tuple(_given(one) for one in node["outputs"])
    )


def _operator(target: str) -> Callable[..., Any]:
    """A pure operator by name: of ATen's core, or one that is composed of others."""
    if match := _ARITHMETIC.fullmatch(target):
        chosen: Callable[..., Any] = getattr(operator, match[1])
        return chosen
    match = _ATEN.fullmatch(target)
    found = getattr(getattr(torch.ops.aten, match[1], None), match[2], None) if match else None
    if not isinstance(found, OpOverload) or not _is_pure(found):
        raise errors.UserError(
            f"an operator must be a pure one of ATen, as others may do anything, but got {target}"
        )
    return found


def _is_pure(found: Any) -> bool:
    """Whether an operator takes and gives data alone, and changes none."""
    schema = found._schema
    if schema.is_mutable:
        return False
    if torch.Tag.core in found.tags or _is_composed(schema.name, schema.overload_name):
        return True
    is_public = not schema.name.startswith("aten::_")
    return is_public and all(_DATA.fullmatch(str(one.type)) for one in schema.arguments)


def _is_composed(name: str, overload: str) -> bool:
    whole = f"{name}.{overload}" if overload else name
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(whole, "CompositeImplicitAutograd")
    except RuntimeError:  # an operator of numbers alone
        return False


def _given(output: Mapping[str, Any]) -> str | tuple[str, ...]:
    (kind, value), *_ = output.items()
    if kind == "as_tensors":
        return tuple(one["name"] for one in value)
    return str(value["name"] if kind == "as_tensor" else value["as_name"])


def _reader(argument: Mapping[str, Any], device: torch.device) -> Read:
    """What gives an argument from the values; UserError for one that is more than data."""
    (kind, value), *_ = argument.items()
    if kind in ("as_tensor", "as_optional_tensor"):
        return _named(value)
    if kind in ("as_tensors", "as_optional_tensors"):
        several = [_named(one) for one in value]
        return lambda values: [one(values) for one in several]
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        return _named(value)
    if kind in ("as_sym_ints", "as_sym_bools", "as_sym_floats"):
        numbers = [_named(one) for one in value]
        return lambda values: [one(values) for one in numbers]
    constant = _constant(kind, value, device)
    return lambda _: constant


def _named(value: Mapping[str, Any]) -> Read:
    """A value by name, or a constant in its place."""
    if isinstance(inner := value.get("as_tensor"), Mapping):
        value = inner
    name = value.get("name", value.get("as_name"))
    if isinstance(name, str):
        return operator.itemgetter(name)
    constant = next((value[key] for key in ("as_int", "as_float", "as_bool") if key in value), None)
    return lambda _: constant


def _constant(kind: str, value: Any, device: torch.device) -> Any:
    if kind in ("as_int", "as_float", "as_bool", "as_ints", "as_floats", "as_bools"):
        return value
    if kind == "as_none":
        return None
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return _FORMATS[value]
    if kind == "as_layout" and value == _STRIDED:
        return torch.strided
    if kind == "as_device":
        return device
    if kind == "as_string" and value in _STRINGS:
        return value
    raise errors.UserError(f"an argument must be a tensor or a number, but got {kind} {value!r}")


def sizes(meta: Mapping[str, Any]) -> list[int | None]:
    """The sizes of an input, None where it takes any."""
    return [one.get("as_int") for one in meta["sizes"]]
