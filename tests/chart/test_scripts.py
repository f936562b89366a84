"""The scripts that the chart ships, run against what they will meet."""

import contextlib
import http.server
import json
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from eagleray import errors, storage
from eagleray.storage import server
from serving import batching, metrics, predictor, web
from tests import bundles, kube_api
from tests.chart import chart

FILES = chart.FOLDER / "files"
SERVICES, CLUSTERS = "ray.io/v1/rayservices", "ray.io/v1/rayclusters"
REDIS = {"ray": {"faultTolerance": {"redisAddress": "redis.data:6379"}}}
KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "something-secret"}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """The real application with a real model, at a URL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(metrics.FOLDER, "")
        gauges = metrics.Metrics(tmp_path_factory.mktemp("metrics"), "left")
        application = web.Application("left", gauges)
        loaded = bundles.make()
        loaded.name, loaded.number = "left", 3
        loaded.golden = bundles.golden(loaded)
        with ThreadPoolExecutor(1) as thread:
            made = predictor.Predictor(loaded, batching.Limits(), thread, gauges)
            application.predictor = made
            with socket.create_server(("127.0.0.1", 0)) as listening:
                server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
                running = threading.Thread(target=server.run, args=([listening],))
                running.start()
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
                server.should_exit = True
                running.join()


def predict(*arguments):
    command = [sys.executable, FILES / "prediction.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_test_of_a_release_makes_one_real_prediction(endpoint):
    ended = predict(endpoint, "left", "20")
    assert ended.stdout.startswith("left version 3 predicts {")
    assert ended.returncode == 0


def test_the_test_of_a_release_fails_when_another_model_answers(endpoint):
    ended = predict(endpoint, "right", "0")
    assert ended.returncode == 1
    assert "no version of right is loaded yet" in ended.stderr


def test_the_test_of_a_release_fails_when_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = predict(f"http://127.0.0.1:{port}", "left", "0")
    assert ended.returncode == 1
    assert "must predict within 0 s" in ended.stderr


def test_the_curl_of_the_notes_is_answered(endpoint):
    said = chart.notes(chart.merged(chart.MINIMAL, {"model": {"name": "left"}}))
    (line,) = [line.strip() for line in said.splitlines() if line.strip().startswith("curl ")]
    command = line.replace("http://127.0.0.1:8000", endpoint).replace("python3", sys.executable)
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30)
    assert json.loads(ended.stdout)["version"] == 3


class Api(http.server.BaseHTTPRequestHandler):
    """As much of an API server as creates an object, refuses a second one, and keeps rights."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = (self.path, body["metadata"]["name"])
        denied = self.headers["authorization"] != "Bearer secret-token"
        code = 403 if denied else 409 if key in self.server.objects else 201
        if code == 201:
            self.server.objects[key] = body
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b"rayjobs.ray.io is forbidden" if denied else b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def api():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        server.objects = {}
        running = threading.Thread(target=server.serve_forever)
        running.start()
        yield server
        server.shutdown()
        running.join()


@pytest.fixture
def submit(api, tmp_path, monkeypatch):
    """Run submit.py as the pod of a schedule does; gives the function, for a token."""
    values = chart.values_of("everything")
    data = chart.one(chart.documents(values), "ConfigMap", "-schedules")["data"]
    (tmp_path / "nightly.json").write_text(data["nightly.json"])
    (tmp_path / "namespace").write_text("ml")
    monkeypatch.setenv("NAME", "demo-nightly-29000000")
    monkeypatch.setenv("KUBERNETES_API", f"http://127.0.0.1:{api.server_port}")
    (tmp_path / "submit.py").write_text(data["submit.py"])
    main = runpy.run_path(str(tmp_path / "submit.py"))["main"]

    def run(token):
        (tmp_path / "token").write_text(token)
        main(str(tmp_path / "nightly.json"), tmp_path)

    return run


def test_a_schedule_creates_its_run_once_however_often_its_pod_is_tried(api, submit, capsys):
    submit("secret-token")
    submit("secret-token")
    ((path, name),) = api.objects
    assert path == "/apis/ray.io/v1/namespaces/ml/rayjobs"
    assert name == "demo-nightly-29000000"
    assert "exists already" in capsys.readouterr().out


def test_a_schedule_without_rights_says_so(api, submit):
    with pytest.raises(SystemExit, match=r"must be created, but got 403: rayjobs.* is forbidden"):
        submit("another-token")
    assert api.objects == {}


@pytest.fixture
def ending(tmp_path, monkeypatch):
    """A cluster with a RayService of two Ray clusters, and one of another service."""
    server = kube_api.Server()
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(server, tmp_path)))
    server.mock.objects[SERVICES, "ml", "demo"] = {"metadata": {"name": "demo"}}
    for name, owner in (("demo-a", "demo"), ("demo-b", "demo"), ("other-a", "other")):
        owners = [{"kind": "RayService", "name": owner}]
        metadata = {"name": name, "ownerReferences": owners}
        server.mock.objects[CLUSTERS, "ml", name] = {"metadata": metadata}
    yield server
    server.stop()


def uninstall(patience_s):
    """Run the script of the hook, as its pod does; gives the process."""
    values = chart.merged(chart.MINIMAL, REDIS)
    (container,) = chart.one(chart.documents(values), "Job")["spec"]["template"]["spec"][
        "containers"
    ]
    (_, option, script, service) = container["command"]
    hurried = script.replace("PATIENCE_S = 270", f"PATIENCE_S = {patience_s}")
    command = [sys.executable, option, hurried.replace("PAUSE_S = 2", "PAUSE_S = 0.1"), service]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_uninstall_deletes_the_service_first_and_waits_for_its_clusters(ending):
    with uninstall(60) as running:
        while ending.names(SERVICES):
            assert running.poll() is None
            time.sleep(0.05)
        for name in ("demo-a", "demo-b"):
            assert running.poll() is None
            del ending.mock.objects[CLUSTERS, "ml", name]
        said, failed = running.communicate(timeout=60)
    assert (running.returncode, failed) == (0, "")
    assert said == "RayService demo and its clusters are gone\n"
    assert ending.names(CLUSTERS) == {"other-a"}


def test_an_uninstall_whose_clusters_stay_says_so_and_how_to_go_on(ending):
    with uninstall(0) as running:
        _, failed = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "RayCluster demo-a, demo-b: must end within 0 s" in failed
    assert "helm uninstall --no-hooks" in failed


def test_an_uninstall_that_is_tried_again_finds_the_service_gone(ending):
    for name in ("demo-a", "demo-b"):
        del ending.mock.objects[CLUSTERS, "ml", name]
    del ending.mock.objects[SERVICES, "ml", "demo"]
    with uninstall(0) as running:
        said, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "gone already" in said


@contextlib.contextmanager
def store(folder):
    """The embedded store with the program and flags of its pod, at other ports; gives its S3."""
    values = chart.merged(chart.MINIMAL, {"objectStore": {"embedded": True}})
    pod = chart.one(chart.documents(values), "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = server._free_ports(folder)
    flags = [
        flag.replace("/data", str(folder)).replace("0.0.0.0", "127.0.0.1")
        for flag in container["command"][1:]
        if ".port=" not in flag
    ] + [f"-{service}.port={port}" for service, port in ports.items()]
    probe = container["readinessProbe"]["httpGet"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [server.program(), *flags], stderr=log, stdout=log, env={"HOME": str(folder)} | KEYS
        ) as weed,
    ):
        try:
            until(
                lambda: urllib.request.urlopen(f"http://127.0.0.1:{ports['filer']}{probe['path']}")
            )
            yield f"http://127.0.0.1:{ports['s3']}"
        finally:
            weed.kill()


def until(succeeds):
    """Try again until nothing fails, for half a minute."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return succeeds()
        except (OSError, errors.EagleRayError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_the_embedded_store_takes_keys_from_the_environment_and_keeps_its_bucket(
    tmp_path, monkeypatch
):
    for name, value in (KEYS | {"AWS_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    for content in (b"1", b"2"):  # a pod that starts again finds the bucket there
        with store(tmp_path) as where:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", where)
            opened = storage.open("s3://models")
            until(lambda opened=opened, content=content: opened.put("a", content))
            assert opened.get("a") == content
