"""`eagleray deploy`: the real `helm`, 3 and 4, against an emulation of the API behind real HTTP."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import kmock
import pytest
import yaml

from eagleray import cli, errors, storage
from eagleray.state.models import Registry
from k8s import api, deploy, status
from k8s.deploy import Wanted
from tests.kube_api import Server

SERVICES = "ray.io/v1/rayservices"
GIVEN = Wanted(named={"model.name": "churn", "storage.uri": "s3://models"})
READY = {"conditions": [{"type": "Ready", "status": "True", "reason": "ServeReady"}]}
WAITING = {"conditions": [{"type": "Ready", "status": "False", "reason": "Initializing"}]}


def refuse(cluster: Server, method: str, resource: str, said: str) -> None:
    """Let the API refuse these requests from now on."""
    refusal = kmock.KubernetesError(403, "Forbidden", said)
    cluster.mock[method, kmock.resource(resource)] << refusal


def serve_arguments(server: Server, release: str) -> dict[str, Any]:
    config = server.mock.objects[SERVICES, "ml", release].raw["spec"]["serveConfigV2"]
    return dict(yaml.safe_load(config)["applications"][0]["args"])


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["deploy", *arguments, "--kubernetes"])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_release_is_installed_then_updated_and_its_values_are_kept_until_a_reset(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.mock.statuses["RayService"] = WAITING  # no failure, where nobody waits
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
    deploy.deploy(api.Api(), "churn", replace(GIVEN, reset=True))
    assert serve_arguments(cluster, "churn")["max_replicas"] == 4


def test_two_releases_stand_beside_each_other(cluster: Server) -> None:
    here = api.Api()
    deploy.deploy(here, "first", GIVEN)
    deploy.deploy(here, "second", replace(GIVEN, named={**GIVEN.named, "model.name": "spam"}))
    assert serve_arguments(cluster, "first")["name"] == "churn"
    assert serve_arguments(cluster, "second")["name"] == "spam"
    assert cluster.names(SERVICES) == {"first", "second"}


def test_a_dry_run_prints_yaml_tells_what_would_change_and_touches_nothing(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", "churn", "--storage", "s3://models", "--set", "objectStore.embedded=true"]
    code, out, _ = say(capsys, "churn", *given, "--dry-run")
    secret = next(one for one in yaml.safe_load_all(out) if one["kind"] == "Secret")
    assert (code, len(cluster.mock.objects)) == (0, 0)
    assert "# created RayService churn" in out
    assert set({**secret.get("data", {}), **secret.get("stringData", {})}.values()) == {deploy.MASK}
    deploy.deploy(api.Api(), "churn", GIVEN)
    _, out, _ = say(capsys, "churn", "--set", "tuning.enabled=true", "--dry-run")
    told = [line for line in out.splitlines() if line.startswith("# ") and "kept" not in line]
    assert told == ["# created RayCluster churn-tuning"]
    assert cluster.names("ray.io/v1/rayclusters") == set()


def test_an_update_that_is_refused_is_rolled_back(cluster: Server) -> None:
    here = api.Api()
    deploy.deploy(here, "churn", GIVEN)
    refuse(cluster, "patch", "ray.io/v1/rayclusters", "forbidden: exceeded quota: gpus")
    wanted = Wanted(pairs=["tuning.enabled=true", "serving.replicas.max=3"])
    with pytest.raises(errors.UserError, match="exceeded quota: gpus"):
        deploy.deploy(here, "churn", wanted)
    assert serve_arguments(cluster, "churn")["max_replicas"] == 4
    assert cluster.names("ray.io/v1/rayclusters") == set()


def test_missing_rights_are_named_and_nothing_is_left(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    said = 'rayservices.ray.io "churn" is forbidden: User "u" cannot patch resource "rayservices"'
    refuse(cluster, "patch", SERVICES, said)
    code, _, err = say(capsys, "churn", "--model", "churn", "--storage", "s3://models")
    assert code == 2
    assert "namespace ml: the right to patch rayservices is missing" in err
    assert cluster.names() == set()


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


def test_a_cluster_without_the_operator_says_how_to_install_it(cluster: Server) -> None:
    for resource in [one for one in cluster.mock.resources if one.group == "ray.io"]:
        del cluster.mock.resources[resource]
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
    cluster.mock.statuses["RayService"] = {**READY, "activeServiceStatus": active}
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
    refuse(cluster, "get", "v1/secrets", "secrets is forbidden")
    found = status.summarize("churn", status.read(here, "churn"))
    assert (found.revision, found.answering, found.aliases) == (None, None, None)
    assert (found.model, found.chart) == ("churn", "eagleray-0.1.0")
