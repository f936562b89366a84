"""The messages of the Open Inference Protocol's gRPC service, made when they are first used.

They lie in a pool of their own: in protobuf's default pool they would clash with the stubs of any
client of the protocol in the same process, such as tritonclient's.
Fields: https://github.com/kserve/open-inference-protocol (specification/protocol/
open_inference_grpc.proto). Nested types and maps have names of their own here, which are no part of
what is sent.
"""

import functools
import re
from typing import Any

SERVICE = "inference.GRPCInferenceService"

_PACKAGE = "inference"
_MESSAGES = {
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyResponse": "bool ready = 1",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3",
    "ModelReadyRequest": "string name = 1; string version = 2",
    "ModelReadyResponse": "bool ready = 1",
    "TensorMetadata": "string name = 1; string datatype = 2; repeated int64 shape = 3",
    "ModelMetadataResponse": """string name = 1; repeated string versions = 2; string platform = 3;
        repeated TensorMetadata inputs = 4; repeated TensorMetadata outputs = 5""",
    "ModelIndex": "string name = 1; string version = 2; string state = 3; string reason = 4",
    "RepositoryIndexResponse": "repeated ModelIndex models = 1",
    "InferParameter": """bool bool_param = 1; int64 int64_param = 2; string string_param = 3;
        double double_param = 4; uint64 uint64_param = 5""",
    "Parameter": "string key = 1; InferParameter value = 2",
    "InferTensorContents": """repeated bool bool_contents = 1; repeated int32 int_contents = 2;
        repeated int64 int64_contents = 3; repeated uint32 uint_contents = 4;
        repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6;
        repeated double fp64_contents = 7; repeated bytes bytes_contents = 8""",
    "Tensor": """string name = 1; string datatype = 2; repeated int64 shape = 3;
        repeated Parameter parameters = 4; InferTensorContents contents = 5""",
    "InferRequestedOutputTensor": "string name = 1; repeated Parameter parameters = 2",
    "ModelInferRequest": """string model_name = 1; string model_version = 2; string id = 3;
        repeated Parameter parameters = 4; repeated Tensor inputs = 5;
        repeated InferRequestedOutputTensor outputs = 6; repeated bytes raw_input_contents = 7""",
    "ModelInferResponse": """string model_name = 1; string model_version = 2; string id = 3;
        repeated Parameter parameters = 4; repeated Tensor outputs = 5;
        repeated bytes raw_output_contents = 6""",
}
_FIELD = re.compile(r"\s*(repeated )?(\w+) (\w+) = (\d+)\s*")


@functools.cache
def message(name: str) -> Any:
    """The class of a message; `ModelReadyRequest` also reads which model another request names."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@functools.cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(
        name="eagleray/inference.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        for field in fields.split(";"):
            made.field.append(_field(field))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _field(text: str) -> Any:
    from google.protobuf import descriptor_pb2

    proto: Any = descriptor_pb2.FieldDescriptorProto
    match = _FIELD.fullmatch(text)
    assert match is not None, text
    repeated, kind, name, number = match.groups()
    label = proto.LABEL_REPEATED if repeated else proto.LABEL_OPTIONAL
    field = proto(name=name, number=int(number), label=label)
    if kind in _MESSAGES:
        field.type, field.type_name = proto.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = proto.Type.Value(f"TYPE_{kind.upper()}")
    return field
