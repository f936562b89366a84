"""Clients of others and our own against a real HTTP server: tritonclient, `eagleray.Client`."""

import dataclasses
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import tritonclient.http as triton
import uvicorn
from tritonclient.utils import InferenceServerException

import eagleray
from eagleray import errors
from eagleray.api import remote
from serving import batching, environment, metrics, predictor, protocol, web
from serving.wire import table_arrow
from tests import bundles

RAW = bundles.rows(20, seed=3)
EXPECTED = bundles.make().predict(RAW).outputs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an endpoint of one model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        gauges = metrics.Metrics(tmp_path_factory.mktemp("metrics"), "left")
        application, loaded = web.Application("left", gauges), bundles.make()
        loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)
        thread = ThreadPoolExecutor(1)
        application.predictor = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
        (port,) = environment.free_ports(1)
        running = uvicorn.Server(uvicorn.Config(application, port=port, log_level="error"))
        beside = threading.Thread(target=running.run)
        beside.start()
        address = f"127.0.0.1:{port}"
        while not eagleray.Client(f"http://{address}").ready():
            assert beside.is_alive()
        yield address
        running.should_exit = True
        beside.join()
        thread.shutdown()


@pytest.fixture
def client(server: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server) as made:
        yield made


def inputs(*, binary: bool, raw: dict[str, list[Any]] = RAW) -> list[triton.InferInput]:
    made = []
    for name, values in raw.items():
        if name in ("age", "income $"):
            array, datatype = np.array(values, np.float64), "FP64"
        else:
            texts = ["" if value is None else str(value) for value in values]
            array, datatype = np.array(texts, object), "BYTES"
        tensor = triton.InferInput(name, [len(values), 1], datatype)
        tensor.set_data_from_numpy(array.reshape(-1, 1), binary_data=binary)
        made.append(tensor)
    return made


def test_tritonclient_reads_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("left")
    assert client.is_model_ready("left", "3")
    assert not client.is_model_ready("left", "4")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    model = client.get_model_metadata("left")
    assert [one["name"] for one in model["inputs"]] == list(RAW)
    with pytest.raises(InferenceServerException, match="the model served here is left"):
        client.get_model_metadata("right")


@pytest.mark.parametrize("version", ["", "3"])
def test_tritonclient_infers_in_binary(client: triton.InferenceServerClient, version: str) -> None:
    answer = client.infer("left", inputs(binary=True), version, request_id="r7")
    np.testing.assert_allclose(answer.as_numpy("probabilities"), EXPECTED, atol=1e-6)
    labels = [text.decode() for text in answer.as_numpy("label").tolist()]
    assert labels == [("no", "yes")[index] for index in EXPECTED.argmax(1)]
    assert answer.get_response()["id"] == "r7"


@pytest.mark.parametrize("packed", [None, "gzip"])
def test_tritonclient_infers_in_json(
    client: triton.InferenceServerClient, packed: str | None
) -> None:
    raw = {name: values for name, values in RAW.items() if name != "income $"}  # JSON has no NaN
    asked = triton.InferRequestedOutput("probability", binary_data=False)
    answer = client.infer(
        "left",
        inputs(binary=False, raw=raw),
        outputs=[asked],
        request_compression_algorithm=packed,
        response_compression_algorithm=packed,
    )
    without = bundles.make().predict(RAW | {"income $": [None] * 20}).outputs
    np.testing.assert_allclose(answer.as_numpy("probability"), without.max(1), atol=1e-6)
    assert answer.as_numpy("label") is None


def test_tritonclient_is_told_what_is_wrong(client: triton.InferenceServerClient) -> None:
    short = inputs(binary=True)[1:]
    with pytest.raises(InferenceServerException, match="age: this column is needed"):
        client.infer("left", short)
    with pytest.raises(InferenceServerException, match="version of left that serves is 3"):
        client.infer("left", inputs(binary=True), "9")


def test_a_client_predicts_a_table_or_rows(server: str) -> None:
    client = eagleray.Client(f"http://{server}/")
    frame = pd.DataFrame(RAW).astype({"member": object})
    answers = client.predict(frame)
    np.testing.assert_allclose(answers["probability of yes"], EXPECTED[:, 1], atol=1e-6)
    rows = [{"age": 41, "city": "Bern"}, {"age": 42, "city": "Paris"}]
    answers = client.predict(rows, explain=True)
    assert answers["warnings"].tolist() == ["", "city: 'Paris' was not seen in training"]
    parts = answers[[f"contribution of {name}" for name in RAW]].sum(axis=1)
    np.testing.assert_allclose(answers["mean"] + parts, answers["probability"], atol=1e-6)
    assert client.metadata()["versions"] == ["3"]


def test_a_client_sends_a_large_table_in_parts(server: str) -> None:
    frame = pd.DataFrame({name: values * 1001 for name, values in RAW.items()})
    answers = eagleray.Client(f"http://{server}").predict(frame.astype({"member": object}))
    np.testing.assert_allclose(answers["probability"], np.tile(EXPECTED.max(1), 1001), atol=1e-6)


def test_a_client_raises_errors_of_a_type(server: str) -> None:
    client = eagleray.Client(f"http://{server}")
    with pytest.raises(errors.RequestError, match="a number is needed, but got 'old'") as caught:
        client.predict([{"age": "old", "city": "Bern"}])
    assert (caught.value.status, caught.value.field) == (422, "instances[0].age")
    with pytest.raises(errors.DataError, match="values of one type"):
        client.predict([{"age": 1, "city": "Bern"}, {"age": "old", "city": "Bern"}])
    with pytest.raises(errors.UserError, match="http://"):
        eagleray.Client("left:8000")
    (port,) = environment.free_ports(1)
    away = eagleray.Client(f"http://127.0.0.1:{port}", retries=0)
    assert not away.ready()
    with pytest.raises(errors.ServingError, match="must answer within 30 s"):
        away.predict([{"age": 41, "city": "Bern"}])


def test_a_client_reports_what_was_true_of_the_rows_of_its_answers(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = eagleray.Client(f"http://{server}")
    frame = pd.DataFrame(RAW).astype({"member": object})
    answers = pd.concat([client.predict(frame, identify=True) for _ in range(3)])
    assert answers["request_id"].nunique() == 3
    assert answers["row"].tolist() == [*range(20)] * 3
    labels = [
        eagleray.Label(one.request_id, one.version, one.row, predicted=one.label, label="no")
        for one in answers.itertuples()
    ]
    monkeypatch.setattr(remote, "LABELS", 30)  # the rows of a request stay together
    assert client.label(labels) == (3, 0, 0)
    assert client.label(iter(labels)) == (0, 3, 0)
    assert client.label([eagleray.Label("another", 9, reward=0.5)]) == (0, 0, 1)
    assert client.label([]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (eagleray.Label("a", 3, predicted="no"), "labels[1]"),
        (eagleray.Label("a", 3, predicted="no", label="maybe"), "labels[1]"),
        (eagleray.Label("a", 3, reward=1.5), "labels[1].reward"),
        (eagleray.Label("a", 0, reward=1), "labels[1].version"),
    ],
)
def test_a_wrong_label_is_named_and_none_beside_it_counts(
    server: str, wrong: eagleray.Label, field: str
) -> None:
    client, right = eagleray.Client(f"http://{server}"), eagleray.Label(f"beside {wrong}"[:99], 3)
    right = dataclasses.replace(right, reward=1.0)
    with pytest.raises(errors.RequestError) as caught:
        client.label([right, wrong])
    assert (caught.value.status, caught.value.field) == (422, field)
    assert client.label([right]) == (1, 0, 0)
    of_it = dataclasses.replace(right, row=1, reward=2.0)  # is sent beside the first one
    with pytest.raises(errors.RequestError) as caught:
        client.label([right, eagleray.Label("b", 3, reward=1), of_it])
    assert caught.value.field == "labels[2].reward"


def test_labels_are_sent_once_where_a_connection_fails() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Dropping) as server:
        beside = threading.Thread(target=server.serve_forever)
        beside.start()
        try:
            with pytest.raises(errors.ServingError):
                eagleray.Client(f"http://127.0.0.1:{server.server_port}").label(
                    [eagleray.Label("a", 3, reward=1)]
                )
            assert Dropping.posts == 1
        finally:
            server.shutdown()
            beside.join()


class Dropping(http.server.BaseHTTPRequestHandler):
    """Names its model, and closes the connection of what is posted."""

    posts: ClassVar[int] = 0

    def do_GET(self) -> None:
        body = b'{"model": "left"}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        Dropping.posts += 1
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Busy(http.server.BaseHTTPRequestHandler):
    """Refuses twice, and then says another error."""

    statuses: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        self.send_response(self.statuses.pop(0))
        self.send_header("retry-after", "0")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_client_comes_back_when_it_is_told_to() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Busy) as server:
        beside = threading.Thread(target=server.serve_forever)
        beside.start()
        client = eagleray.Client(f"http://127.0.0.1:{server.server_port}", retries=2)
        try:
            Busy.statuses[:] = [503, 503, 418]
            with pytest.raises(errors.RequestError) as caught:
                client.metadata()
            assert caught.value.status == 418
            Busy.statuses[:] = [503, 503, 503, 200]
            with pytest.raises(errors.ServingError):
                client.metadata()
            assert Busy.statuses == [200]
        finally:
            server.shutdown()
            beside.join()


def test_the_client_sends_no_more_at_once_than_an_endpoint_takes() -> None:
    assert (remote.ROWS, remote.LABELS) == (protocol.MOST_ROWS, protocol.MOST_LABELS)
    assert remote.ARROW.encode() == table_arrow.ARROW.content_type
