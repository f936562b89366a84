"""What `make e2e` waits, counts, digs and explains with, against an emulated API and real HTTP."""

import asyncio
import http.server
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from wsgiref import simple_server

import aiohttp.web
import kmock
import pytest
import uvicorn

from eagleray import errors
from k8s import api
from serving import batching, metrics, predictor, web
from tests import bundles, kube_api
from tests.e2e import __main__ as door
from tests.e2e import clients, cluster, diagnosis, helm, settings, story, tunnel, waiting
from tests.kube_api import Server

LABELS = {"app.kubernetes.io/instance": "e2e", "eagleray/role": "worker"}


@pytest.fixture
def server(kube: Server) -> Server:
    """A cluster with the operator, and nothing in namespace `ml`."""
    for resource in ("rayservices", "rayjobs", "rayclusters"):
        kube.mock.resources[f"ray.io/v1/{resource}"] = {"namespaced": True}
    for resource in ("pods", "events", "services", "configmaps"):
        kube.mock.resources[f"v1/{resource}"] = {"namespaced": True, "verbs": ["list", "delete"]}
    return kube


def put(server: Server, resource: str, name: str, **content: Any) -> None:
    metadata = {"name": name, "namespace": "ml", **content.pop("metadata", {})}
    server.mock.objects[resource, "ml", name] = {"metadata": metadata, **content}


def container(name: str, state: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "ready": False, "restartCount": 0, **rest}


def test_a_wait_ends_when_nothing_is_missing() -> None:
    seen = iter(["a pod", "its address", ""])
    waiting.until("an endpoint", lambda: next(seen), limit_s=10, every_s=0)
    assert next(seen, "all looked at") == "all looked at"


def test_a_wait_that_is_over_says_what_is_missing_and_why() -> None:
    with pytest.raises(
        TimeoutError, match="an endpoint: not within 0 s; still missing: a pod"
    ) as e:
        waiting.until("an endpoint", lambda: "a pod", limit_s=0, reason=lambda: "no node has room")
    assert e.value.__notes__ == ["no node has room"]


def test_a_wait_asks_again_when_the_cluster_fails_to_answer() -> None:
    answers: list[Any] = [errors.ClusterError("503"), OSError("reset"), ""]

    def look() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    waiting.until("an endpoint", look, limit_s=10, every_s=0)
    assert answers == []


def test_the_diagnosis_is_that_of_why_for_all_that_is_in_the_namespace(server: Server) -> None:
    pull = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "absent:1": not found'}
    states = [container("c", {"waiting": pull}, image="absent:1")]
    put(server, "v1/pods", "a", status={"phase": "Pending", "containerStatuses": states})
    put(server, "v1/pods", "fine", status={"phase": "Succeeded"})
    failed = {"jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "exit code 2: no"}
    put(server, "ray.io/v1/rayjobs", "run", status=failed, spec={})
    ended, alone = diagnosis.causes(cluster.Cluster("ml"))
    assert ended.startswith("RayJob run: failed (AppFailed)")
    assert "cause: exit code 2: no\nfix:   fix that in the experiment file" in ended
    assert alone.startswith("Pod a: ImagePullBackOff: absent:1: there is no image absent:1; set im")


def test_the_report_has_statuses_logs_and_the_latest_events(server: Server) -> None:
    put(server, "ray.io/v1/rayservices", "e2e", spec={})
    put(server, "ray.io/v1/rayclusters", "e2e-abc", status={"state": "ready"})
    running = [container("ray-head", {"running": {}}, image="i")]
    put(server, "v1/pods", "head", status={"phase": "Running", "containerStatuses": running})
    server.mock["get", "/api/v1/namespaces/ml/pods/head/log"] << b"Ray runtime started.\n"
    for number, said in enumerate(["Pulled", "Started"]):
        when = f"2026-01-01T00:00:0{number}Z"
        about = {"involvedObject": {"name": "head"}, "lastTimestamp": when}
        put(server, "v1/events", f"e{number}", type="Normal", reason=said, **about)
    text = diagnosis.report(cluster.Cluster("ml"))
    assert "rayservices/e2e:\n'none: is the operator running?'" in text
    assert "rayclusters/e2e-abc:\nstate: ready" in text
    assert "head ray-head| Ray runtime started." in text
    assert text.endswith("Normal Pulled head (1): \nNormal Started head (1): ")


def test_a_report_goes_on_where_a_part_cannot_be_read(server: Server) -> None:
    server.stop()
    text = diagnosis.report(cluster.Cluster("ml"))
    assert "cause: the API server cannot be reached" in text
    assert text.count("cannot be read: Kubernetes at") == 3


def test_what_a_release_leaves_is_found_by_label_and_by_name(server: Server) -> None:
    put(server, "v1/pods", "somebody", metadata={"labels": LABELS})
    put(server, "v1/configmaps", "e2e-runs")
    put(server, "v1/services", "e2e")
    put(server, "v1/events", "e2e-head.1")
    put(server, "v1/pods", "e2eclient")
    put(server, "v1/services", "other-e2e")
    left = cluster.Cluster("ml").leftovers("e2e")
    assert left == ["configmaps/e2e-runs", "pods/somebody", "services/e2e"]


def test_a_namespace_that_is_there_is_not_ours_to_delete(server: Server) -> None:
    server.mock["get", "/api/v1/namespaces/ml"] << {"metadata": {"name": "ml"}}
    assert not cluster.Cluster("ml").make_namespace()


def test_pods_that_are_ending_do_not_count(server: Server) -> None:
    put(
        server,
        "v1/pods",
        "old",
        metadata={"labels": LABELS, "deletionTimestamp": "2026-01-01T00:00:00Z"},
    )
    put(server, "v1/pods", "new", metadata={"labels": LABELS})
    assert cluster.names(cluster.Cluster("ml").pods(role="worker")) == ["new"]


def test_what_is_deleted_is_waited_for_until_it_is_gone(server: Server) -> None:
    put(server, "v1/pods", "a")
    there = cluster.Cluster("ml")
    assert there.gone(api.PODS, "a") == "the end of pods a"
    there.delete(api.PODS, "a")
    there.delete(api.PODS, "a")
    assert there.gone(api.PODS, "a") == ""


def test_without_a_cluster_one_line_says_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    assert door.main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("make e2e: needs a cluster, from KUBECONFIG or ~/.kube/config, but ")
    assert len(said.splitlines()) == 1


def test_without_the_operator_one_line_says_how_to_install_it(
    kube: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kube.mock.resources["v1/pods"] = {"namespaced": True}
    assert door.main([]) == 2
    said = capsys.readouterr().err
    assert "make e2e: needs the KubeRay operator" in said
    assert "helm install kuberay-operator" in said
    assert len(said.splitlines()) == 1


def test_a_cluster_with_the_operator_is_taken(server: Server) -> None:
    cluster.check(settings.Settings())


def test_a_cluster_that_does_not_answer_is_one_line(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.stop()
    assert door.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"EAGLERAY_E2E_IMAG": "a:1"}, "EAGLERAY_E2E_IMAG: .*; did you mean EAGLERAY_E2E_IMAGE"),
        ({"EAGLERAY_E2E_S3_URI": "s3://abc"}, "needs EAGLERAY_E2E_S3_ACCESS_KEY_ID"),
        ({"EAGLERAY_E2E_VALUES": "/absent"}, "must be a file, but got /absent"),
        ({"EAGLERAY_E2E_PATIENCE": "long"}, "must be a number, but got long"),
        ({"EAGLERAY_E2E_FAULT_TOLERANCE": "redis"}, "must be embedded or none, but got redis"),
        ({"EAGLERAY_E2E_KUBERAY": "1.6"}, "set EAGLERAY_E2E_FAULT_TOLERANCE=none"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        settings.read(given)


def test_every_variable_stands_in_the_readme() -> None:
    text = (Path(settings.__file__).parent / "README.md").read_text()
    for each in settings.described():
        assert each in text, each


def test_a_load_counts_from_the_last_whole_line_of_its_log() -> None:
    first = {"answered": 1, "failed": 0, "versions": {"1": 1}, "errors": {}, "latest": "1"}
    then = {**first, "answered": 9, "failed": 2, "errors": {"503": 2}, "latest": "2"}
    log = "\n".join([json.dumps(first), json.dumps(then), '{"answered": 1'])
    assert clients.counted(log) == clients.Count(9, 2, {"1": 1}, {"503": 2}, "2")
    assert clients.counted("Traceback (most recent call last):") == clients.Count()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real application with version 3 of a real model, at a URL."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setenv(metrics.FOLDER, "")
        gauges = metrics.Metrics(tmp_path_factory.mktemp("metrics"), "left")
        application = web.Application("left", gauges)
        loaded = bundles.make()
        loaded.name, loaded.number = "left", 3
        loaded.golden = bundles.golden(loaded)
        application.predictor = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            running = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
            kept = threading.Thread(target=running.run, args=([listening],))
            kept.start()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            running.should_exit = True
            kept.join()


def ended(command: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *command[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_load_asks_a_real_endpoint_and_counts_its_versions(endpoint: str) -> None:
    options = {"connections": 3, "kept": 2, "rows": 5, "pause": 0.01, "seconds": 2}
    said = ended(clients.load_command(endpoint, "left", **options))
    count = clients.counted(said.stdout)
    assert count.answered > 10
    assert (count.failed, set(count.versions), count.latest) == (0, {"3"}, "3")


def test_a_kept_connection_of_the_load_is_opened_once_and_anew_when_the_server_has_closed_it(
    endpoint: str,
) -> None:
    described = urllib.request.urlopen(f"{endpoint}/openapi.json").read()
    opened: list[int] = []

    class Counting(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            opened.append(0)

        def do_GET(self) -> None:
            self._answer(described)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            opened[-1] += 1
            self.close_connection = opened[-1] == 5
            self._answer(b"{}")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.send_header("x-eagleray-version", "3")
            if self.close_connection:
                self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        options = {"connections": 0, "kept": 1, "pause": 0.02, "seconds": 2}
        said = ended(clients.load_command(url, "left", **options))
        server.shutdown()
        thread.join()
    count = clients.counted(said.stdout)
    assert count.failed == 0
    assert count.answered > 5
    assert set(opened[1:-1]) == {5}


def test_the_load_counts_what_fails(endpoint: str) -> None:
    described = urllib.request.urlopen(f"{endpoint}/openapi.json").read()

    def serve(environment: dict[str, Any], start: Any) -> list[bytes]:
        if environment["REQUEST_METHOD"] == "POST":
            start("503 Service Unavailable", [])
            return [b""]
        start("200 OK", [("Content-Type", "application/json")])
        return [described]

    class Silent(simple_server.WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with simple_server.make_server("127.0.0.1", 0, serve, handler_class=Silent) as failing:
        thread = threading.Thread(target=failing.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{failing.server_port}"
        said = ended(clients.load_command(url, "left", connections=1, pause=0.05, seconds=1))
        failing.shutdown()
        thread.join()
    count = clients.counted(said.stdout)
    assert count.answered == 0
    assert count.failed == count.errors["503"] > 1


def test_one_prediction_from_a_pod_is_made_by_the_charts_own_script(endpoint: str) -> None:
    said = ended(clients.prediction_command(endpoint, "left", patience_s=20))
    assert said.stdout.startswith("left version 3 predicts {")


def test_kubectl_is_asked_for_a_port_on_loopback_alone() -> None:
    words = tunnel.command("kubectl", "ml", "pod/store-0", 8333, 40123)
    assert " ".join(words) == (
        "kubectl port-forward --namespace ml --address 127.0.0.1 pod/store-0 40123:8333"
    )


async def forward(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
    """The API's port forwarding: two channels a port, each begun by the port's number.

    https://kubernetes.io/docs/reference/generated/kubernetes-api/ and its `v4.channel.k8s.io`.
    What comes is answered in capitals.
    """
    assert request.path == "/api/v1/namespaces/ml/pods/store-0/portforward"
    stream = aiohttp.web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
    await stream.prepare(request)
    port = struct.pack("<H", int(request.query["ports"]))
    for channel in (b"\0", b"\1"):
        await stream.send_bytes(channel + port)
    async for message in stream:
        if message.type == aiohttp.WSMsgType.BINARY:
            await stream.send_bytes(b"\0" + message.data[1:].upper())
    return stream


@pytest.fixture
def forwarding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An API server that knows port forwarding, where there is no kubectl."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        application = aiohttp.web.Application()
        application.router.add_get("/{rest:.*}", forward)
        runner = aiohttp.web.AppRunner(application)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        found["stop"] = asyncio.Event()
        ready.set()
        await found["stop"].wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)

    file = kube_api.kubeconfig(SimpleNamespace(url=found["url"]), tmp_path)  # type: ignore[arg-type]
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setattr(tunnel.shutil, "which", lambda _: None)
    yield
    loop.call_soon_threadsafe(found["stop"].set)
    thread.join()
    loop.close()


def test_without_kubectl_a_port_is_led_through_the_api(forwarding: None) -> None:
    with tunnel.opened("ml", "store-0", 8333) as here:
        host, _, port = here.partition(":")
        for said in (b"hello", b"x" * 300_000):
            with socket.create_connection((host, int(port)), 10) as ours:
                ours.sendall(said)
                heard = b""
                while len(heard) < len(said):
                    heard += ours.recv(65536)
            assert heard == said.upper()


@pytest.mark.parametrize("major", ["3", "4"])
def test_helm_says_what_it_could_not_do(server: Server, tmp_path: Path, major: str) -> None:
    """Each action with the options that its version knows: the cluster is gone, not the option."""
    server.stop()
    there = helm.find("ml", tmp_path, major)
    for action in (
        lambda: there.install("e2e", {}),
        lambda: there.upgrade("e2e", {}),
        lambda: there.rollback("e2e"),
        lambda: there.test("e2e", 1),
        lambda: there.uninstall("e2e"),
    ):
        with pytest.raises(errors.ClusterError, match=r"unreachable|refused"):
            action()


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A cluster that Helm itself installs to, where pods of the release are ready at once."""
    server = Server()
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(server, tmp_path)))
    monkeypatch.setattr(api, "PAUSE_S", 0.01)
    server.mock["get", "/api/v1/namespaces/ml"] << {"metadata": {"name": "ml"}}
    conditions = [{"type": "Ready", "status": "True"}]
    for component, role in (("serving", "head"), ("serving", "worker"), ("store", "store")):
        labels = {"app.kubernetes.io/instance": "e2e", "app.kubernetes.io/component": component}
        labels |= {"eagleray/role": role, "ray.io/cluster": "e2e-abc"}
        status = {"conditions": conditions}
        put(server, "v1/pods", f"e2e-{role}", metadata={"labels": labels}, status=status)
    yield server
    server.stop()


def test_helm_installs_upgrades_rolls_back_and_uninstalls(whole: Server, tmp_path: Path) -> None:
    there = helm.find("ml", tmp_path, "4")
    values = settings.values(settings.Settings(), "s3://models")
    values["networkPolicy"] = {"enabled": False}  # many objects, of which this is not about
    there.install("e2e", values)
    assert whole.names("ray.io/v1/rayservices") == {"e2e"}
    there.upgrade("e2e", settings.merged(values, {"podAnnotations": {"revision": "2"}}))
    there.rollback("e2e")
    assert there.history("e2e") == ["superseded", "superseded", "deployed"]
    there.uninstall("e2e")
    there.uninstall("e2e")
    assert whole.names("ray.io/v1/rayservices") == set()


def test_the_shared_release_is_installed_once_and_its_state_is_read(
    whole: Server, tmp_path: Path
) -> None:
    active = {"activeServiceStatus": {"rayClusterName": "e2e-abc"}}
    upgrading = {"type": "UpgradeInProgress", "status": "True"}
    ready = {"type": "Ready", "status": "True"}
    whole.mock.statuses["RayService"] = {**active, "conditions": [ready, upgrading]}
    told = story.Story(settings.Settings(namespace="ml", helm="4"), tmp_path)
    for name in cluster.names(told.cluster.pods()):
        assert name.startswith("e2e-")
    told._nothing_left = lambda: None  # type: ignore[method-assign]  # the pods are put there
    release = told.installed()
    assert told.installed() is release
    assert whole.names("v1/secrets") == {"e2e-store", "sh.helm.release.v1.e2e.v1"}
    assert (release.active(), release.replicas()) == ("e2e-abc", 1)
    assert release.unready() == "RayService e2e: the end of its upgrade"
    told.clean()
    assert whole.names("ray.io/v1/rayservices") == set()


def test_a_step_that_has_failed_skips_who_stands_on_it(whole: Server, tmp_path: Path) -> None:
    refusal = kmock.KubernetesError(403, "Forbidden", "secrets is forbidden")
    whole.mock["post", kmock.resource("v1/secrets")] << refusal
    told = story.Story(settings.Settings(namespace="ml", helm="4"), tmp_path)
    told._nothing_left = lambda: None  # type: ignore[method-assign]
    with pytest.raises(errors.ClusterError, match="secrets is forbidden"):
        told.installed()
    with pytest.raises(pytest.skip.Exception, match=r"the installation has failed: helm install "):
        told.learned()


def test_a_release_that_does_not_come_up_ends_with_its_reason_and_the_rest_is_skipped(
    whole: Server,
) -> None:
    waits = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "absent:1"'}
    status = {
        "phase": "Pending",
        "containerStatuses": [container("s3", {"waiting": waits}, image="absent:1")],
    }
    for pod in ("e2e-head", "e2e-worker", "e2e-store"):
        del whole.mock.objects["v1/pods", "ml", pod]
    put(whole, "v1/pods", "store", status=status)
    whole.mock.resources["v1/events"] = {"namespaced": True}
    given = {"NAMESPACE": "ml", "PATIENCE": "0.001", "HELM": "4"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.e2e"],
        env=os.environ | {settings.PREFIX + name: text for name, text in given.items()},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Pod store: ImagePullBackOff: absent:1: image absent:1 cannot be pulled" in run.stdout
    assert "1 failed, 23 skipped" in run.stdout
    assert whole.names("ray.io/v1/rayservices") == set()


def test_a_helm_program_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.UserError, match="must be a program, or 3 or 4, but got /absent"):
        helm.find("ml", tmp_path, "/absent")


def test_what_the_steps_call_finds_their_helm(tmp_path: Path) -> None:
    environment = helm.find("ml", tmp_path, "3").environment()
    words = ["helm", "version", "--short"]
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("v3.")


def test_a_client_pod_has_no_label_of_a_release() -> None:
    image = {"name": "eagleray:1", "policy": "Never", "secrets": []}
    pod = clients.manifest("client", image, ["true"])
    assert list(pod["metadata"]["labels"]) == [clients.MARK]


class Collection:
    """A plugin of pytest that keeps the names of the tests that it has found."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tests = [item.name for item in session.items]


def test_the_tests_are_collected_in_the_order_of_the_story() -> None:
    found, folder = Collection(), Path(settings.__file__).parent
    assert pytest.main(["--collect-only", "-q", str(folder)], plugins=[found]) == 0
    assert found.tests[0].startswith("test_the_chart_installs")
    assert found.tests[-1] == "test_uninstalling_leaves_nothing_behind"
    assert len(found.tests) > 15


def test_a_log_that_cannot_be_read_says_so(server: Server) -> None:
    said = cluster.Cluster("ml").log("absent", "client", lines=5)
    assert said.startswith("(no log: ")
