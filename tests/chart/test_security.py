"""What Pod Security `restricted` and a careful operator ask of every pod and right."""

import re

import pytest

from tests.chart import chart

PINNED = re.compile(r"[\w.:/-]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})")
cases = pytest.mark.parametrize("case", chart.CI)


@cases
def test_every_pod_is_restricted(case):
    for pod in pods(case):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}


@cases
def test_every_container_has_a_read_only_root_and_no_capability(case):
    for container in containers(case):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container.get("ports", []))


@cases
def test_every_image_is_pinned_and_the_same(case):
    images = {container["image"] for container in containers(case)}
    assert len(images) == 1
    assert PINNED.fullmatch(images.pop())


@cases
def test_every_container_says_what_it_takes(case):
    for container in containers(case):
        resources = container["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert resources["requests"]["cpu"]


@cases
def test_autoscalers_are_restricted_as_well(case):
    for cluster in clusters(case):
        options = cluster.get("autoscalerOptions")
        assert cluster["enableInTreeAutoscaling"] is bool(options)
        if options:
            assert options["securityContext"]["readOnlyRootFilesystem"] is True
            assert options["version"] == "v2"


@cases
def test_rights_are_of_the_namespace(case):
    found = chart.documents(chart.values_of(case))
    assert not {each["kind"] for each in found} & {"ClusterRole", "ClusterRoleBinding", "Namespace"}
    for role in chart.of_kind(found, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert "secrets" not in rule["resources"]


@cases
def test_only_pods_that_call_the_kubernetes_api_have_a_token_for_it(case):
    for pod in pods(case):
        labels = pod["metadata"]["labels"]
        component, role = labels["app.kubernetes.io/component"], labels.get("eagleray/role")
        if component in ("schedules", "uninstall"):
            continue  # they create RayJobs and delete the RayService, by accounts of their own
        assert pod["spec"]["automountServiceAccountToken"] is False or role == "head"


@cases
def test_secrets_are_referred_to_and_never_written(case):
    for document in chart.documents(chart.values_of(case)):
        if document["kind"] == "Secret":
            assert set(document["data"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for container in containers(case):
        for variable in container.get("env", []):
            is_path = variable["name"].endswith("_FILE")
            assert "value" not in variable or "KEY" not in variable["name"] or is_path


@cases
def test_the_ray_api_asks_for_a_token(case):
    for cluster in clusters(case):
        assert cluster["authOptions"] == {"mode": "token"}


@cases
def test_nothing_but_spot_groups_runs_on_spot_nodes(case):
    for pod in pods(case):
        labels = pod["metadata"]["labels"]
        if labels.get("eagleray/role") not in ("head", "worker"):
            continue
        affinity = pod["spec"]["affinity"]["nodeAffinity"]
        on_spot = "preferredDuringSchedulingIgnoredDuringExecution" in affinity
        assert not (on_spot and labels["eagleray/role"] == "head")
        if not on_spot:
            (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"][
                "nodeSelectorTerms"
            ]
            assert {each["operator"] for each in term["matchExpressions"]} == {"NotIn"}
        spot = [
            each for each in pod["spec"].get("tolerations", []) if "spot" in each.get("key", "")
        ]
        assert bool(spot) is on_spot


def pods(case):
    return list(chart.pods(chart.documents(chart.values_of(case))))


def containers(case):
    return [container for pod in pods(case) for container in pod["spec"]["containers"]]


def clusters(case):
    found = chart.documents(chart.values_of(case))
    specs = [
        each["spec"] for each in [*found, *chart.runs(found)] if each["apiVersion"] == "ray.io/v1"
    ]
    nested = [spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec for spec in specs]
    return [spec for spec in nested if "headGroupSpec" in spec]
