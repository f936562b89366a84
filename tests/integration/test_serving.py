"""A model served by the command line: real Ray, real HAProxy, real HTTP, real storage."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2, service_pb2_grpc

from eagleray import bundle, cli, storage
from eagleray.state.models import Registry
from eagleray.state.rollouts import Rollouts
from serving import environment, protocol
from tests import bundles
from tests.sockets import listeners

NAME = "left"
RAW = bundles.rows(1000, seed=11)
ROWS = bundles.instances(RAW)
BODY = json.dumps({"instances": ROWS[:5]}).encode()
JSON = {"content-type": "application/json"}


@dataclass
class Served:
    """A running endpoint, its registry, and what the command line printed."""

    url: str
    process: int
    grpc_port: int
    folder: Path
    models: Registry
    said: dict[str, Any]
    http: httpx.Client

    def predict(self, rows: list[dict[str, object]]) -> httpx.Response:
        return self.http.post(f"{self.url}/predict", json={"instances": rows})

    def sample(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        text = self.http.get(f"{self.url}/metrics").text
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        found = [s for s in samples if s.name == name and labels.items() <= s.labels.items()]
        return sum(sample.value for sample in found)

    def promote(self, number: int) -> None:
        self.models.promote(NAME, number)

    def version(self) -> int:
        return int(self.http.get(f"{self.url}/readyz").json()["version"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    models = Registry(storage.open(folder.as_uri()))
    for seed in range(2):
        models.register(NAME, bundles.files(seed=seed), {})
    models.promote(NAME, 1)
    port, grpc_port = environment.free_ports(2)
    models.register("up", bundles.files(seed=7), {})
    models.promote("up", 1)
    options = ["--storage", folder.as_uri(), "--port", str(port), "--max", "3", "--json"]
    options += ["--grpc-port", str(grpc_port), "--models", "up"]
    scaling = ["--target", "4", "--scale-up-after", "0.5", "--scale-down-after", "2"]
    command = [sys.executable, "-m", "eagleray", "serve", NAME, *options, *scaling]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            with httpx.Client(timeout=30) as http:
                yield Served(said["url"], process.pid, grpc_port, folder, models, said, http)
        finally:
            process.terminate()
            assert process.wait(60) in (0, -signal.SIGKILL)  # the last test has killed it
    wait(lambda: not _listens(port), 30)  # the kernel ends what a killed process has started


@dataclass
class Load:
    """Clients that ask without pause until the block ends, and what they were answered.

    A body comes in two halves, the second after `body_s` seconds: the request is in progress all
    the time, and takes next to no time of a processor.
    """

    served: Served
    clients: int
    body_s: float = 0.0
    statuses: list[object] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(self.clients)
        self._running = [self._pool.submit(self._ask) for _ in range(self.clients)]
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for client in self._running:
            client.result()
        self._pool.shutdown()

    def _ask(self) -> None:
        url = f"{self.served.url}/predict"
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(url, content=self._body(), headers=JSON)
                except httpx.HTTPError as error:
                    self.statuses.append(error)
                    continue
                self.statuses.append(answer.status_code)
                self.versions.add(answer.headers.get("x-eagleray-version", ""))

    def _body(self) -> bytes | Iterator[bytes]:
        return _slowly(BODY, self.body_s) if self.body_s else BODY

    def failed(self) -> list[object]:
        return [status for status in self.statuses if status != 200]


def _slowly(body: bytes, seconds: float) -> Iterator[bytes]:
    half = len(body) // 2
    yield body[:half]
    time.sleep(seconds)
    yield body[half:]


def wait(until: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.2)


def test_the_printed_curl_asks_for_a_real_row(served: Served) -> None:
    answer = subprocess.run(shlex.split(served.said["curl"]), capture_output=True, check=True)
    said = json.loads(answer.stdout)
    assert (said["model"], said["version"]) == (NAME, 1)
    assert set(said["predictions"][0]["probabilities"]) == {"no", "yes"}


def test_predictions_by_http_equal_the_bundles_own(served: Served) -> None:
    made = bundle.load(served.models, served.models.version(NAME, 1))
    expected = made.predict(RAW).outputs
    together = [p["probabilities"] for p in served.predict(ROWS).json()["predictions"]]
    alone = [served.predict([row]).json()["predictions"][0]["probabilities"] for row in ROWS[:50]]
    assert np.abs([[p["no"], p["yes"]] for p in together] - expected).max() < 1e-6
    assert np.abs([[p["no"], p["yes"]] for p in alone] - expected[:50]).max() < 1e-6


def test_predictions_take_the_fast_path_and_pages_go_rays_way(served: Served) -> None:
    """Ids that Ray Serve gives to requests are UUIDs, those of the fast path are not."""
    quick = served.predict(ROWS[:1]).headers.get_list("x-request-id")
    (through_ray,) = served.http.get(f"{served.url}/readyz").headers.get_list("x-request-id")
    assert [len(one) for one in quick] == [16]
    assert through_ray == str(uuid.UUID(through_ray))


TOLD = {"x-request-id", "x-eagleray-version"}


def test_tritonclient_asks_by_grpc_through_haproxy(served: Served) -> None:
    """On the fast path: Ray Serve marks each answer of its own way with a `request_id`."""
    address = f"127.0.0.1:{served.grpc_port}"
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        request = service_pb2.ModelInferRequest(model_name=NAME)
        age, city = {"fp64_contents": [41.0]}, {"bytes_contents": [b"Bern"]}
        request.inputs.add(name="age", datatype="FP64", shape=[1], contents=age)
        request.inputs.add(name="city", datatype="BYTES", shape=[1], contents=city)

        def fast() -> bool:  # until HAProxy has looked at the replica, calls take Ray's way
            _, call = stub.ModelInfer.with_call(request, timeout=30)
            return {key for key, _ in call.trailing_metadata()} == TOLD

        wait(fast, 60)
        answer = stub.ModelInfer(request, timeout=30)
        expected = served.predict([{"age": 41, "city": "Bern"}]).json()["predictions"][0]
        outputs = {one.name: one.contents for one in answer.outputs}
        assert outputs["probability"].fp64_contents[0] == pytest.approx(expected["probability"])
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(service_pb2.ModelInferRequest(model_name="right"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        request.raw_input_contents.append(bytes(protocol.MOST_BYTES))
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_another_model_is_loaded_by_its_first_request_and_takes_the_fast_path(
    served: Served,
) -> None:
    answer = served.http.post(f"{served.url}/v1/models/up:predict", json={"instances": ROWS[:5]})
    assert (answer.status_code, answer.json()["model"]) == (200, "up")
    assert len(answer.headers["x-request-id"]) == 16
    assert served.http.get(f"{served.url}/v1/models").json() == {"models": [NAME, "up"]}


def test_an_unknown_category_is_served_and_flagged(served: Served) -> None:
    (answer,) = served.predict([ROWS[0] | {"city": "Atlantis"}]).json()["predictions"]
    assert "Atlantis" in answer["warnings"][0]


ROW = json.dumps(ROWS[1])
BAD = {
    "broken JSON": ('{"instances": [', 400, None),
    "empty body": ("", 400, None),
    "missing field": ('{"instances": [{"age": 3}]}', 422, "instances[0].city"),
    "extra field": (f'{{"instances": [{ROW[:-1]}, "shoe": 1}}]}}', 422, "instances[0].shoe"),
    "wrong type": (f'{{"instances": [{ROW}, {ROW[:-1]}, "age": "x"}}]}}', 422, "instances[1].age"),
    "NaN": (f'{{"instances": [{ROW[:-1]}, "age": NaN}}]}}', 422, "instances[0].age"),
    "Infinity": (f'{{"instances": [{ROW[:-1]}, "age": Infinity}}]}}', 422, "instances[0].age"),
    "empty list": ('{"instances": []}', 422, "instances"),
    "10,001 rows": (
        json.dumps({"instances": [ROWS[1]] * (protocol.MOST_ROWS + 1)}),
        413,
        "instances",
    ),
    "20 MB": (f'{{"instances": "{"x" * 20_000_000}"}}', 413, None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_the_fields_name(served: Served, name: str) -> None:
    content, status, path = BAD[name]
    answer = served.http.post(f"{served.url}/predict", content=content, headers=JSON)
    error = answer.json()["error"]
    assert (answer.status_code, error["field"]) == (status, path)
    assert "Traceback" not in answer.text


def test_a_body_that_does_not_say_its_length_is_refused_while_it_is_read(served: Served) -> None:
    chunks = (b"x" * 1_000_000 for _ in range(20))
    answer = served.http.post(f"{served.url}/predict", content=chunks, headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/left:predict", 200),
        ("POST", "/predict/", 200),
        ("GET", "/v1/models/left", 200),
        ("POST", "/v1/models/right:predict", 404),
        ("POST", "/nowhere", 404),
        ("GET", "/predict", 405),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/docs", 200),
        ("GET", "/docs/swagger-ui.css", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/metrics", 200),
        ("GET", "/", 200),
        ("GET", "/live", 200),
    ],
)
def test_routes_answer(served: Served, method: str, path: str, status: int) -> None:
    content = f'{{"instances": [{ROW}]}}' if method == "POST" else None
    answer = served.http.request(method, f"{served.url}{path}", content=content, headers=JSON)
    assert answer.status_code == status


def test_a_browser_gets_the_page_and_the_values_of_this_moment(served: Served) -> None:
    page = served.http.get(f"{served.url}/", headers={"accept": "text/html"})
    assert 'data-name="income $"' in page.text
    assert "script-src 'sha256-" in page.headers["content-security-policy"]
    served.predict(ROWS[:1])
    said = served.http.get(f"{served.url}/live").json()
    assert said["traffic"]["replicas"]["1"] >= 1
    assert said["traffic"]["answered"] >= sum(said["traffic"]["counts"]) >= 1
    assert (said["storage"], said["rollout"]) == (True, None)


def test_a_promotion_under_load_changes_the_version_and_fails_no_request(served: Served) -> None:
    with Load(served, clients=4) as load:
        time.sleep(1)
        served.promote(2)
        wait(lambda: served.version() == 2, 120)
        time.sleep(1)
    assert load.failed() == []
    assert load.versions == {"1", "2"}


def test_a_version_that_does_not_reproduce_its_golden_rows_is_refused(served: Served) -> None:
    broken = bundles.files(seed=2) | {"golden.json": bundles.files(seed=3)["golden.json"]}
    number = served.models.register(NAME, broken, {}).number
    served.promote(number)
    wait(lambda: served.sample("eagleray_version_refused_total", version=str(number)) >= 1, 120)
    assert served.version() == 2
    assert served.predict(ROWS[:1]).headers["x-eagleray-version"] == "2"
    served.promote(2)


def test_a_bad_candidate_is_stopped_and_a_good_one_takes_over_and_no_request_fails(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    other = served.models.register(NAME, bundles.behaving(bias=50.0), {}).number
    good = served.models.register(NAME, bundles.files(seed=1), {}).number
    storage_of = ["--storage", served.folder.as_uri()]

    def roll_out(number: int) -> dict[str, Any]:
        steps = ["--steps", "20,50", "--bake-s", "2", "--least", "40", *storage_of]
        assert cli.main(["rollout", "start", NAME, str(number), *steps]) == 0
        rollouts = Rollouts(storage.open(served.folder.as_uri()))
        wait(lambda: not rollouts.current(NAME).open, 120)
        capsys.readouterr()
        assert cli.main(["rollout", "status", NAME, "--json", *storage_of]) == 0
        return dict(json.loads(capsys.readouterr().out))

    with Load(served, clients=3) as load:
        stopped = roll_out(other)
        promoted = roll_out(good)
        assert promoted["status"] == "promoted", promoted["decisions"]
        wait(lambda: served.version() == good, 120)
        time.sleep(1)
    assert load.failed() == []
    assert stopped["status"] == "stopped"
    assert stopped["decisions"][-1]["why"].startswith("predictions of ")
    assert [one["action"] for one in promoted["decisions"]] == ["started", "advanced", "promoted"]
    assert load.versions == {"2", str(other), str(good)}
    served.promote(2)
    wait(lambda: served.version() == 2, 120)


def test_while_storage_is_gone_the_version_keeps_serving(served: Served) -> None:
    away = served.folder.with_name("away")
    served.folder.rename(away)
    try:
        wait(lambda: served.sample("eagleray_storage_errors_total") >= 1, 120)
        assert served.predict(ROWS[:1]).status_code == 200
    finally:
        away.rename(served.folder)


def test_load_makes_replicas_come_and_calm_makes_them_go_and_no_request_fails(
    served: Served,
) -> None:
    def replicas() -> float:
        return served.sample("eagleray_model_version", version="2")

    def answered() -> float:
        return served.sample("eagleray_requests_total", route="predict", status="200")

    before = answered()
    with Load(served, clients=6, body_s=0.2) as slow:
        wait(lambda: replicas() >= 2, 120)
        with Load(served, clients=4) as heavy:
            time.sleep(1)
    with Load(served, clients=1) as light:
        wait(lambda: replicas() == 1, 120)
        time.sleep(1)
    assert [load.failed() for load in (slow, heavy, light)] == [[], [], []]
    asked = sum(len(load.statuses) for load in (slow, heavy, light))
    assert 0 <= answered() - before - asked < 5  # HAProxy asks again where a replica has left


def test_what_answers_clients_listens_on_the_loopback_alone(served: Served) -> None:
    """HAProxy, with REST and gRPC alone, and what it passes calls of gRPC to."""
    found: dict[str, set[tuple[str, int]]] = {"haproxy": set(), "ray::ServeReplica": set()}
    for process in _descendants(served.process):
        for program in found:
            if program in _command(process).partition(" ")[0]:
                ports = (one.split(":") for one in listeners(process))
                found[program] |= {(address, int(port, 16)) for address, port in ports}
    assert len(found["haproxy"]) == 2
    assert {address for address, _ in found["haproxy"]} == {LOOPBACK[0]}
    local = {port for address, port in found["ray::ServeReplica"] if address in LOOPBACK}
    assert not local.isdisjoint(range(30_000, 31_000))  # HTTP
    assert not local.isdisjoint(range(40_000, 41_000))  # gRPC


LOOPBACK = "0100007F", "0000000000000000FFFF00000100007F"  # the second as gRPC listens


def test_a_killed_endpoint_leaves_no_process_behind(served: Served) -> None:
    """But Ray's agents, which end by themselves once they have not reached the head for 60 s."""
    started = {pid: _command(pid) for pid in _descendants(served.process)}
    lasting = {pid: line for pid, line in started.items() if not _agent(line)}
    programs = {Path(line.split()[0]).name for line in lasting.values()}
    assert {"haproxy", "raylet", "gcs_server"} <= programs
    os.kill(served.process, signal.SIGKILL)
    wait(lambda: all(_command(pid) != line for pid, line in lasting.items()), 60)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _descendants(process: int) -> list[int]:
    """A process's children, their children, and so on."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(after[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _command(process: int) -> str:
    """A process's command line; empty when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def _agent(line: str) -> bool:
    return not line or (line.startswith("ray::") and not line.startswith("ray::Serve"))
