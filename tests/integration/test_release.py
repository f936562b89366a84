"""A release of the chart in pods of this machine: Ray, storage, tokens, users, probes are real."""

import base64
import json
import secrets
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import yaml

from eagleray import spec, storage
from eagleray.client import package, runs
from eagleray.state.models import Registry
from k8s import rayjob
from tests import bundles, pods
from tests.chart import chart
from tests.e2e import release as steps

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
TOKEN = secrets.token_hex(16)
NAME = "mixed"
RAW = bundles.rows(20, seed=11)
BODY = msgspec.json.encode({"instances": bundles.instances(RAW)})
VALUES = {
    "model": {"name": NAME},
    "storage": {"uri": "s3://models/demo"},
    "objectStore": {"embedded": True},
    "serving": {
        "grpc": {"enabled": True},
        "pollSeconds": 0.2,
        "drainSeconds": 10,
        "workers": {"min": 2, "max": 2},
    }
    | {"replicas": {"min": 2, "max": 2}},
    "tuning": {"workers": [{"name": "cpu", "min": 1, "max": 1, "cpus": 2, "memory": "2Gi"}]},
}
FILE = """
name: wine
data: {source: "dataset:wine", target: target}
train: {lr: {loguniform: [1.0e-3, 1.0e-1]}, epochs: 3}
tune: {trials: 2, metric: log_loss}
storage: s3://models/demo
"""


@dataclass(frozen=True)
class Start:
    """How a release came up.

    Attributes:
        running: whether Serve said RUNNING when a worker's pod was first found ready.
        answers: of every worker, to a prediction, from its readiness to some time after RUNNING.
    """

    running: list[bool]
    answers: list[list[tuple[int, Any]]]


@dataclass(frozen=True)
class Release:
    """A release whose serving pods are up."""

    node: pods.Node
    rendered: list[chart.Document]
    store: pods.Pod
    head: pods.Pod
    workers: list[pods.Pod]
    models: Registry
    start: Start

    def url(self, worker: int, path: str = f"/v1/models/{NAME}:predict") -> str:
        return f"http://{self.workers[worker].address}:8000{path}"


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    rendered = chart.documents(VALUES, apis=(*chart.EVERYTHING, "ray.io/v1/RayCronJob"))
    with pods.Node() as node, pytest.MonkeyPatch.context() as patch:
        for secret in chart.of_kind(rendered, "Secret"):
            decoded = {key: base64.b64decode(one).decode() for key, one in secret["data"].items()}
            node.secrets[secret["metadata"]["name"]] = decoded
        store = _store(node, chart.one(rendered, "StatefulSet"))
        for name, value in _keys(node, store).items():
            patch.setenv(name, value)
        models = Registry(storage.open(VALUES["storage"]["uri"]))
        for seed in (1, 2):
            models.register(NAME, bundles.files(seed=seed), {})
        models.promote(NAME, 1)
        service = chart.one(rendered, "RayService")["spec"]
        head, workers = _cluster(node, service["rayClusterConfig"], "demo-head-svc")
        _apply(head, yaml.safe_load(service["serveConfigV2"]))
        yield Release(node, rendered, store, head, workers, models, _start(node, head, workers))


def _store(node: pods.Node, stateful: chart.Document) -> pods.Pod:
    spec_ = stateful["spec"]["template"]["spec"]
    container = spec_["containers"][0]
    pod = node.start(spec_, container["command"], service=f"{stateful['metadata']['name']}.ml.svc")
    pods.wait("the store is ready", pod.ready, node=node)
    return pod


def _keys(node: pods.Node, store: pods.Pod) -> dict[str, str]:
    (keys,) = node.secrets.values()
    return keys | {
        "AWS_ENDPOINT_URL_S3": f"http://{store.address}:8333",
        "AWS_REGION": "us-east-1",
    }


def _cluster(
    node: pods.Node, cluster: chart.Document, service: str
) -> tuple[pods.Pod, list[pods.Pod]]:
    """The head and the fewest workers of a RayCluster, as KubeRay starts them."""
    assert cluster["authOptions"]["mode"] == "token"
    group = cluster["headGroupSpec"]
    command, variables = pods.ray_start(group, token=TOKEN)
    head = node.start(group["template"]["spec"], command, service=service, extra=variables)
    pods.wait("the head is ready", head.ready, node=node)
    wanted = [one for one in cluster["workerGroupSpecs"] for _ in range(one["minReplicas"])]
    return head, [_worker(node, group, service) for group in wanted]


def _worker(node: pods.Node, group: chart.Document, service: str) -> pods.Pod:
    command, variables = pods.ray_start(group, head=service, token=TOKEN)
    return node.start(group["template"]["spec"], command, extra=variables)


def _apply(head: pods.Pod, config: Any) -> None:
    """What KubeRay does with `serveConfigV2`."""
    request = urllib.request.Request(
        f"http://{head.address}:8265/api/serve/applications/",
        json.dumps(config).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def _start(node: pods.Node, head: pods.Pod, workers: list[pods.Pod]) -> Start:
    """Probe workers as a kubelet does, and send them traffic from when they are ready."""
    running = []
    with ExitStack() as stack:
        answers = []
        for worker in workers:
            pods.wait(f"{worker.name} is ready", worker.ready, node=node)
            running.append(_is_running(head) is True)
            url = f"http://{worker.address}:8000/v1/models/{NAME}:predict"
            answers.append(stack.enter_context(pods.load(url, BODY, 1)))
        pods.wait("the application runs", lambda: _is_running(head), node=node)
        time.sleep(5)
    return Start(running, answers)


def _is_running(head: pods.Pod) -> object:
    """What KubeRay looks at before it leads traffic to a cluster."""
    request = urllib.request.Request(
        f"http://{head.address}:8265/api/serve/applications/",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        status = json.load(answer)["applications"][NAME]["status"]
    return status == "RUNNING" or status


def _replicas(pod: pods.Pod) -> int:
    return sum(one.startswith("ray::ServeReplica") for one in pod.processes())


def test_a_pod_is_ready_before_the_application_runs_and_answers_whoever_comes(
    release: Release,
) -> None:
    assert release.start.running == [False] * len(release.workers)
    for answers in release.start.answers:
        assert answers
        assert not [text for status, text in answers if status != 200]


def test_every_worker_answers_and_no_replica_is_on_the_head(release: Release) -> None:
    expected = bundles.make(seed=1).predict(RAW).outputs[:, 1]
    for worker in (0, 1):
        status, text = pods.predict(release.url(worker), BODY)
        assert status == 200, text + release.node.logs()
        answer = json.loads(text)
        found = [one["probabilities"]["yes"] for one in answer["predictions"]]
        assert found == pytest.approx(expected.tolist(), abs=1e-6)
    assert [_replicas(pod) for pod in (release.head, *release.workers)] == [0, 1, 1]


def test_every_worker_answers_grpc(release: Release) -> None:
    """Ray Serve takes `grpc_options` from the chart's configuration."""
    row = next(one for one in bundles.instances(RAW) if None not in one.values())
    for worker in release.workers:
        assert steps.infer(f"{worker.address}:9000", NAME, row) == (NAME, "1")


def test_each_worker_answers_scrapes_for_its_own_replica(release: Release) -> None:
    for worker in release.workers:
        with urllib.request.urlopen(f"http://{worker.address}:8001/metrics", timeout=10) as answer:
            said = answer.read().decode()
        assert f'eagleray_model_version{{model="{NAME}",version="1"}} 1.0' in said


def test_who_has_no_token_is_not_let_in(release: Release) -> None:
    status, text = pods.predict(f"http://{release.head.address}:8265/api/jobs/", b"{}")
    assert status == 401, text


def test_helm_test_makes_a_real_prediction(release: Release) -> None:
    pod = chart.one(release.rendered, "Pod")
    script = chart.one(release.rendered, "ConfigMap", "test")["data"]["prediction.py"]
    assert pod["spec"]["containers"][0]["command"][:2] == ["python", "/test/prediction.py"]
    done = release.workers[0].run("python", "-c", script, release.url(1, ""), NAME, "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{NAME} version 1 predicts" in done.stdout


def test_a_promoted_version_answers_within_seconds_and_no_request_is_dropped(
    release: Release,
) -> None:
    def answering() -> object:
        versions = [
            json.loads(pods.predict(release.url(one), BODY)[1])["version"] for one in (0, 1)
        ]
        return versions == [2, 2] or versions

    with pods.load(release.url(0), BODY) as answers:
        release.models.promote(NAME, 2)
        pods.wait("version 2 answers", answering, node=release.node, limit_s=30)
    failed = [text for status, text in answers if status != 200]
    assert not failed
    assert {json.loads(text)["version"] for _, text in answers} == {1, 2}


def test_a_run_goes_to_a_cluster_of_its_own_and_registers_its_winner(
    release: Release, tmp_path: Any
) -> None:
    file = tmp_path / "wine.yaml"
    file.write_text(FILE)
    packed = package.pack(spec.load(file))
    package.put(packed)
    skeleton = chart.one(release.rendered, "ConfigMap", "runs")["data"]["rayjob.yaml"]
    job = rayjob.render(packed.run, 1, yaml.safe_load(skeleton), rayjob.Options())["spec"]
    head, workers = _cluster(release.node, job["rayClusterSpec"], "run-head-svc")
    template = job["submitterPodTemplate"]["spec"]
    address = ["--address", "http://run-head-svc:8265"]
    name = runs.attempt_id(packed.run, 1)
    submit = ["ray", "job", "submit", *address, "--no-wait", "--submission-id", name, "--"]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    submitter = release.node.start(template, ["sleep", "600"], extra=token)
    sent = submitter.run(*submit, *job["entrypoint"].split())
    assert sent.returncode == 0, sent.stdout + sent.stderr + release.node.logs()
    followed = submitter.run("ray", "job", "logs", *address, "--follow", name, timeout_s=400)
    assert "registered wine version 1" in followed.stdout, followed.stdout + followed.stderr
    assert release.models.resolve("wine", "champion").number == 1
    for pod in (submitter, *workers, head):
        pod.kill()


def test_the_loss_of_a_worker_costs_what_it_was_answering_and_the_next_one_takes_its_place(
    release: Release,
) -> None:
    lost, connections = release.workers.pop(), 4
    with pods.load(release.url(0), BODY, connections) as answers:
        lost.kill()
        time.sleep(5)
    assert sum(status != 200 for status, _ in answers) <= connections
    service = chart.one(release.rendered, "RayService")["spec"]
    (group,) = service["rayClusterConfig"]["workerGroupSpecs"]
    new = _worker(release.node, group, "demo-head-svc")
    release.workers.append(new)
    pods.wait("the next worker is ready", new.ready, node=release.node)
    pods.wait("it holds a replica", lambda: _replicas(new) == 1, node=release.node)


def test_a_worker_that_ends_in_order_drops_no_request(release: Release) -> None:
    leaving = release.workers[0]
    with pods.load(release.url(1), BODY) as answers:
        seconds = leaving.end()
    failed = [text for status, text in answers if status != 200]
    assert answers
    assert not failed, failed[:3]
    assert seconds < leaving.spec["terminationGracePeriodSeconds"]


def test_answers_go_on_without_the_head(release: Release) -> None:
    release.head.kill()
    with pods.load(release.url(1), BODY) as answers:
        time.sleep(10)
    assert answers
    assert all(status == 200 for status, _ in answers)
    assert release.workers[1].ready()
