"""The Open Inference Protocol v2 as messages of gRPC: `inference`'s requests in another form.

The values of inputs are typed (`contents`) or raw (`raw_input_contents`, Triton's binary form), and
so are those of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eagleray import errors
from eagleray.bundle import Bundle
from serving import protocol
from serving.protocol import Body, Codec, Rows
from serving.wire import inference, inference_messages, tensors
from serving.wire.wire import Answers, Encoded, Headers

CONTENT_TYPE = b"application/x-protobuf"

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Messages:
    """The wire of `infer`; `alone` where the path names a version."""

    def __init__(self, *, alone: bool = False) -> None:
        self._alone = alone

    def open(self, headers: Headers, query: bytes) -> Infer:
        return Infer(alone=self._alone)


class Infer:
    """One request; what it asks for beside its rows is known once it is decoded."""

    explain = False

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone
        self._request = inference.Request([])

    def quick_rows(self, codec: Codec, body: Body) -> Rows | None:
        return None if len(body) > inference.SMALL or codec.has_slow else self.rows(codec, body)

    def rows(self, codec: Codec, body: Body) -> Rows:
        sent = decode("ModelInferRequest", body)
        raw = _raw(sent)
        inputs = [_tensor(one, part) for one, part in zip(sent.inputs, raw, strict=True)]
        self._request = inference.Request(
            inputs,
            id=sent.id,
            parameters={"binary_data_output": bool(sent.raw_input_contents)},
            outputs=[inference.Asked(one.name, _parameters(one)) for one in sent.outputs],
        )
        return inference.rows(codec, inputs, [memoryview(part or b"") for part in raw])

    def encode(self, version: Bundle, answers: Answers) -> Encoded:
        made = inference_messages.message("ModelInferResponse")(
            model_name=version.name, model_version=str(version.number), id=self._request.id
        )
        for one in inference.answered(self._request, version.task, answers):
            output = made.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
            if one.binary:
                made.raw_output_contents.append(tensors.written(one.datatype, one.values))
            else:
                texts = one.datatype == "BYTES"
                values = [text.encode() for text in one.values] if texts else one.values
                getattr(output.contents, _CONTENTS[one.datatype]).extend(values)
        return made.SerializeToString(), CONTENT_TYPE, ()


def decode(name: str, body: Body) -> Any:
    """Read a message; RequestError 400 if the bytes are not one."""
    from google.protobuf.message import DecodeError

    try:
        return inference_messages.message(name).FromString(bytes(body))
    except DecodeError as cause:
        law = f"the request must be a {name} of the Open Inference Protocol"
        raise errors.RequestError(f"{law}, but cannot be read", status=400) from cause


def _raw(sent: Any) -> Sequence[bytes | None]:
    """The raw values of each input; None where all are typed."""
    raw, inputs = sent.raw_input_contents, sent.inputs
    if not raw:
        return [None] * len(inputs)
    if len(raw) != len(inputs):
        law = f"raw_input_contents must be those of the {len(inputs)} inputs"
        raise errors.RequestError(f"{law}, but got {len(raw)}", field="raw_input_contents")
    if both := next((one.name for one in inputs if one.HasField("contents")), None):
        law = "an input must have either contents or raw_input_contents, but got both"
        raise errors.RequestError(law, field=both[:100])
    return list(raw)


def _tensor(sent: Any, part: bytes | None) -> tensors.Tensor:
    tensor = tensors.Tensor(sent.name, list(sent.shape), sent.datatype)
    if part is None:
        tensor.data = _data(sent)
    else:
        tensor.parameters = {"binary_data_size": len(part)}
    return tensor


def _data(sent: Any) -> list[Any]:
    """Typed values; an unknown datatype has none, and `tensors.values` refuses it."""
    contents = _CONTENTS.get(sent.datatype)
    values = getattr(sent.contents, contents) if contents else []
    if len(values) > protocol.MOST_ROWS:
        protocol.check_rows(len(values))
    data = list(values)
    try:
        data = [one.decode() for one in data] if sent.datatype == "BYTES" else data
    except UnicodeDecodeError as cause:
        law = "each text must be UTF-8, but got other bytes"
        raise errors.RequestError(law, field=sent.name[:100]) from cause
    if sent.datatype.startswith("FP") and any(map(math.isinf, data)):
        law = "a finite number is needed, but got Infinity"
        raise errors.RequestError(law, field=sent.name[:100])
    return data


def _parameters(sent: Any) -> dict[str, Any]:
    return {one.key: False for one in sent.parameters}
