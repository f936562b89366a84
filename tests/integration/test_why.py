"""`eagleray why` against an emulation of the Kubernetes API behind real HTTP."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kmock
import pytest
import yaml

from eagleray import cli, storage
from eagleray.state import runs, searches
from eagleray.state.models import Registry
from k8s import api
from k8s.diagnose import ray, snapshot
from tests.kube_api import Server

SITUATIONS = Path(__file__).parents[1] / "unit" / "situations"
CLUSTERS = Path(__file__).parents[2] / "docs" / "clusters.md"
KINDS = {
    "RayJob": "ray.io/v1/rayjobs",
    "RayService": "ray.io/v1/rayservices",
    "rayclusters": "ray.io/v1/rayclusters",
    "workloads": "kueue.x-k8s.io/v1beta1/workloads",
    "pods": "v1/pods",
    "events": "v1/events",
    "nodes": "v1/nodes",
}
LOG = "/api/v1/namespaces/ml/pods/{}/log"
METRICS = "/api/v1/namespaces/ml/pods/{}:8001/proxy/metrics"
WORKER = "demo-9c4dk-workers-worker-5ksjr"


def declare(server: Server, *without: str) -> None:
    """Let the API know all kinds but these."""
    for kind in KINDS.values():
        if kind not in without:
            server.mock.resources[kind] = {"namespaced": kind != KINDS["nodes"]}


def fill(server: Server, file: str) -> dict[str, Any]:
    """Put the objects of a situation of the unit tests into the API."""
    declare(server)
    known: dict[str, Any] = yaml.safe_load((SITUATIONS / f"{file}.yaml").read_text())["situation"]
    groups = {key: known.get("objects", {}).get(key, []) for key in KINDS}
    groups[known["subject"]["kind"]] = [known["subject"]]
    for group, things in groups.items():
        for number, thing in enumerate(things):
            space = None if group == "nodes" else "ml"
            thing.setdefault("metadata", {"name": f"event-{number}"})["namespace"] = space
            server.mock.objects[KINDS[group], space, thing["metadata"]["name"]] = thing
    return known


def forbid(server: Server, verb: str, kind: str) -> None:
    server.mock[verb, kmock.resource(kind)] << kmock.KubernetesError(
        status=403, reason="Forbidden", message=f'{kind} is forbidden: User "ana" cannot {verb}'
    )


def serve(server: Server, known: dict[str, Any], models: Path) -> Registry:
    """Let the service of a situation have its registry in a folder that we reach."""
    models.mkdir(exist_ok=True)
    service = known["subject"]
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    config["applications"][0]["args"]["storage"] = models.as_uri()
    service["spec"]["serveConfigV2"] = yaml.safe_dump(config)
    server.mock.objects[KINDS["RayService"], "ml", "demo"] = service
    return Registry(storage.open(models.as_uri()))


@pytest.mark.parametrize("name", ["churn", "0123456789ab", "churn-0123456789ab-1"])
def test_a_run_is_found_as_eagleray_runs_finds_it(server: Server, name: str) -> None:
    fill(server, "no-gpu")
    [found] = snapshot.read(api.Api(), name)
    assert found.subject["metadata"]["name"] == "churn-0123456789ab-1"
    assert len(found.get("pods")) == 2


def test_the_latest_attempt_is_the_one_that_is_explained(server: Server) -> None:
    known = fill(server, "no-gpu")["subject"]
    labels = {**known["metadata"]["labels"], "eagleray/attempt": "2"}
    later = {**known["metadata"], "name": "churn-0123456789ab-2", "labels": labels}
    later["creationTimestamp"] = "2026-11-22T11:00:00Z"
    server.mock.objects[KINDS["RayJob"], "ml", later["name"]] = {**known, "metadata": later}
    [found] = snapshot.read(api.Api(), "churn")
    assert found.subject["metadata"]["name"] == "churn-0123456789ab-2"


@pytest.mark.parametrize("name", ["demo", "churn"])
def test_a_service_is_found_by_its_release_and_by_its_model(
    server: Server, tmp_path: Path, name: str
) -> None:
    serve(server, fill(server, "service-unscheduled"), tmp_path)
    [found] = snapshot.read(api.Api(), name)
    assert found.subject["kind"] == "RayService"
    assert found.alias == snapshot.Alias("churn", "champion", tmp_path.as_uri())


def test_a_refusal_in_the_log_says_why_and_is_no_move(server: Server, tmp_path: Path) -> None:
    registry = serve(server, fill(server, "service-unscheduled"), tmp_path)
    registry.register("churn", {}, {})
    seen = registry.promote("churn", 1, why="better")
    registry.refuse("churn", seen, "champion", by="replica on n1", why="golden rows differ")
    [found] = snapshot.read(api.Api(), "demo")
    moved = registry.events("churn")[1]
    assert found.alias is not None
    assert (found.alias.moved, found.alias.by) == (moved.at, moved.by)
    assert found.alias.refused == "replica on n1: golden rows differ"


def test_a_store_without_its_class_is_the_cause_not_the_workers_probe(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(server, fill(server, "store-unbound"), tmp_path)
    assert cli.main(["why", "demo"]) == 0
    said = capsys.readouterr().out
    assert 'data-demo-store-0 is not bound: storageclass.storage.k8s.io "fast" not found' in said
    assert "probe" not in said


def test_without_the_right_to_read_secrets_upgrades_are_not_looked_at(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(server, fill(server, "service-well"), tmp_path)
    forbid(server, "list", "v1/secrets")
    assert cli.main(["why", "demo"]) == 0
    told = "not checked: upgrades: the right to list secrets is missing\n"
    assert told in capsys.readouterr().out


def view(*waiting: searches.Waiting) -> searches.View:
    at = datetime.now(UTC).timestamp()
    counts = {"epochs": 9, "total": 9, "started": 1, "ended": 0}
    return searches.View(at=at, gone=9, metric="x", best=None, rows=[], waiting=waiting, **counts)


def test_trials_that_wait_are_read_from_the_storage_of_their_run(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, uri = fill(server, "trials-wait")["subject"], tmp_path.as_uri()
    runs.put(runs.Run("churn", "0123456789ab", uri), runs.Begun(search="ab0123456789"))
    since = datetime.now(UTC).timestamp() - 300
    told = view(searches.Waiting(numbers=[7], since=since, why="1 GPU; none free now"))
    searches.Records(storage.open(uri), "churn", "ab0123456789").save(told)
    assert cli.main(["why", "churn", "--storage", uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"RayJob {job['metadata']['name']}: running"
    assert "worker group gpu: 2 of at most 2 replicas" in lines[1]
    assert re.match(r"cause: trial 7 waits since .* UTC \(5 min\): 1 GPU; none free now", lines[-2])


def test_a_storage_that_is_not_reached_is_named_and_the_rest_goes_on(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(server, "trials-wait")
    assert cli.main(["why", "churn", "--storage", f"{tmp_path.as_uri()}/none"]) == 0
    assert "not checked: trials that wait: " in capsys.readouterr().out


def test_a_storage_that_is_not_reached_costs_the_cluster_nothing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(server, "trials-wait")
    fill(server, "service-well")
    assert cli.main(["why", "churn", "--storage", f"{tmp_path.as_uri()}/none"]) == 0
    unseen = [one for one in capsys.readouterr().out.splitlines() if "not checked" in one]
    assert {one.split(": ")[1] for one in unseen} == {"trials that wait", "registry"}


def test_a_search_that_only_storage_knows_is_explained_from_there(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(server, "no-gpu")
    uri = tmp_path.as_uri()
    searches.Records(storage.open(uri), "wine", "ab0123456789").save(view())
    assert cli.main(["why", "wine", "--storage", uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Run ab0123456789: unfinished: last seen ")
    assert lines[-2] == "cause: no driver process"
    assert cli.main(["why", "none", "--storage", uri]) == 2


def test_an_unknown_name_is_told_with_the_nearest(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(server, "no-gpu")
    assert cli.main(["why", "chrun"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("namespace ml: no run, release or model is called 'chrun'; did you mean")


def test_the_command_line_prints_what_the_docs_show(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(server, "no-gpu")
    assert cli.main(["why", "churn", "--namespace", "ml"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 5
    assert f"$ eagleray why churn --namespace ml\n{said}```" in CLUSTERS.read_text()


def test_events_that_are_not_for_us_are_named_and_the_rest_goes_on(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(server, "no-gpu")
    forbid(server, "list", "v1/events")
    assert cli.main(["why", "churn", "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert told["finding"]["message"] == "no node has 1 nvidia.com/gpu free"
    assert told["unseen"] == [
        "events: the right to list events is missing; an administrator grants it by the chart's "
        "value rbac.submitters"
    ]


def test_without_the_right_to_see_runs_and_services_nothing_is_said_to_be_absent(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(server)
    forbid(server, "list", "ray.io/v1/rayjobs")
    forbid(server, "list", "ray.io/v1/rayservices")
    assert cli.main(["why", "churn"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("namespace ml: rayjobs: the right to list rayjobs is missing; an admin")


def test_a_cluster_without_kuberay_is_told_how_to_get_it(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(server, "ray.io/v1/rayjobs", "ray.io/v1/rayservices")
    assert cli.main(["why", "churn"]) == 1
    said = capsys.readouterr().out
    assert "cause: KubeRay is not installed" in said
    assert "fix:   helm install kuberay-operator" in said


def test_an_api_server_that_is_gone_is_a_cause_like_others(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.stop()
    assert cli.main(["why", "churn"]) == 1
    assert "cause: the API server cannot be reached" in capsys.readouterr().out


def test_the_last_lines_of_what_crashed_are_read_from_its_previous_life(server: Server) -> None:
    known = fill(server, "crash-loop")
    pod = known["objects"]["pods"][0]["metadata"]["name"]
    server.mock["get", LOG.format(pod)] << b"one\nRuntimeError: no token\n"
    [found] = snapshot.read(api.Api(), "churn")
    asked = next(one for one in server.mock["get"] if one.url.path.endswith("/log"))
    assert found.logs == {pod: "one\nRuntimeError: no token\n"}
    assert asked.params == {"container": "ray-head", "tailLines": "20", "previous": "true"}


def test_a_log_that_is_gone_leaves_the_exit_code(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    known = fill(server, "crash-loop")
    pod = known["objects"]["pods"][0]["metadata"]["name"]
    server.mock["get", LOG.format(pod)] << kmock.KubernetesError(
        status=400, reason="BadRequest", message="previous terminated container not found"
    )
    assert cli.main(["why", "churn"]) == 0
    said = capsys.readouterr().out
    assert "cause: ray-head ended with exit code 1: Error" in said
    assert f"not checked: log of {pod}: " in said


def test_nodes_are_asked_where_the_scheduler_names_no_taint(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(server, "gpu-taint-of-nodes")
    assert cli.main(["why", "churn"]) == 0
    assert "have the taint team/gpu=research" in capsys.readouterr().out
    forbid(server, "list", "v1/nodes")
    assert cli.main(["why", "churn"]) == 0
    said = capsys.readouterr().out
    assert "cause: no node without a taint has 1 nvidia.com/gpu free" in said
    assert "not checked: nodes: the right to list nodes is missing\n" in said


def test_a_queue_without_kueue_is_told(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    fill(server, "no-kueue")
    assert cli.main(["why", "churn"]) == 0
    assert "cause: Kueue has not noticed it" in capsys.readouterr().out


def test_kueues_own_words_are_read_where_we_may(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = fill(server, "queue-full")["objects"]["workloads"][0]
    workload["metadata"]["ownerReferences"] = [{"kind": "RayJob", "name": "churn-0123456789ab-1"}]
    server.mock.objects[KINDS["workloads"], "ml", workload["metadata"]["name"]] = workload
    assert cli.main(["why", "churn"]) == 0
    assert "insufficient unused quota for nvidia.com/gpu" in capsys.readouterr().out


def test_a_version_that_replicas_refuse_is_told_by_what_they_expose(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = serve(server, fill(server, "version-refused"), tmp_path / "models")
    for _ in range(4):
        models.register("churn", {}, {})
    models.promote("churn", 4, by="ana")
    server.mock["get", METRICS.format(WORKER)] << exposition(tmp_path / "metrics").encode()
    assert cli.main(["why", "demo", "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)
    assert told["state"] == "ready"
    assert told["finding"]["message"].startswith("replicas refuse version 4: ")
    assert (
        f"points to version 4, moved at {models.events('churn')[-1].at}"
        in told["finding"]["evidence"][1]
    )


def test_replicas_that_cannot_be_asked_are_named_and_only_one_is_tried(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = fill(server, "service-well")
    worker = known["objects"]["pods"][1]
    other = {**worker, "metadata": {**worker["metadata"], "name": "another"}}
    server.mock.objects[KINDS["pods"], "ml", "another"] = other
    models = serve(server, known, tmp_path)
    models.register("churn", {}, {})
    models.promote("churn", 1)
    for pod in (WORKER, "another"):
        server.mock["get", METRICS.format(pod)] << kmock.KubernetesError(
            status=403, reason="Forbidden", message="cannot get pods/proxy"
        )
    assert cli.main(["why", "demo"]) == 0
    said = capsys.readouterr().out
    assert said.count("not checked: versions of replicas") == 1
    assert "curl 127.0.0.1:8000/readyz" in said


def test_a_registry_out_of_reach_is_named_and_another_may_be_given(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    serve(server, fill(server, "alias-nowhere"), tmp_path / "there")
    (tmp_path / "there").rmdir()
    assert cli.main(["why", "demo"]) == 0
    assert "not checked: registry: " in capsys.readouterr().out
    assert cli.main(["why", "demo", "--storage", (tmp_path / "here").as_uri()]) == 0
    assert "cause: model churn has no version in file://" in capsys.readouterr().out


def test_the_metrics_are_called_as_serving_calls_them(tmp_path: Path) -> None:
    text = exposition(tmp_path)
    for name in (ray.VERSION, ray.REFUSED, ray.ERRORS):
        assert f'\n{name}{{model="churn"' in text


def test_a_server_that_fails_in_the_middle_is_named_and_the_rest_goes_on(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(server, "no-gpu")
    server.mock["get", kmock.resource("v1/events")] << kmock.KubernetesError(
        status=500, reason="InternalError", message="etcd is gone"
    )
    assert cli.main(["why", "churn"]) == 0
    said = capsys.readouterr().out
    assert "cause: no node has 1 nvidia.com/gpu free" in said
    assert "500 etcd is gone" in said


def exposition(folder: Path) -> str:
    """What a replica exposes that serves version 3 and has refused version 4.

    In a process of its own: prometheus_client takes its folder once for all.
    """
    said = (
        "import sys, pathlib\n"
        "from serving.metrics import Metrics\n"
        "replica = Metrics(pathlib.Path(sys.argv[1]), 'churn')\n"
        "replica.serving(3, instead_of=None)\n"
        "replica.refused(4)\n"
        "replica.storage_error()\n"
        "print(replica.exposition().decode())\n"
    )
    ran = [sys.executable, "-c", said, str(folder)]
    return subprocess.run(ran, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def server(kube: Server) -> Server:
    """An empty cluster, whose kinds each test declares."""
    return kube
