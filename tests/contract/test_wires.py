"""What every protocol of predictions holds: the same rows, the same predictions, clear refusals."""

import asyncio
import io
import json
import random
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pytest
import tritonclient.grpc.service_pb2 as service_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from eagleray import bundle
from eagleray.learn import schema
from eagleray.state import aliases
from serving import batching, metrics, predictor, protocol, routing, web
from serving.wire import inference, table_arrow
from tests import bundles

RAW = bundles.rows(20, seed=3)
ROWS = bundles.instances(RAW)
ARROW = table_arrow.ARROW.content_type.decode()
Raw = dict[str, list[Any]]


@dataclass(frozen=True)
class Member:
    """A protocol as a client speaks it."""

    path: str
    headers: dict[str, str]
    body: Callable[[Raw], tuple[bytes, dict[str, str]]]
    probabilities: Callable[[httpx.Response], list[list[float]]]


def as_json(raw: Raw) -> tuple[bytes, dict[str, str]]:
    return json.dumps({"instances": bundles.instances(raw)}).encode(), {}


def as_csv(raw: Raw) -> tuple[bytes, dict[str, str]]:
    return pd.DataFrame(raw).astype({"member": object}).to_csv(index=False).encode(), {}


def as_arrow(raw: Raw) -> tuple[bytes, dict[str, str]]:
    return stream(pa.table(raw)), {}


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as made:
        made.write_table(table)
    return sink.getvalue()


DATATYPES = {"age": "FP64", "income $": "FP64", "member": "BOOL"}


def tensor(name: str, values: list[Any]) -> dict[str, Any]:
    datatype = DATATYPES.get(name, "BYTES")
    if any(isinstance(value, str) for value in values):
        datatype = "BYTES"
    return {"name": name, "shape": [len(values), 1], "datatype": datatype, "data": values}


def as_tensors(raw: Raw) -> tuple[bytes, dict[str, str]]:
    return json.dumps({"inputs": [tensor(*item) for item in raw.items()]}).encode(), {}


def as_binary(raw: Raw) -> tuple[bytes, dict[str, str]]:
    inputs, parts = [], []
    for name, values in raw.items():
        made = tensor(name, values)
        del made["data"]
        if made["datatype"] == "FP64":
            part = np.array(values, np.float64).tobytes()
        else:
            made["datatype"] = "BYTES"
            texts = ["" if value is None else str(value).encode() for value in values]
            part = b"".join(struct.pack("<I", len(text)) + (text or b"") for text in texts)
        inputs.append(made | {"parameters": {"binary_data_size": len(part)}})
        parts.append(part)
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return b"".join([head, *parts]), {"inference-header-content-length": str(len(head))}


def from_json(answer: httpx.Response) -> list[list[float]]:
    return [list(one["probabilities"].values()) for one in answer.json()["predictions"]]


def from_csv(answer: httpx.Response) -> list[list[float]]:
    return of_table(pyarrow.csv.read_csv(io.BytesIO(answer.content)))


def from_arrow(answer: httpx.Response) -> list[list[float]]:
    return of_table(pa.ipc.open_stream(answer.content).read_all())


def of_table(table: pa.Table) -> list[list[float]]:
    return table.select(["probability of no", "probability of yes"]).to_pandas().to_numpy().tolist()


def from_tensors(answer: httpx.Response) -> list[list[float]]:
    (output,) = (one for one in answer.json()["outputs"] if one["name"] == "probabilities")
    return np.array(output["data"]).reshape(output["shape"]).tolist()


def from_binary(answer: httpx.Response) -> list[list[float]]:
    size = int(answer.headers["inference-header-content-length"])
    position = size
    for output in json.loads(answer.content[:size])["outputs"]:
        length = output["parameters"]["binary_data_size"]
        if output["name"] == "probabilities":
            part = answer.content[position : position + length]
            return np.frombuffer(part).reshape(output["shape"]).tolist()
        position += length
    raise LookupError("probabilities")


def as_messages(raw: Raw) -> tuple[bytes, dict[str, str]]:
    request = service_pb2.ModelInferRequest(model_name="left")
    for name, values in raw.items():
        made = tensor(name, values)
        if made["datatype"] == "FP64":
            contents = {"fp64_contents": np.array(values, np.float64)}
        else:
            made["datatype"] = "BYTES"
            texts = ["" if value is None else str(value) for value in values]
            contents = {"bytes_contents": [text.encode() for text in texts]}
        del made["data"]
        request.inputs.add(**made, contents=contents)
    return request.SerializeToString(), {}


def as_raw_messages(raw: Raw) -> tuple[bytes, dict[str, str]]:
    request = service_pb2.ModelInferRequest.FromString(as_messages(raw)[0])
    for made in request.inputs:
        numbers, texts = made.contents.fp64_contents, made.contents.bytes_contents
        raw_texts = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        part = np.array(numbers).tobytes() if made.datatype == "FP64" else raw_texts
        request.raw_input_contents.append(part)
        made.ClearField("contents")
    return request.SerializeToString(), {}


def from_messages(answer: httpx.Response) -> list[list[float]]:
    said = service_pb2.ModelInferResponse.FromString(answer.content)
    (at,) = (at for at, one in enumerate(said.outputs) if one.name == "probabilities")
    output, raw = said.outputs[at], said.raw_output_contents
    values = np.frombuffer(raw[at]) if raw else np.array(output.contents.fp64_contents)
    return values.reshape(output.shape).tolist()


INFER, OCTETS = "/v2/models/left/infer", "application/octet-stream"
PROTOBUF = {"content-type": "application/x-protobuf"}
MEMBERS = {
    "json": Member("/predict", {"content-type": "application/json"}, as_json, from_json),
    "csv": Member("/predict", {"content-type": "text/csv", "accept": "text/csv"}, as_csv, from_csv),
    "csv to json": Member("/predict", {"content-type": "text/csv"}, as_csv, from_json),
    "arrow": Member("/predict", {"content-type": ARROW, "accept": ARROW}, as_arrow, from_arrow),
    "tensors": Member(INFER, {"content-type": "application/json"}, as_tensors, from_tensors),
    "binary tensors": Member(INFER, {"content-type": OCTETS}, as_binary, from_binary),
    "messages": Member(INFER, PROTOBUF, as_messages, from_messages),
    "raw messages": Member(INFER, PROTOBUF, as_raw_messages, from_messages),
}
every_member = pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[web.Application]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        yield served(tmp_path_factory.mktemp("metrics"), bundles.make())


def served(folder: Path, loaded: bundle.Bundle) -> web.Application:
    gauges = metrics.Metrics(folder, "left")
    made = web.Application("left", gauges)
    loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)
    made.predictor = predictor.Predictor(loaded, batching.Limits(), ThreadPoolExecutor(1), gauges)
    return made


def ask(application: Any, method: str, path: str, **options: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
            return await client.request(method, path, **options)

    return asyncio.run(work())


def send(application: Any, member: Member, content: bytes, **headers: str) -> httpx.Response:
    return ask(application, "POST", member.path, content=content, headers=member.headers | headers)


def message(answer: httpx.Response) -> str:
    """What an error says, in the form of either protocol."""
    error = answer.json()["error"]
    return error if isinstance(error, str) else f"{error['field']}: {error['message']}"


@every_member
def test_the_same_rows_get_the_same_predictions(
    application: web.Application, member: Member
) -> None:
    body, headers = member.body(RAW)
    answer = send(application, member, body, **headers)
    assert answer.status_code == 200, answer.text
    expected = bundles.make().predict(RAW).outputs
    np.testing.assert_allclose(member.probabilities(answer), expected, atol=1e-6)
    assert answer.headers["x-eagleray-version"] == "3"


def test_labels_follow_the_threshold_of_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")
    said = bundles.make().predict(RAW).outputs[:, 1]
    threshold = float(np.sort(said)[[4, 5]].mean())
    expected = ["yes" if one >= threshold else "no" for one in said]
    assert expected.count("yes") == 15
    left = schema.Target(name="left", task="binary", classes=("no", "yes"), threshold=threshold)
    application = served(tmp_path, bundles.make(target=left))

    def answer(name: str) -> httpx.Response:
        content, headers = MEMBERS[name].body(RAW)
        return send(application, MEMBERS[name], content, **headers)

    assert [one["label"] for one in answer("json").json()["predictions"]] == expected
    assert pd.read_csv(io.StringIO(answer("csv").text))["label"].tolist() == expected
    outputs = {one["name"]: one["data"] for one in answer("tensors").json()["outputs"]}
    assert outputs["label"] == expected
    row = json.dumps({"instances": ROWS[:1]}).encode()
    why = ask(application, "POST", "/predict?explain=true", content=row).json()
    (found,) = why["predictions"]
    total = found["explanation"]["mean"] + sum(found["explanation"]["contributions"].values())
    assert total == pytest.approx(found["probability"], abs=1e-4)


@every_member
def test_a_column_that_is_absent_or_unknown_is_named(
    application: web.Application, member: Member
) -> None:
    absent = {name: values for name, values in RAW.items() if name != "city"}
    for raw, named in ((absent, "city"), (RAW | {"ages": RAW["age"]}, "ages")):
        body, headers = member.body(raw)
        answer = send(application, member, body, **headers)
        assert answer.status_code == 422
        assert named in message(answer)


@every_member
def test_a_faulty_value_is_named(application: web.Application, member: Member) -> None:
    dates = ["soon", *RAW["joined"][1:]]
    body, headers = member.body(RAW | {"joined": dates})
    answer = send(application, member, body, **headers)
    assert answer.status_code == 422
    assert "instances[0].joined: a date or time" in message(answer)


@every_member
def test_rows_are_between_one_and_the_limit(application: web.Application, member: Member) -> None:
    for count, status in ((0, 422), (protocol.MOST_ROWS + 1, 413)):
        one = {name: values[1:2] * count for name, values in RAW.items()}
        body, headers = member.body(one)
        assert send(application, member, body, **headers).status_code == status


@every_member
def test_a_body_that_is_cut_is_refused(application: web.Application, member: Member) -> None:
    body, headers = member.body(RAW)
    for size in (0, 1, len(body) // 2, len(body) - 1):
        answer = send(application, member, body[:size], **headers)
        if member.body is not as_csv or size < 2:  # CSV may end after any character
            assert 400 <= answer.status_code < 500


@every_member
def test_no_body_breaks_a_decoder(application: web.Application, member: Member) -> None:
    """Bytes of a valid body are replaced: it is answered or refused, and never a 500."""
    valid, headers = member.body({name: values[:3] for name, values in RAW.items()})

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.dictionaries(st.integers(0, len(valid) - 1), st.integers(0, 255), max_size=6))
    def check(changes: dict[int, int]) -> None:
        body = bytearray(valid)
        for place, value in changes.items():
            body[place] = value
        status = send(application, member, bytes(body), **headers).status_code
        assert status == 200 or 400 <= status < 500

    check()


def refused(application: web.Application, name: str, body: bytes, **headers: str) -> str:
    answer = send(application, MEMBERS[name], body, **headers)
    assert 400 <= answer.status_code < 500, answer.text
    return message(answer)


def test_an_arrow_stream_cannot_expand(application: web.Application) -> None:
    packed = stream(pa.table(RAW), compression="zstd")
    assert "must not be compressed" in refused(application, "arrow", packed)
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000), pa.array(["x" * 10_000]))
    repeated = pa.table(RAW).slice(0, 1).take([0] * 10_000)
    repeated = repeated.set_column(repeated.schema.get_field_index("city"), "city", long)
    assert str(protocol.MOST_BYTES) in refused(application, "arrow", stream(repeated))
    nothing = pa.table({"age": pa.nulls(10**9)})
    assert "at most 10000 rows" in refused(application, "arrow", stream(nothing))
    views = pa.table({"age": pa.array([["a"]])})
    assert "age: a column must hold numbers" in refused(application, "arrow", stream(views))


def test_arrow_types_mean_what_they_mean_in_a_table(application: web.Application) -> None:
    table = pa.table(RAW)
    times = table["joined"].cast(pa.timestamp("us"))
    table = table.set_column(4, "joined", times)
    table = table.set_column(2, "city", table["city"].dictionary_encode())
    table = table.set_column(0, "age", table["age"].cast(pa.int16()))
    answer = send(application, MEMBERS["arrow"], stream(table))
    expected = bundles.make().predict(RAW).outputs
    np.testing.assert_allclose(from_arrow(answer), expected, atol=1e-6)


AGE = tensor("age", [41.0, 42.0])
TENSORS = {
    "shape": (AGE | {"shape": [1, 2]}, "age: the shape must be [N] or [N, 1]"),
    "negative shape": (AGE | {"shape": [-1]}, "age: the shape must be"),
    "short data": (AGE | {"shape": [3, 1]}, "age: the shape asks for 3 values"),
    "datatype": (AGE | {"datatype": "BYTES"}, "age: the datatype must be FP32 or FP64 or INT16"),
    "unknown datatype": (AGE | {"datatype": "FP8"}, "age: the datatype must be"),
    "text in numbers": (AGE | {"data": ["a", "b"]}, "age: data must be FP64"),
    "no data": (AGE | {"data": None}, "age: data or the parameter binary_data_size"),
    "a size that is no number": (
        AGE | {"parameters": {"binary_data_size": "8"}},
        "age: binary_data",
    ),
    "a size beyond the body": (AGE | {"parameters": {"binary_data_size": 8}}, "age: binary_data"),
    "no shape": ({"name": "age", "datatype": "FP64"}, "inputs: the request must be"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_wrong_tensor_is_refused_with_its_name(application: web.Application, name: str) -> None:
    sent, expected = TENSORS[name]
    assert expected in refused(application, "tensors", json.dumps({"inputs": [sent]}).encode())


MESSAGES = {
    "shape": ({"shape": [1, 2]}, "age: the shape must be [N] or [N, 1]"),
    "negative shape": ({"shape": [-1]}, "age: the shape must be"),
    "short data": ({"shape": [3]}, "age: the shape asks for 3 values, but got 2"),
    "no data": ({"contents": {}}, "age: the shape asks for 2 values, but got 0"),
    "data of another type": (
        {"contents": {"fp32_contents": [1.0, 2.0]}},
        "age: the shape asks for 2 values, but got 0",
    ),
    "datatype": ({"datatype": "BYTES"}, "age: the datatype must be FP32 or FP64 or INT16"),
    "unknown datatype": ({"datatype": "FP8"}, "age: the datatype must be"),
    "infinity": ({"contents": {"fp64_contents": [1.0, np.inf]}}, "age: a finite number"),
    "too many": (
        {"contents": {"fp64_contents": [1.0] * 10_001}},
        "at most 10000 rows are taken at once, but got 10001",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_wrong_tensor_of_a_message_is_refused(application: web.Application, name: str) -> None:
    change, expected = MESSAGES[name]
    request, age = service_pb2.ModelInferRequest(), {"name": "age", "datatype": "FP64"}
    sent = age | {"shape": [2], "contents": {"fp64_contents": [41.0, 42.0]}} | change
    request.inputs.add(**sent)
    assert expected in refused(application, "messages", request.SerializeToString())


def test_raw_contents_must_fit_the_inputs(application: web.Application) -> None:
    whole = service_pb2.ModelInferRequest.FromString(as_raw_messages(RAW)[0])
    for at, part, said in (
        (0, whole.raw_input_contents[0][:-1], "age: the shape asks for 160 bytes, but got 159"),
        (2, whole.raw_input_contents[2][:-1], "city: 20 texts and their lengths must fill"),
    ):
        request = service_pb2.ModelInferRequest.FromString(whole.SerializeToString())
        request.raw_input_contents[at] = part
        assert said in refused(application, "raw messages", request.SerializeToString())
    whole.inputs[1].contents.fp64_contents.append(1.0)
    both = refused(application, "raw messages", whole.SerializeToString())
    assert "income $: an input must have either contents or raw_input_contents" in both
    del whole.raw_input_contents[-1]
    fewer = refused(application, "raw messages", whole.SerializeToString())
    assert "raw_input_contents must be those of the 6 inputs, but got 5" in fewer


def test_inputs_must_agree(application: web.Application) -> None:
    other = tensor("city", ["Bern"])
    body = json.dumps({"inputs": [AGE, other]}).encode()
    assert "city: inputs must have the same number" in refused(application, "tensors", body)
    body = json.dumps({"inputs": [AGE, AGE]}).encode()
    assert "age: inputs must have different names" in refused(application, "tensors", body)


def test_binary_data_must_fit_its_header(application: web.Application) -> None:
    body, headers = as_binary(RAW)
    size = "inference-header-content-length"
    assert "must fill" in refused(application, "binary tensors", body + b"x", **headers)
    number = "must be a whole number"
    for value, law in (("x", number), ("9" * 5000, number), (str(10**9), "must be at most")):
        assert law in refused(application, "binary tensors", body, **{size: value})
    infinite = as_binary(RAW | {"age": [np.inf] * 20})
    assert "age: a finite number" in refused(
        application, "binary tensors", infinite[0], **infinite[1]
    )


def test_outputs_are_those_that_a_request_names(application: web.Application) -> None:
    body = json.loads(as_tensors(RAW)[0]) | {"id": "r7", "outputs": [{"name": "label"}]}
    answer = send(application, MEMBERS["tensors"], json.dumps(body).encode()).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("left", "3", "r7")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("label", "BYTES", [20])
    for parameters in ({"classification": 2}, {"binary_data": 1}, {"binary_data": None}):
        content = json.dumps(body | {"outputs": [{"name": "label", "parameters": parameters}]})
        assert "label: binary_data" in refused(application, "tensors", content.encode())
    content = json.dumps(body | {"parameters": {"binary_data_output": "yes"}}).encode()
    assert "binary_data_output must be true or false" in refused(application, "tensors", content)
    content = json.dumps(body | {"outputs": [{"name": "labels"}]}).encode()
    assert "outputs: an output must be one of label" in refused(application, "tensors", content)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/models/left", 200),
        ("GET", "/v2/models/left/ready", 200),
        ("GET", "/v2/models/left/versions/3", 200),
        ("GET", "/v2/models/left/versions/3/ready", 200),
        ("POST", "/v2/models/left/versions/3/infer", 200),
        ("GET", "/v2/models/right", 404),
        ("GET", "/v2/models/left/versions/4", 404),
        ("POST", "/v2/models/left/versions/4/infer", 404),
        ("POST", "/v2/models/right/infer", 404),
        ("GET", "/v2/models/left/infer", 405),
        ("GET", "/v2/models/left/versions/3/infer", 405),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2", 405),
    ],
)
def test_pages_of_the_open_inference_protocol(
    application: web.Application, method: str, path: str, status: int
) -> None:
    content = as_tensors(RAW)[0] if method == "POST" else None
    answer = ask(application, method, path, content=content)
    assert answer.status_code == status
    assert status == 200 or isinstance(answer.json()["error"], str)


def test_metadata_has_an_input_a_column_and_the_outputs(application: web.Application) -> None:
    model = ask(application, "GET", "/v2/models/left").json()
    assert [one["name"] for one in model["inputs"]] == list(RAW)
    assert {one["name"]: one["datatype"] for one in model["inputs"]}["member"] == "BOOL"
    outputs = [one["name"] for one in model["outputs"]]
    assert outputs == ["label", "probability", "probabilities", "warnings"]
    assert model["parameters"] == {"probabilities": ["no", "yes"]}


def test_before_a_version_is_loaded_it_is_live_but_not_ready(application: web.Application) -> None:
    empty = web.Application("left", application._metrics)
    assert ask(empty, "GET", "/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/left/ready", "/v2/models/left"):
        answer = ask(empty, "GET", path)
        assert (answer.status_code, answer.json()) == (503, {"error": "no version is loaded yet"})


@pytest.mark.parametrize("name", ["json", "csv", "csv to json", "arrow"])
def test_contributions_add_up_to_the_prediction(application: web.Application, name: str) -> None:
    member = MEMBERS[name]
    body, _ = member.body({column: values[:3] for column, values in RAW.items()})
    path = f"{member.path}?explain=true"
    answer = ask(application, "POST", path, content=body, headers=member.headers)
    assert answer.status_code == 200, answer.text
    if name in ("json", "csv to json"):
        found = [
            (one["probability"], one["explanation"]["mean"], one["explanation"]["contributions"])
            for one in answer.json()["predictions"]
        ]
    else:
        read = pa.ipc.open_stream(answer.content) if name == "arrow" else None
        table = read.read_all() if read else pyarrow.csv.read_csv(io.BytesIO(answer.content))
        heading = "contribution of "
        found = [
            (row["probability"], row["mean"], {c: row[f"{heading}{c}"] for c in RAW})
            for row in table.to_pylist()
        ]
    assert len(found) == 3
    for prediction, mean, parts in found:
        assert list(parts) == list(RAW)
        assert mean + sum(parts.values()) == pytest.approx(prediction, abs=1e-6)


def test_explanations_and_named_versions_are_answered_outside_a_rollout(
    application: web.Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)
    stable = application.predictor
    assert stable is not None
    loaded = bundles.make(seed=1)
    loaded.name, loaded.number, loaded.golden = "left", 4, bundles.golden(loaded)
    gauges, thread = application._metrics, ThreadPoolExecutor(1)
    candidate = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
    schedule = batching.Schedule(0.001)
    split = routing.Split("r1", application.capacity, stable.outcome, schedule)
    split.follow(stable, stable, candidate, aliases.Route(rollout="r1", candidate=4, share=1.0))
    both = web.Application("left", gauges)
    both.predictor, both.split = stable, split
    content = as_tensors(RAW)[0]
    for path, body, version in (
        ("/predict", as_json(RAW)[0], "4"),
        (INFER, content, "4"),
        ("/predict?explain=true", as_json(RAW)[0], "3"),
        ("/v2/models/left/versions/3/infer", content, "3"),
    ):
        answer = ask(both, "POST", path, content=body)
        assert answer.headers["x-eagleray-version"] == version
    assert split.candidate.counts().requests == 2
    assert split.stable.counts().requests == 0


def test_explanations_are_bounded_and_their_option_is_checked(application: web.Application) -> None:
    for path, rows, status, text in (
        ("/predict?explain=true", 101, 413, "at most 100 rows are explained"),
        ("/predict?explain=maybe", 1, 422, "explain must be true or false"),
    ):
        answer = ask(application, "POST", path, json={"instances": ROWS[:1] * rows})
        assert answer.status_code == status
        assert text in message(answer)
    assert ask(application, "POST", "/predict?explain=false", json={"instances": ROWS[:1]}).json()[
        "predictions"
    ][0].keys() == {"label", "probability", "probabilities"}


def test_a_small_request_of_tensors_takes_no_thread() -> None:
    codec = protocol.Codec(bundles.make().schema)
    body, _ = as_tensors({name: values[:1] for name, values in RAW.items()})
    exchange = inference.V2().open({}, b"")
    assert len(exchange.quick_rows(codec, body) or ()) == 1
    assert exchange.quick_rows(codec, bytes(inference.SMALL + 1)) is None
