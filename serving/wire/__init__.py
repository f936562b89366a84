"""The protocols of predictions, one file each; `Wire` and `Exchange` say what a member gives.

A member is a file here, and a line in a table below. `tests/contract/test_wires.py` holds that the
same rows get the same predictions by each.
"""

from collections.abc import Mapping

from serving.wire import inference, inference_grpc, table_arrow, table_csv, typed_json
from serving.wire.wire import Answers as Answers
from serving.wire.wire import Encoded as Encoded
from serving.wire.wire import Exchange as Exchange
from serving.wire.wire import Header as Header
from serving.wire.wire import Headers as Headers
from serving.wire.wire import Wire as Wire

Table = Mapping[bytes, Wire]
"""Wires by the content type of a request's body; empty where a client declares none."""

PREDICT: Table = {
    typed_json.CONTENT_TYPE: typed_json.JSON,
    typed_json.FORM: typed_json.JSON,
    b"": typed_json.JSON,
    table_csv.CSV.content_type: table_csv.CSV,
    table_arrow.ARROW.content_type: table_arrow.ARROW,
}
"""Wires of `/predict` and `/v1/models/{name}:predict`."""


def _infer(*, alone: bool) -> Table:
    tensors = dict.fromkeys(
        (inference.CONTENT_TYPE, inference.BINARY, b""), inference.V2(alone=alone)
    )
    return {**tensors, inference_grpc.CONTENT_TYPE: inference_grpc.Messages(alone=alone)}


INFER = _infer(alone=False)
"""Wires of `/v2/models/{name}/infer`."""

INFER_VERSION = _infer(alone=True)
"""Wires of `/v2/models/{name}/versions/{version}/infer`."""


def named(table: Table, content_type: bytes) -> Wire | None:
    """The wire of a content type that is not in the table, such as `application/ld+json`."""
    return table.get(typed_json.CONTENT_TYPE) if content_type.endswith(b"+json") else None
