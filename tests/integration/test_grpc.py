"""The Open Inference Protocol over gRPC: NVIDIA's tritonclient against a real gRPC server."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from eagleray import apikeys, errors
from serving import admission, batching, environment, guard, keys, metrics, predictor, rpc, web
from serving.wire.inference_messages import SERVICE
from tests import bundles
from tests.e2e import release

RAW = bundles.rows(20, seed=3)
EXPECTED = bundles.make().predict(RAW).outputs


class Server:
    """An application behind a gRPC server of its own, on an event loop in a thread."""

    def __init__(self, application: web.Application) -> None:
        self.application = application
        (port,) = environment.free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self._started, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        assert self._started.wait(30)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        self._ended = asyncio.Event()
        server = grpc.aio.server()
        server.add_insecure_port(self.address)
        server.add_generic_rpc_handlers((rpc.handlers(self.application),))
        await server.start()
        self._started.set()
        await self._ended.wait()
        await server.stop(None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setenv(metrics.FOLDER, "")
        gauges = metrics.Metrics(tmp_path_factory.mktemp("metrics"), "left")
        application, loaded = web.Application("left", gauges), bundles.make()
        loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)
        application.predictor = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
        made = Server(application)
        yield made
        made.stop()


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as made:
        yield made


@pytest.fixture
def stub(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def arrays(raw: dict[str, list[Any]] = RAW) -> Iterator[tuple[str, str, np.ndarray]]:
    """The name, datatype and values of each input."""
    for name, values in raw.items():
        if name in ("age", "income $"):
            yield name, "FP64", np.array(values, np.float64)
        else:
            texts = ["" if value is None else str(value) for value in values]
            yield name, "BYTES", np.array(texts, object)


def inputs(raw: dict[str, list[Any]] = RAW) -> list[triton.InferInput]:
    made = []
    for name, datatype, values in arrays(raw):
        tensor = triton.InferInput(name, [len(values), 1], datatype)
        tensor.set_data_from_numpy(values.reshape(-1, 1))
        made.append(tensor)
    return made


def typed(raw: dict[str, list[Any]] = RAW) -> messages.ModelInferRequest:
    """A request whose values are typed."""
    request = messages.ModelInferRequest(model_name="left", id="r7")
    for name, datatype, values in arrays(raw):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        if datatype == "FP64":
            tensor.contents.fp64_contents.extend(values)
        else:
            tensor.contents.bytes_contents.extend(text.encode() for text in values)
    return request


@contextlib.contextmanager
def refused(code: grpc.StatusCode, said: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert (caught.value.code(), said in caught.value.details()) == (code, True), caught.value


def test_tritonclient_reads_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("left")
    assert client.is_model_ready("left", "3")
    assert not client.is_model_ready("left", "4")
    assert not client.is_model_ready("right")
    assert client.get_server_metadata().name == "eagleray"
    model = client.get_model_metadata("left")
    assert ([one.name for one in model.inputs], list(model.versions)) == (list(RAW), ["3"])
    (listed,) = client.get_model_repository_index().models
    assert (listed.name, listed.version, listed.state) == ("left", "3", "READY")
    assert [list(one.shape) for one in model.outputs if one.name == "probabilities"] == [[-1, 2]]


def test_tritonclient_infers(client: triton.InferenceServerClient) -> None:
    answer = client.infer("left", inputs(), request_id="r7")
    np.testing.assert_allclose(answer.as_numpy("probabilities"), EXPECTED, atol=1e-6)
    labels = [text.decode() for text in answer.as_numpy("label").tolist()]
    assert labels == [("no", "yes")[index] for index in EXPECTED.argmax(1)]
    said = answer.get_response()
    assert (said.id, said.model_name, said.model_version) == ("r7", "left", "3")
    asked = [triton.InferRequestedOutput("label")]
    answer = client.infer("left", inputs(), "3", outputs=asked, compression_algorithm="gzip")
    assert answer.as_numpy("probabilities") is None


def test_typed_values_get_typed_answers(stub: Any) -> None:
    answer, call = stub.ModelInfer.with_call(typed())
    outputs = {one.name: one for one in answer.outputs}
    got = np.reshape(outputs["probabilities"].contents.fp64_contents, (20, 2))
    np.testing.assert_allclose(got, EXPECTED, atol=1e-6)
    assert set(outputs["label"].contents.bytes_contents) <= {b"no", b"yes"}
    assert (answer.id, list(answer.raw_output_contents)) == ("r7", [])
    assert dict(call.trailing_metadata())["x-eagleray-version"] == "3"


def test_every_call_is_told_the_id_of_its_request(stub: Any) -> None:
    versioned = typed()
    versioned.model_version = "3"
    ready = messages.ServerReadyRequest()
    asked = (stub.ModelInfer, typed()), (stub.ModelInfer, versioned), (stub.ServerReady, ready)
    for ask, request in asked:
        made, again = (_ids(ask.with_call(request)[1]) for _ in range(2))
        assert (len(made), made != again) == (1, True)
        given = ask.with_call(request, metadata=[("x-request-id", "mine-7")])[1]
        assert _ids(given) == ["mine-7"]


@pytest.mark.parametrize("change", [{"model_name": "left/x"}, {"model_version": "9"}])
def test_a_call_that_fails_is_told_it_too(stub: Any, change: dict[str, str]) -> None:
    request = typed()
    for name, value in change.items():
        setattr(request, name, value)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, metadata=[("x-request-id", "mine-7")])
    assert _ids(caught.value) == ["mine-7"]


def _ids(call: Any) -> list[str]:
    return [value for name, value in call.trailing_metadata() if name == "x-request-id"]


def test_the_code_and_the_message_say_what_is_wrong(stub: Any) -> None:
    invalid, not_found = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    for change, code, said in (
        ({"model_name": "right"}, not_found, "the model served here is left, but got 'right'"),
        ({"model_name": "left/versions/3"}, not_found, "must be without '/'"),
        ({"model_version": "9"}, not_found, "the version of left that serves is 3"),
        ({"model_name": ""}, not_found, "no page is at"),
    ):
        request = typed()
        for name, value in change.items():
            setattr(request, name, value)
        with refused(code, said):
            stub.ModelInfer(request)
    with refused(not_found, "the model served here is left"):
        stub.ModelMetadata(messages.ModelMetadataRequest(name="right"))
    dates = ["soon", *RAW["joined"][1:]]
    with refused(invalid, "instances[0].joined: a date or time"):
        stub.ModelInfer(typed(RAW | {"joined": dates}))


def test_bytes_that_are_no_message_are_refused(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "must be a ModelReadyRequest"):
            infer(b"\xff\xff\xff")
        cut = typed().SerializeToString()[:-3]
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "cannot be read"):
            infer(cut)
        unknown = channel.unary_unary(f"/{SERVICE}/ModelStreamInfer")
        with refused(grpc.StatusCode.UNIMPLEMENTED, ""):
            unknown(b"")


def test_a_call_needs_a_key_where_the_endpoint_asks_for_one(
    server: Server, stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, known = apikeys.new("team", ("predict",))
    file = tmp_path / "keys"
    watcher, admin = apikeys.new("watcher", ("admin",))
    file.write_text(f"{known.line()}\n{admin.line()}\n")
    monkeypatch.setattr(server.application, "guard", guard.Guard(keys.Keys(file)))
    assert stub.ServerReady(messages.ServerReadyRequest()).ready
    given = (("authorization", f"Bearer {key}"),)
    for metadata in ((), (("authorization", "Bearer other"),)):
        for ask, request in ((stub.ModelInfer, typed()), (stub.ModelReady, READY)):
            with refused(grpc.StatusCode.UNAUTHENTICATED, "a key must be given"):
                ask(request, metadata=metadata)
    with refused(grpc.StatusCode.PERMISSION_DENIED, "the key must have the scope predict"):
        stub.ModelInfer(typed(), metadata=(("authorization", f"Bearer {watcher}"),))
    assert stub.ModelReady(READY, metadata=given).ready
    assert len(stub.ModelInfer(typed(), metadata=given).outputs) == 4


READY = messages.ModelReadyRequest(name="left")


def test_a_replica_beyond_its_capacity_is_unavailable_for_a_second(
    server: Server, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = admission.Capacity(1)
    full.rows = 1
    monkeypatch.setattr(server.application, "capacity", full)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(typed())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["retry-after"] == "1"


def test_calls_that_nobody_waits_for_leave_the_queue(server: Server, stub: Any) -> None:
    """By their deadline, and by their client's end."""
    loaded = server.application.predictor
    assert loaded is not None
    busy, done = threading.Event(), threading.Event()
    run, batcher = loaded._batcher._run, loaded._batcher

    def slow(rows: Any) -> Any:
        busy.set()
        done.wait(30)
        return run(rows)

    batcher._run, batcher._times = slow, {}  # unknown times: batches run in the thread
    try:
        first = stub.ModelInfer.future(typed())
        assert busy.wait(30)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(typed(), timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        gone = stub.ModelInfer.future(typed())
        while server.application.ongoing.now < 2:
            pass
        gone.cancel()
        while server.application.ongoing.now > 1:
            pass
    finally:
        done.set()
        batcher._run = run
    assert len(first.result().outputs) == 4


def test_the_step_of_a_real_cluster_asks_and_says_what_has_failed(server: Server) -> None:
    row = {name: values[0] for name, values in RAW.items()} | {"city": "Bern"}
    assert release.infer(server.address, "left", row) == ("left", "3")
    with pytest.raises(errors.ClusterError, match=r"gRPC at .*NOT_FOUND.*is left, but got 'up'"):
        release.infer(server.address, "up", row)


def test_tritonclient_is_told_what_is_wrong(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="age: this column is needed"):
        client.infer("left", inputs()[1:])
