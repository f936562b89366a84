"""`eagleray deploy`: the real `helm`, 3 and 4, against an emulation of the API behind real HTTP."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from eagleray import cli, errors, storage
from eagleray.state.models import Registry
from k8s import api, deploy, status
from k8s.deploy import Wanted
from tests import helm_cluster, helm_programs, kube_api
from tests.helm_cluster import Refusal, Server

SERVICES = "ray.io/v1/rayservices"
GIVEN = Wanted(named={"model.name": "churn", "storage.uri": "s3://models"})
READY = {"conditions": [{"type": "Ready", "status": "True", "reason": "ServeReady"}]}
WAITING = {"conditions": [{"type": "Ready", "status": "False", "reason": "Initializing"}]}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An empty cluster with KubeRay's kinds; kubectl's settings lead to its namespace `ml`."""
    yield from connected(Server(), tmp_path, monkeypatch)


def connected(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(server, folder)))
    monkeypatch.setenv("PATH", f"{helm_programs.program(4).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(api, "PAUSE_S", 0.01)
    monkeypatch.setattr(deploy, "PAUSE_S", 0.05)
    yield server
    server.stop()


def serve_arguments(server: Server, release: str) -> dict[str, Any]:
    config = server.mock.objects[SERVICES, "ml", release].raw["spec"]["serveConfigV2"]
    return dict(yaml.safe_load(config)["applications"][0]["args"])


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["deploy", *arguments, "--kubernetes"])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_release_is_installed_and_then_updated(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = say(capsys, "churn", "--model", "churn", "--storage", "s3://models")
    assert (code, out.partition(",")[0]) == (0, "churn: installed")
    assert "is on its way" in out
    code, out, _ = say(capsys, "churn", "--set", "serving.replicas.max=3", "--json")
    done = json.loads(out)
    assert (code, done["action"], done["revision"]) == (0, "updated", 2)
    changed = [one["kind"] for one in done["changes"] if one["action"] != "kept"]
    assert changed == ["RayService"]
    served = serve_arguments(cluster, "churn")
    assert (served["max_replicas"], served["storage"]) == (3, "s3://models")


def test_values_given_before_are_forgotten_on_demand(cluster: Server) -> None:
    here = api.Api()
    deploy.deploy(here, "churn", replace(GIVEN, pairs=["serving.replicas.max=3"]))
    deploy.deploy(here, "churn", replace(GIVEN, reset=True))
    assert serve_arguments(cluster, "churn")["max_replicas"] == 4


def test_two_releases_stand_beside_each_other(cluster: Server) -> None:
    here = api.Api()
    deploy.deploy(here, "first", GIVEN)
    deploy.deploy(here, "second", replace(GIVEN, named={**GIVEN.named, "model.name": "spam"}))
    assert serve_arguments(cluster, "first")["name"] == "churn"
    assert serve_arguments(cluster, "second")["name"] == "spam"
    assert cluster.names(SERVICES) == {"first", "second"}


def test_a_dry_run_prints_yaml_and_touches_nothing(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = say(
        capsys, "--model", "churn", "--storage", "s3://models", "--dry-run",
        "--set", "objectStore.embedded=true",
    )  # fmt: skip
    found = list(yaml.safe_load_all(out))
    secret = next(one for one in found if one["kind"] == "Secret")
    assert (code, len(cluster.mock.objects)) == (0, 0)
    assert "# created RayService eagleray" in out
    assert set({**secret.get("data", {}), **secret.get("stringData", {})}.values()) == {deploy.MASK}


def test_a_dry_run_of_an_update_tells_what_would_change(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy.deploy(api.Api(), "churn", GIVEN)
    _, out, _ = say(capsys, "churn", "--set", "tuning.enabled=true", "--dry-run")
    told = [line for line in out.splitlines() if line.startswith("# ") and "kept" not in line]
    assert told == ["# created RayCluster churn-tuning"]
    assert "ray.io/v1/rayclusters" not in {str(key[0]) for key in cluster.mock.objects}
    assert serve_arguments(cluster, "churn")["max_replicas"] == 4


def test_waiting_ends_when_the_endpoint_is_ready(cluster: Server) -> None:
    cluster.mock.operator.statuses["RayService"] = READY
    assert deploy.deploy(api.Api(), "churn", replace(GIVEN, wait_s=30)).revision == 1


def test_an_installation_that_does_not_become_ready_leaves_nothing(cluster: Server) -> None:
    cluster.mock.operator.statuses["RayService"] = WAITING
    with pytest.raises(errors.ClusterError, match="must become ready within 2 s, but is not"):
        deploy.deploy(api.Api(), "churn", replace(GIVEN, wait_s=2))
    assert not any(not one.deleted for one in cluster.mock.objects.values())


def test_without_waiting_an_endpoint_that_is_not_ready_yet_is_no_failure(cluster: Server) -> None:
    cluster.mock.operator.statuses["RayService"] = WAITING
    assert deploy.deploy(api.Api(), "churn", GIVEN).action == "installed"


def test_an_update_that_is_refused_is_rolled_back(cluster: Server) -> None:
    here = api.Api()
    deploy.deploy(here, "churn", GIVEN)
    quota = "rayclusters.ray.io is forbidden: exceeded quota: gpus"
    cluster.mock.operator.refusals.append(Refusal("PATCH", "rayclusters", 403, quota))
    wanted = Wanted(pairs=["tuning.enabled=true", "serving.replicas.max=3"])
    with pytest.raises(errors.UserError, match="exceeded quota: gpus"):
        deploy.deploy(here, "churn", wanted)
    assert serve_arguments(cluster, "churn")["max_replicas"] == 4
    assert cluster.names("ray.io/v1/rayclusters") == set()


def test_missing_rights_are_named_and_nothing_is_left(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    said = 'rayservices.ray.io "churn" is forbidden: User "u" cannot patch resource "rayservices"'
    cluster.mock.operator.refusals.append(Refusal("PATCH", "rayservices", 403, said))
    code, _, err = say(capsys, "churn", "--model", "churn", "--storage", "s3://models")
    assert code == 2
    assert "namespace ml: the right to patch rayservices is missing" in err
    assert not any(not one.deleted for one in cluster.mock.objects.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "churn"], "values: storage.uri must say where models are, but is empty"),
        (["--set", "modell.name=x"], "at '': additional properties 'modell' not allowed; see"),
        (["--set", "serving.replicas.max"], '--set: must be key=value, but key "max" has no value'),
        (["--values", "absent.yaml"], "--values absent.yaml: must be a file of YAML, but"),
        (["--status", "--model", "churn"], "--model: cannot stand beside --status"),
        (
            ["De_mo", "--model", "m", "--storage", "s3://models"],
            "RELEASE: must be at most 53 of a-z",
        ),
        (["--status"], "release eagleray: must be in namespace ml, but there is none"),
    ],
)
def test_mistakes_are_one_line(
    cluster: Server, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    cluster.mock.know(helm_cluster.CORE)
    code, _, err = say(capsys, *arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert message in err


def test_a_release_of_another_chart_is_left_alone(cluster: Server, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: redis\nversion: 1.0.0\n")
    subprocess.run(["helm", "install", "cache", tmp_path], check=True, capture_output=True)
    with pytest.raises(errors.UserError, match=r"must be of chart eagleray, but .* it is of redis"):
        deploy.deploy(api.Api(), "cache", GIVEN)


def test_an_object_that_belongs_to_somebody_else_is_left_alone(cluster: Server) -> None:
    theirs = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "churn"}}
    cluster.mock.objects["v1/serviceaccounts", "ml", "churn"] = theirs
    with pytest.raises(errors.UserError, match=r'ServiceAccount "churn" in namespace "ml" exists'):
        deploy.deploy(api.Api(), "churn", GIVEN)
    assert cluster.mock.objects["v1/serviceaccounts", "ml", "churn"].raw == theirs


def test_a_cluster_without_the_operator_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in connected(Server({}), tmp_path, monkeypatch):
        with pytest.raises(errors.UserError, match="install it: helm install kuberay-operator"):
            deploy.deploy(api.Api(), "churn", GIVEN)


def test_an_api_server_that_is_away_is_one_line(cluster: Server) -> None:
    cluster.stop()
    with pytest.raises(errors.ClusterError, match="does not answer"):
        deploy.deploy(api.Api(), "churn", GIVEN)


def worker(number: int, ready: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/instance": "churn", "app.kubernetes.io/component": "serving"}
    return {
        "metadata": {
            "name": f"churn-worker-{number}",
            "labels": {**labels, "eagleray/role": "worker"},
        },
        "spec": {"nodeName": f"node-{number}"},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def test_status_shows_replicas_nodes_versions_and_endpoints(
    cluster: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    active = {"rayClusterStatus": {"desiredWorkerReplicas": 2}}
    cluster.mock.operator.statuses["RayService"] = {**READY, "activeServiceStatus": active}
    store = f"file://{tmp_path}/store"
    (tmp_path / "store").mkdir()
    known = Registry(storage.open(store))
    known.register("churn", {}, {})
    known.promote("churn", 1, "champion")
    host = {"ingress.enabled": "true", "ingress.host": "churn.example.com"}
    peers = "networkPolicy.gateway[0].namespaceSelector.matchLabels.name=ingress"
    sets = [f"--set={key}={value}" for key, value in host.items()]
    say(capsys, "churn", "--model", "churn", "--storage", "s3://models", *sets, f"--set={peers}")
    for number, ready in enumerate(("True", "False"), start=1):
        pod = worker(number, ready)
        cluster.mock.objects["v1/pods", "ml", pod["metadata"]["name"]] = pod
    page = "get /api/v1/namespaces/ml/services/churn-serve-svc:8000/proxy/"
    cluster.mock[page] << {"model": "churn", "version": 1}

    code, out, _ = say(capsys, "churn", "--status", "--json", "--storage", store)
    told = json.loads(out)
    assert (code, told["state"], told["wanted"], told["ready"]) == (0, "ready", 2, 1)
    assert (told["aliases"], told["answering"], told["revision"]) == ({"champion": 1}, 1, 1)
    assert told["endpoints"] == [
        "http://churn-serve-svc.ml.svc:8000",
        "http://churn.example.com",
    ]
    _, out, _ = say(capsys, "churn", "--status", "--storage", store)
    assert "workers    1 ready of 2" in out
    assert "churn-worker-2  serving worker  no     node-2" in out


def test_status_needs_no_right_to_read_secrets_or_to_ask_the_endpoint(cluster: Server) -> None:
    here = api.Api()
    deploy.deploy(here, "churn", GIVEN)
    forbidden = "secrets is forbidden"
    cluster.mock.operator.refusals.append(Refusal("GET", "secrets", 403, forbidden))
    found = status.summarize("churn", status.read(here, "churn"))
    assert (found.revision, found.answering, found.aliases) == (None, None, None)
    assert (found.model, found.chart) == ("churn", "eagleray-0.1.0")
