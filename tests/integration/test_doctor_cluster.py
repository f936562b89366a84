"""`eagleray doctor --kubernetes` against an emulation of the API behind real HTTP."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import kmock
import pytest
import yaml

from eagleray import cli, doctor
from eagleray.findings import Finding
from k8s.diagnose import checks, definitions
from tests import kuberay
from tests.chart import chart
from tests.kube_api import Server

READ = (
    "v1/configmaps",
    "v1/pods",
    "v1/secrets",
    "v1/resourcequotas",
    "v1/events",
    "v1/nodes",
    "ray.io/v1/rayjobs",
    "ray.io/v1/rayclusters",
    "ray.io/v1/rayservices",
    "discovery.k8s.io/v1/endpointslices",
    "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "monitoring.coreos.com/v1/podmonitors",
    "monitoring.coreos.com/v1/servicemonitors",
)
VALUES = {**chart.MINIMAL, "storage": {"uri": "s3://models", "existingSecret": "s3-keys"}}
HEAD = "/api/v1/namespaces/ml/services/demo-head-svc:8265/proxy/api/v0/cluster_metadata"
HOOK = {"namespace": "kuberay-system", "name": "hook"}


@functools.cache
def release() -> list[dict[str, Any]]:
    return chart.documents(VALUES)


def described() -> dict[str, Any]:
    """OpenAPI of definitions that have just the fields that the chart sets."""
    (run,) = chart.runs(release())
    cluster = chart.one(release(), "RayService")["spec"]["rayClusterConfig"]
    kinds = {
        "RayJob": shape(run["spec"]),
        "RayService": shape({"rayClusterConfig": cluster}),
        "RayCluster": shape({**cluster, "autoscalerOptions": {"version": "v2"}}),
        "RayCronJob": shape({}),
    }
    named = {
        kind: {
            "properties": {"spec": spec},
            "x-kubernetes-group-version-kind": [{"group": "ray.io", "kind": kind, "version": "v1"}],
        }
        for kind, spec in kinds.items()
    }
    return {"components": {"schemas": named}}


def shape(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        whole = {key: inner for one in value if isinstance(one, dict) for key, inner in one.items()}
        return {"items": shape(whole) if whole else {}}
    if not isinstance(value, dict):
        return {}
    return {"properties": {key: shape(inner) for key, inner in value.items()}}


def put(server: Server, resource: str, thing: dict[str, Any], namespace: str | None = "ml") -> None:
    thing = copy.deepcopy(thing)
    thing["metadata"] |= {"namespace": namespace} if namespace else {}
    server.mock.objects[resource, namespace, thing["metadata"]["name"]] = thing


def pod(
    name: str, image: str, waits: dict[str, str] | None = None, **labels: str
) -> dict[str, Any]:
    status = {"name": "ray", "image": image, "state": {"waiting": waits} if waits else {}}
    return {
        "metadata": {"name": name, "labels": {k.replace("_", "-"): v for k, v in labels.items()}},
        "spec": {"containers": [{"image": image}]},
        "status": {
            "phase": "Pending" if waits else "Running",
            "conditions": [{"type": "Ready", "status": "False" if waits else "True"}],
            "containerStatuses": [status | ({} if waits else {"imageID": "sha256:1"})],
        },
    }


def of_demo(thing: dict[str, Any]) -> dict[str, Any]:
    thing["metadata"].setdefault("labels", {})["app.kubernetes.io/instance"] = "demo"
    return thing


@pytest.fixture
def cluster(kube: Server) -> Server:
    """A cluster where all is well: the operator, a release whose serving cluster runs, a quota."""
    for resource in READ:
        namespaced = not resource.endswith(("nodes", "configurations"))
        kube.mock.resources[resource] = {"namespaced": namespaced}
    for document in release():
        if document["kind"] == "ConfigMap" and document["metadata"]["name"].endswith("-runs"):
            put(kube, "v1/configmaps", document)
        if document["kind"] == "RayService":
            put(kube, "ray.io/v1/rayservices", embedded(document))
    spec = chart.one(release(), "RayService")["spec"]["rayClusterConfig"]
    running = {
        "metadata": {"name": "demo-x", "ownerReferences": [{"kind": "RayService"}]},
        "spec": spec,
        "status": {"head": {"serviceName": "demo-head-svc"}},
    }
    put(kube, "ray.io/v1/rayclusters", of_demo(running))
    token = {"metadata": {"name": "demo-x"}, "data": {"auth_token": "c2VjcmV0"}}
    put(kube, "v1/secrets", token)
    put(kube, "v1/secrets", {"metadata": {"name": "s3-keys"}})
    put(kube, "v1/pods", of_demo(pod("demo-head", "eagleray:0.1.0")))
    put(kube, "v1/resourcequotas", quota("1000"))
    put(kube, "monitoring.coreos.com/v1/podmonitors", of_demo({"metadata": {"name": "demo-ray"}}))
    operator(kube)
    return kube


def embedded(service: dict[str, Any]) -> dict[str, Any]:
    """The same with `ray.faultTolerance.embedded`."""
    options = {"backend": "rocksdb", "storage": {"size": "1Gi"}}
    cluster = {**service["spec"]["rayClusterConfig"], "gcsFaultToleranceOptions": options}
    return {**service, "spec": {**service["spec"], "rayClusterConfig": cluster}}


def operator(kube: Server, gate: str = "true") -> None:
    mine = doctor.installed()
    image = "quay.io/kuberay/operator:v1.7.1"
    one = pod("operator", image, **{"app.kubernetes.io/component": "kuberay-operator"})
    gates = f"--feature-gates=RayCronJob=true,{definitions.GATE}={gate}"
    one["spec"]["containers"][0]["args"] = ["--log-stdout-encoder", "json", gates]
    put(kube, "v1/pods", one, "kuberay-system")
    put(kube, "v1/pods", pod("coredns", "coredns", k8s_app="kube-dns"), "kube-system")
    hook = {
        "name": "vraycluster.kb.io",
        "clientConfig": {"service": HOOK},
        "rules": [{"apiGroups": ["ray.io"]}],
    }
    hooks = "admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    put(kube, hooks, {"metadata": {"name": "kuberay"}, "webhooks": [hook]}, None)
    labels = {"kubernetes.io/service-name": "hook"}
    ends = {"metadata": {"name": "hook-1", "labels": labels}, "endpoints": [{}]}
    put(kube, "discovery.k8s.io/v1/endpointslices", ends, "kuberay-system")
    kube.mock["get", "/version"] << {"gitVersion": "v1.36.0", "major": "1", "minor": "36"}
    kube.mock["get", HEAD] << {"data": {"rayVersion": mine.ray, "pythonVersion": mine.python}}


def quota(cpus: str) -> dict[str, Any]:
    hard = {"requests.cpu": cpus}
    said = {"hard": hard, "used": {"requests.cpu": "3"}}
    return {"metadata": {"name": "team"}, "spec": {"hard": hard}, "status": said}


def forbid(server: Server, resource: str) -> None:
    refusal = kmock.KubernetesError(status=403, reason="Forbidden", message="not allowed")
    server.mock["list", kmock.resource(resource)] << refusal


def tell_definitions(server: Server) -> None:
    server.mock["get", definitions.PATH] << described()


def found(check: str) -> Finding:
    (one,) = [each for each in checks.examine(None, None) if each.check == check]
    return one


def test_where_all_is_well_every_line_passes(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_definitions(cluster)
    code = cli.main(["doctor", "--kubernetes", "--json"])
    lines = json.loads(capsys.readouterr().out)
    others = [(one["check"], one["severity"]) for one in lines if one["severity"] != "pass"]
    assert (code, others) == (0, [(one, "skip") for one in ("storage", "GPUs", "storage class")])


def test_a_line_says_what_is_wrong_and_the_next_its_fix(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_definitions(cluster)
    del cluster.mock.objects["v1/secrets", "ml", "s3-keys"]
    assert cli.main(["doctor", "--kubernetes", "--namespace", "ml"]) == 1
    out = capsys.readouterr().out.splitlines()
    (number,) = [n for n, line in enumerate(out) if line.startswith("fails    secrets ")]
    assert out[number + 1].lstrip().startswith("fix: kubectl create secret generic s3-keys ")
    assert "passes   KubeRay operator  quay.io/kuberay/operator:v1.7.1 in kuberay-system" in out


def test_a_gate_that_is_off_is_turned_on_and_the_others_stay(cluster: Server) -> None:
    operator(cluster, gate="false")
    off = found("feature gate")
    assert off.severity == "fail"
    assert off.message == (
        "ray.faultTolerance.embedded needs the operator's GCSFaultToleranceEmbeddedStorage, but "
        "it is off"
    )
    assert off.fix.endswith(
        "--reset-then-reuse-values --set 'featureGates[0].name=RayCronJob,"
        "featureGates[0].enabled=true,featureGates[1].name=GCSFaultToleranceEmbeddedStorage,"
        "featureGates[1].enabled=true'"
    )


def test_the_head_is_asked_with_kuberays_token(cluster: Server) -> None:
    tell_definitions(cluster)
    assert found("Python version").severity == "pass"
    (asked,) = cluster.mock["get", HEAD]
    assert asked.headers["X-Ray-Authorization"] == "Bearer secret"


def test_without_the_operator_the_line_says_how_to_install_it(kube: Server) -> None:
    kube.mock.resources["v1/configmaps"] = {"namespaced": True}
    crds = found("CRDs")
    assert (crds.severity, crds.fix) == ("fail", definitions.install(gated=False))
    assert cli.main(["doctor", "--kubernetes"]) == 1


@pytest.mark.parametrize(
    ("resource", "check", "fix"),
    [
        ("v1/resourcequotas", "quota", "kubectl create role doctor-quota --verb=get,list"),
        ("ray.io/v1/rayclusters", "Ray version", "--resource=rayclusters.ray.io -n ml &&"),
        ("monitoring.coreos.com/v1/podmonitors", "metrics", "podmonitors.monitoring.coreos.com"),
        (
            "admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            "webhook",
            "kubectl create clusterrole doctor-webhook",
        ),
    ],
)
def test_a_right_that_we_lack_costs_its_line_alone(
    cluster: Server, resource: str, check: str, fix: str
) -> None:
    tell_definitions(cluster)
    forbid(cluster, resource)
    line = found(check)
    assert line.severity == "warn"
    assert resource.rpartition("/")[2] in line.message
    assert fix in line.fix
    assert cli.main(["doctor", "--kubernetes"]) == 0


def test_a_head_that_cannot_be_asked_is_said_to_be_unknown(cluster: Server) -> None:
    tell_definitions(cluster)
    del cluster.mock.objects["v1/secrets", "ml", "demo-x"]
    line = found("Python version")
    assert line.severity == "warn"
    assert line.fix.startswith("kubectl -n ml port-forward svc/demo-head-svc 8265 & eagleray doc")


def test_of_several_releases_one_must_be_named(cluster: Server) -> None:
    tell_definitions(cluster)
    other = {"app.kubernetes.io/instance": "other", "eagleray/skeleton": "rayjob"}
    data = {"rayjob.yaml": yaml.safe_dump(chart.runs(release())[0])}
    put(cluster, "v1/configmaps", {"metadata": {"name": "o", "labels": other}, "data": data})
    assert found("release").fix == "--release demo"
    assert "fail" not in {one.severity for one in checks.examine(None, "demo")}


def test_a_cluster_that_does_not_answer_fails_one_line(
    cluster: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.stop()
    assert cli.main(["doctor", "--kubernetes", "--json"]) == 1
    lines = [one for one in json.loads(capsys.readouterr().out) if one["check"] != "storage"]
    assert [one["severity"] for one in lines] == ["fail"] + ["skip"] * (len(checks.CHECKS) - 1)


def test_a_cluster_that_does_not_know_us_fails_one_line(cluster: Server) -> None:
    tell_definitions(cluster)
    refusal = kmock.KubernetesError(status=401, reason="Unauthorized", message="expired")
    cluster.mock["list", kmock.resource("v1/configmaps")] << refusal
    lines = [*checks.examine(None, None)]
    assert [one.check for one in lines if one.severity == "fail"] == ["release"]
    assert {one.severity for one in lines[3:]} == {"skip"}


def test_no_cluster_at_all_is_a_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    assert cli.main(["doctor", "--kubernetes"]) == 1


def test_every_field_that_the_chart_sets_is_in_kuberays_definitions() -> None:
    known = kuberay.schemas()
    for case in chart.CI:
        wanted = chart.runs(chart.documents(chart.values_of(case)))
        assert definitions.check(known, wanted).severity == "pass"
