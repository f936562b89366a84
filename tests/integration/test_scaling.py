"""Autoscaling of real replicas: to zero and back, and beside its simulation."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from eagleray import storage
from eagleray.api import endpoints
from eagleray.state.models import Registry
from serving import environment, first_replica
from tests import bundles

ROOT = Path(__file__).parents[2]
NAME = "left"
BODY = {"instances": bundles.instances(bundles.rows(3))}

REQUEST = service_pb2.ModelInferRequest(model_name=NAME)
REQUEST.inputs.add(name="age", datatype="FP64", shape=[1], contents={"fp64_contents": [41.0]})
REQUEST.inputs.add(name="city", datatype="BYTES", shape=[1], contents={"bytes_contents": [b"Bern"]})

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Serve's own, at its import
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@contextlib.contextmanager
def serving(folder: Path, *, wait_s: int) -> Iterator[tuple[str, str]]:
    """An endpoint that begins without a replica, and its address for gRPC; yields both."""
    models = Registry(storage.open(folder.as_uri()))
    models.register(NAME, bundles.files(), {})
    models.promote(NAME, 1)
    port, grpc_port = environment.free_ports(2)
    options: dict[str, Any] = {"min_replicas": 0, "max_replicas": 2, "zero_delay_s": 2.0}
    options |= {"port": port, "grpc_port": grpc_port}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(first_replica.WAIT_VARIABLE, str(wait_s))  # Ray's processes inherit it
        with endpoints.serve(NAME, folder.as_uri(), p95_ms=200.0, **options) as running:
            yield running.url, f"127.0.0.1:{grpc_port}"


def ask(url: str) -> httpx.Response:
    return httpx.post(f"{url}/predict", json=BODY, timeout=300)


def ask_by_grpc(address: str) -> Any:
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(service_pb2.ModelInferRequest(model_name="right"), timeout=300)
        return caught.value.code(), stub.ModelInfer(REQUEST, timeout=300)


def replicas() -> int:
    from ray import serve

    return sum(serve.status().applications[NAME].deployments[NAME].replica_states.values())


def test_requests_at_zero_replicas_are_answered_by_the_first_which_ends_again(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, wait_s=200) as (url, address):
        code, answer = ask_by_grpc(address)
        assert (code, answer.model_version) == (grpc.StatusCode.NOT_FOUND, "1")
        while replicas():
            time.sleep(0.1)
        for _ in range(2):
            assert replicas() == 0
            with ThreadPoolExecutor(5) as pool:
                answers = list(pool.map(ask, [url] * 5))
            assert [answer.status_code for answer in answers] == [200] * 5
            assert all(len(answer.json()["predictions"]) == 3 for answer in answers)
            assert replicas() >= 1
            while replicas():
                time.sleep(0.1)


def test_a_request_that_waits_too_long_for_the_first_replica_gets_a_503(tmp_path: Path) -> None:
    with serving(tmp_path, wait_s=1) as (url, address):
        refused = ask(url)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["type"] == "unavailable"
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(REQUEST, timeout=60)
        late, told = caught.value, dict(caught.value.trailing_metadata())
        assert (late.code(), told["retry-after"]) == (grpc.StatusCode.UNAVAILABLE, "5")
        assert late.details() == "no replica could answer within 1 s"
        while ask(url).status_code == 503:  # what the first one asked for comes all the same
            time.sleep(0.2)
        assert ask(url).status_code == 200


@pytest.mark.alone
def test_the_simulation_says_what_real_replicas_do_after_a_step_of_the_load() -> None:
    """One of the simulations, which differ in when replicas report, says all of it.

    The bands: a machine of 2 cores adds milliseconds and seconds.
    """
    command = [sys.executable, "-m", "benchmarks.autoscale", "--parts", "real", "--ours"]
    run = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert run.returncode == 0, run.stderr[-2000:]
    (line,) = [line for line in run.stdout.splitlines() if line.startswith('{"comparison"')]
    said = json.loads(line)["comparison"]
    assert any(alike(said["measured"], simulated) for simulated in said["simulated"]), line


def alike(real: dict[str, float], simulated: dict[str, float]) -> bool:
    return (
        abs(real["most"] - simulated["most"]) <= 1
        and abs(real["turns"] - simulated["turns"]) <= 1
        and abs(real["back_s"] - simulated["back_s"]) <= 10
        and 0.9 <= real["p50_ms"] / simulated["p50_ms"] <= 1.5
        and real["replica_s"] == pytest.approx(simulated["replica_s"], rel=0.2)
    )
