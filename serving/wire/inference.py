"""The Open Inference Protocol v2 over REST: one tensor a column, in JSON or in binary.

https://github.com/kserve/open-inference-protocol; Triton's extension `binary_tensor_data`.
`inference_grpc` has the same requests and answers as messages of gRPC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from eagleray import errors
from eagleray.bundle import Bundle
from eagleray.learn import tasks
from serving.protocol import Body, Codec, Rows
from serving.wire import tensors
from serving.wire.wire import Answers, Encoded, Headers

CONTENT_TYPE, BINARY = b"application/json", b"application/octet-stream"
HEADER_SIZE = b"inference-header-content-length"
_MOST_DIGITS = 18  # of a size
SMALL = 16 * 1024  # a body with more bytes is decoded in a thread


class Asked(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class Request(msgspec.Struct):
    """A request without its binary part."""

    inputs: list[tensors.Tensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[Asked] = []


class Output(NamedTuple):
    """An output tensor; `names` are what its second dimension stands for.

    Of lists `places` is the length of the longest; shorter ones are filled with "" or 0.
    """

    datatype: str
    names: tuple[str, ...] = ()
    places: int = 0

    @property
    def width(self) -> int:
        """The size of the second dimension; 0 where there is none."""
        return len(self.names) or self.places


class Answered(NamedTuple):
    """An output of an answer; `values` are in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    values: list[Any]
    binary: bool  # whether the request asks for it in binary


class V2:
    """The wire of `infer`; `alone` where the path names a version."""

    def __init__(self, *, alone: bool = False) -> None:
        self._alone = alone

    def open(self, headers: Headers, query: bytes) -> Infer:
        size = headers.get(HEADER_SIZE)
        if size is not None and not (size.isdigit() and len(size) <= _MOST_DIGITS):
            got = size[:100].decode("latin-1")
            law = f"{HEADER_SIZE.decode()} must be a whole number, but got {got!r}"
            raise errors.RequestError(law, status=400)
        return Infer(None if size is None else int(size), alone=self._alone)


class Infer:
    """One request; what it asks for beside its rows is known once it is decoded."""

    explain = False

    def __init__(self, head_size: int | None, *, alone: bool) -> None:
        self.alone, self._head_size = alone, head_size
        self._request = Request([])

    def quick_rows(self, codec: Codec, body: Body) -> Rows | None:
        return None if len(body) > SMALL or codec.has_slow else self.rows(codec, body)

    def rows(self, codec: Codec, body: Body) -> Rows:
        size = len(body) if self._head_size is None else self._head_size
        if size > len(body):
            law = f"{HEADER_SIZE.decode()} must be at most the body's {len(body)} bytes"
            raise errors.RequestError(f"{law}, but got {size}", status=400)
        view = memoryview(body)
        self._request = request = _head(view[:size])
        return rows(codec, request.inputs, _parts(request.inputs, view[size:]))

    def encode(self, version: Bundle, answers: Answers) -> Encoded:
        described: list[dict[str, Any]] = []
        parts: list[bytes] = []
        for one in answered(self._request, version.task, answers):
            tensor = {"name": one.name, "shape": one.shape, "datatype": one.datatype}
            if one.binary:
                parts.append(tensors.written(one.datatype, one.values))
                described.append(tensor | {"parameters": {"binary_data_size": len(parts[-1])}})
            else:
                described.append(tensor | {"data": one.values})
        answer = {"model_name": version.name, "model_version": str(version.number)}
        answer |= {"id": self._request.id} if self._request.id else {}
        head = msgspec.json.encode({**answer, "outputs": described})
        if not parts:
            return head, CONTENT_TYPE, ()
        return b"".join([head, *parts]), BINARY, ((HEADER_SIZE, b"%d" % len(head)),)


def rows(codec: Codec, inputs: Sequence[tensors.Tensor], parts: Sequence[memoryview]) -> Rows:
    """Parse inputs, with the binary part of each; RequestError names each faulty one."""
    datatypes, raw = codec.tensors, {}
    for tensor, part in zip(inputs, parts, strict=True):
        if tensor.name in raw:
            law = "inputs must have different names, but got one twice"
            raise errors.RequestError(law, field=tensor.name[:100])
        raw[tensor.name] = tensors.values(tensor, datatypes.get(tensor.name), part)
    _check_rows({name: len(values) for name, values in raw.items()})
    return codec.table_rows(raw)


def answered(request: Request, task: tasks.Task, answers: Answers) -> Iterator[Answered]:
    """The outputs that a request asks for, all if it names none, with their values."""
    known, usual = outputs(task), request.parameters.get("binary_data_output", False)
    _check_flag("binary_data_output", usual, "parameters")
    for asked in request.outputs or map(Asked, known):
        _check_asked(asked, known)
        output = known[asked.name]
        shape = [len(answers), output.width] if output.width else [len(answers)]
        values = _values(asked.name, output, answers)
        binary = asked.parameters.get("binary_data", usual)
        yield Answered(asked.name, output.datatype, shape, values, binary)


def outputs(task: tasks.Task) -> dict[str, Output]:
    """The output tensors of a task, as its answers have them."""
    made = {}
    for name, described in task.answer_schema().items():
        if described["type"] == "object":
            made[name] = Output("FP64", tuple(described["properties"]))
        elif described["type"] == "array":
            number = described["items"]["type"] == "number"
            made[name] = Output("FP64" if number else "BYTES", places=described["maxItems"])
        else:
            made[name] = Output("FP64" if described["type"] == "number" else "BYTES")
    return made | {"warnings": Output("BYTES")}


def _check_asked(asked: Asked, known: dict[str, Output]) -> None:
    if asked.name not in known:
        law = f"an output must be one of {', '.join(known)}"
        raise errors.RequestError(f"{law}, but got {asked.name[:100]!r}", field="outputs")
    if other := next((key for key in asked.parameters if key != "binary_data"), None):
        law = "binary_data is the only parameter of an output"
        raise errors.RequestError(f"{law}, but got {other[:100]!r}", field=asked.name)
    _check_flag("binary_data", asked.parameters.get("binary_data", False), asked.name)


def _check_flag(name: str, value: object, field: str) -> None:
    if not isinstance(value, bool):
        law = f"{name} must be true or false, but got {str(value)[:100]!r}"
        raise errors.RequestError(law, field=field)


def _values(name: str, output: Output, answers: Answers) -> list[Any]:
    """The values of an output in row-major order; the warnings of a row are one text."""
    if name == "warnings":
        return ["; ".join(answer.get(name, ())) for answer in answers]
    if output.names:
        return [answer[name][one] for answer in answers for one in output.names]
    none: Any = 0.0 if output.datatype == "FP64" else ""
    if output.places:
        lists = (answer[name] for answer in answers)
        return [one for row in lists for one in [*row, *[none] * (output.places - len(row))]]
    return [none if answer[name] is None else answer[name] for answer in answers]


def _head(head: memoryview) -> Request:
    try:
        return msgspec.json.decode(head, type=Request)
    except msgspec.ValidationError as cause:
        law = "the request must be as the Open Inference Protocol says"
        raise errors.RequestError(f"{law}, but {cause}", field="inputs") from cause
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise errors.RequestError(f"the body must be JSON, but {cause}", status=400) from cause


def _parts(inputs: list[tensors.Tensor], binary: memoryview) -> list[memoryview]:
    """The binary part of each input, in their order, which together fill the body."""
    position, parts = 0, []
    for tensor in inputs:
        size = 0 if tensor.binary_size is None else tensor.binary_size
        if type(size) is not int or not 0 <= size <= len(binary) - position:
            law = f"binary_data_size must be within the {len(binary)} bytes after the header"
            raise errors.RequestError(f"{law}, but got {size!r}", field=tensor.name[:100])
        parts.append(binary[position : position + size])
        position += size
    if position != len(binary):
        law = f"the inputs must fill the {len(binary)} bytes after the header"
        raise errors.RequestError(f"{law}, but fill {position}", field="inputs")
    return parts


def _check_rows(counts: dict[str, int]) -> None:
    first = next(iter(counts.values()), 0)
    for name, count in counts.items():
        if count != first:
            law = f"inputs must have the same number of rows, here {first}"
            raise errors.RequestError(f"{law}, but got {count}", field=name[:100])
