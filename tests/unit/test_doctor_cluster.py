"""What `eagleray doctor` makes of what a Kubernetes cluster has: every judgement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from eagleray.doctor import Finding
from k8s import definitions, judgements, needs


def container(**limits: str) -> dict[str, Any]:
    return {"name": "c", "resources": {"limits": limits, "requests": limits}}


def cluster(
    *groups: tuple[int, int, dict[str, Any]], head: dict[str, Any] | None = None
) -> dict[str, Any]:
    head = head or container(cpu="1", memory="1Gi")
    return {
        "headGroupSpec": {"template": {"spec": {"containers": [head]}}},
        "workerGroupSpecs": [
            {"minReplicas": least, "maxReplicas": most, "template": {"spec": {"containers": [one]}}}
            for least, most, one in groups
        ],
    }


def quota(used: dict[str, str], **hard: str) -> dict[str, Any]:
    named = {name.replace("_", "."): amount for name, amount in hard.items()}
    return {
        "metadata": {"name": "team", "namespace": "ml"},
        "spec": {"hard": named},
        "status": {"hard": named, "used": used},
    }


def pod(name: str = "p", *, ready: bool = True, image: str = "i", **waiting: str) -> dict[str, Any]:
    status = {"image": image, "state": {"waiting": waiting} if waiting else {}}
    if not waiting:
        status["imageID"] = "sha256:1"
    return {
        "metadata": {"name": name, "namespace": "system"},
        "spec": {"containers": [{"image": image}]},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [status],
        },
    }


def schema(*paths: str) -> dict[str, Any]:
    """A schema that has these dotted keys, `[]` for those of a list."""
    root: dict[str, Any] = {"properties": {}}
    for path in paths:
        node = root
        for key in path.split("."):
            node = node.setdefault("properties", {}).setdefault(key.removesuffix("[]"), {})
            if key.endswith("[]"):
                node = node.setdefault("items", {})
    return root


OLD = {
    "RayCluster": schema("spec.autoscalerOptions.version"),
    "RayJob": schema("spec.rayClusterSpec.workerGroupSpecs[].minReplicas", "spec.suspend"),
    "RayService": schema("spec.serveConfigV2"),
}
NEW = {**OLD, "RayCluster": schema("spec.authOptions.mode"), "RayCronJob": schema("spec.schedule")}
TOKENS = {"kind": "RayJob", "spec": {"rayClusterSpec": {"authOptions": {"mode": "token"}}}}
GROUPS = {"kind": "RayJob", "spec": {"rayClusterSpec": {"workerGroupSpecs": [{"idle": 1}]}}}


@pytest.mark.parametrize(
    ("known", "wanted", "state", "said"),
    [
        ({}, [], "fail", "does not know RayCluster, RayJob, RayService"),
        ({**OLD, "RayCluster": schema("spec.rayVersion")}, [], "fail", "must be of KubeRay 1.4"),
        (OLD, [], "pass", "of KubeRay 1.4"),
        (NEW, [], "pass", "of KubeRay 1.6 or newer"),
        (OLD, [TOKENS], "fail", "are of KubeRay 1.4 and drop what the release sets: RayJob.spec"),
        (OLD, [GROUPS], "fail", "RayJob.spec.rayClusterSpec.workerGroupSpecs.idle"),
    ],
)
def test_definitions_are_judged_by_what_they_have_and_drop(
    known: dict[str, Any], wanted: list[dict[str, Any]], state: str, said: str
) -> None:
    found = definitions.judge(known, wanted)
    assert found.state == state
    assert said in found.said


@pytest.mark.parametrize(
    ("pods", "state"),
    [
        ([], "warn"),
        ([pod(image="quay.io/kuberay/operator:v1.7.1")], "pass"),
        ([pod(image="quay.io/kuberay/operator:v1.4.0", ready=False)], "fail"),
        ([pod(image="quay.io/kuberay/operator:v1.3.2")], "fail"),
        ([pod(image="quay.io/kuberay/operator:v1.10.0")], "warn"),
        ([pod(image="mirror/operator@sha256:0123")], "pass"),  # says no version
    ],
)
def test_an_operator_is_judged_by_its_pods(pods: list[dict[str, Any]], state: str) -> None:
    assert definitions.operator(pods).state == state


JOB = {
    "rayClusterSpec": cluster((0, 3, container(cpu="4", memory="8Gi"))),
    "submitterPodTemplate": {"spec": {"containers": [container(cpu="1", memory="1Gi")]}},
}
RUN = needs.of_run("a run", JOB)
SERVICE = needs.of_cluster("RayService demo", cluster((2, 4, container(cpu="1"))))


def test_a_run_needs_its_head_its_submitter_and_a_worker_and_may_grow_to_all() -> None:
    assert RUN.least == {
        "pods": 3,
        "requests.cpu": 6,
        "limits.cpu": 6,
        "requests.memory": 10 << 30,
        "limits.memory": 10 << 30,
    }
    assert (RUN.most["requests.cpu"], RUN.most["pods"]) == (14, 5)


def test_the_autoscaler_beside_the_head_counts_and_what_starts_first_does_not_add() -> None:
    spec = {**cluster(), "enableInTreeAutoscaling": True}
    assert needs.of_cluster("it", spec).least["requests.cpu"] == pytest.approx(1.5)  # type: ignore
    first = {"containers": [container(cpu="1")], "initContainers": [container(cpu="250m")]}
    assert needs.of_pod(first)["requests.cpu"] == 1


@pytest.mark.parametrize(
    ("found", "state", "said", "mend"),
    [
        ([], "pass", "has none", ""),
        ([quota({}, cpu="20", pods="9")], "pass", "team has room", ""),
        (
            [quota({}, requests_cpu="4")],
            "fail",
            "a run needs 6 requests.cpu, but quota team allows 4",
            '\'{"spec": {"hard": {"requests.cpu": "6"}}}\'',
        ),
        (
            [quota({}, memory="8Gi")],
            "fail",
            "10Gi requests.memory, but quota team allows 8Gi",
            "10Gi",
        ),
        (
            [quota({"cpu": "18"}, cpu="20")],
            "warn",
            "a run needs 6 requests.cpu, but quota team has 2 left: it waits",
            '"cpu": "24"',
        ),
        ([quota({}, limits_cpu="12")], "warn", "a run may grow to 14 limits.cpu", "14"),
    ],
)
def test_quotas_are_judged_by_what_the_release_needs(
    found: list[dict[str, Any]], state: str, said: str, mend: str
) -> None:
    (judged,) = needs.quotas("ml", found, [RUN, SERVICE])
    assert judged.state == state
    assert said in judged.said
    assert mend in judged.mend


def test_what_runs_already_is_not_asked_for_twice() -> None:
    tight = quota({"cpu": "3"}, cpu="5")
    assert needs.quotas("ml", [tight], [SERVICE])[0].state == "pass"


def test_a_container_that_does_not_say_what_a_quota_counts_is_told() -> None:
    (judged,) = needs.quotas("ml", [quota({}, memory="99Gi")], [SERVICE])
    assert (judged.state, "requests.memory; some do not" in judged.said) == ("warn", True)
    assert '"defaultRequest": {"memory": "1Gi"}' in judged.mend


def test_a_quota_for_some_pods_alone_is_left_aside() -> None:
    scoped = quota({}, cpu="1")
    scoped["spec"]["scopes"] = ["BestEffort"]
    assert needs.quotas("ml", [scoped], [RUN])[0].state == "skip"


def node(name: str = "n", labels: Sequence[str] = (), **allocatable: str) -> dict[str, Any]:
    there = {key.replace("_", "."): amount for key, amount in allocatable.items()}
    gpus = {"nvidia.com/gpu": there.pop("gpu")} if "gpu" in there else {}
    return {
        "metadata": {"name": name, "labels": dict.fromkeys(labels, "true")},
        "status": {"allocatable": {**there, **gpus}},
    }


@pytest.mark.parametrize(
    ("nodes", "state", "said"),
    [
        ([node(cpu="4"), node(gpu="2")], "pass", "2 of nvidia.com/gpu on 1 nodes"),
        (
            [node(gpu="1"), node(gpu="1")],
            "fail",
            "asks for 2 of nvidia.com/gpu, but no node has mo",
        ),
        (
            [node("g", ["nvidia.com/gpu.present"])],
            "fail",
            "nodes with GPUs offer no nvidia.com/gpu",
        ),
        ([node(cpu="4")], "warn", "fine where nodes are added when a pod asks"),
    ],
)
def test_gpus_are_judged_by_what_one_pod_asks_of_one_node(
    nodes: list[dict[str, Any]], state: str, said: str
) -> None:
    gpu = {"name": "c", "resources": {"limits": {"cpu": "4", "nvidia.com/gpu": 2}}}
    (found,) = needs.devices(nodes, [needs.of_cluster("a run", cluster((0, 1, gpu)))])
    assert found.state == state
    assert said in found.said


def test_gpus_are_asked_for_by_the_value_that_is_named() -> None:
    gpu = {"name": "c", "resources": {"limits": {"nvidia.com/gpu": 2}}}
    serving, tuning = (cluster((0, 1, container(cpu="1")), (0, 1, gpu)) for _ in range(2))
    for spec, component in ((serving, "serving"), (tuning, "runs")):
        for group in spec["workerGroupSpecs"]:
            labels = {"app.kubernetes.io/component": component, "eagleray/role": "worker"}
            group["template"]["metadata"] = {"labels": labels}
    both = [needs.of_cluster("RayService demo", serving), needs.of_cluster("a run", tuning)]
    (found,) = needs.devices([node(gpu="1")], both)
    assert found.said.startswith("serving.workers.gpus asks for 2, tuning.workers[1].gpus asks")
    assert found.mend.startswith("set serving.workers.gpus and tuning.workers[1].gpus to 1 or less")
    (found,) = needs.devices([node(gpu="1")], both[:1])
    assert "tuning" not in found.said + found.mend


def test_a_release_that_asks_for_no_gpu_is_not_judged_by_them() -> None:
    assert needs.devices([], [RUN])[0].state == "skip"


@pytest.mark.parametrize(
    ("pods", "state", "said"),
    [
        ([], "skip", "no pod"),
        ([pod(image="eagleray:0.1.0")], "pass", "eagleray:0.1.0"),
        (
            [pod(), pod("head", image="x/y", reason="ImagePullBackOff", message="not found")],
            "fail",
            "x/y cannot be pulled for head (ImagePullBackOff): not found",
        ),
        ([pod(reason="ErrImageNeverPull", message="absent")], "fail", "ErrImageNeverPull"),
        ([pod(reason="ContainerCreating")], "skip", "no pod"),
    ],
)
def test_images_are_judged_by_how_pods_fare(
    pods: list[dict[str, Any]], state: str, said: str
) -> None:
    found = judgements.images("ml", pods, "helm upgrade demo helm/eagleray")
    assert found.state == state
    assert said in found.said


def test_secrets_that_pods_name_must_be_there() -> None:
    reference = {"name": "keys", "key": "ID"}
    spec = {
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": reference}}]}],
    }
    wanted = judgements.named_secrets([spec])
    assert judgements.secrets("ml", wanted, {"pull", "keys"}).state == "pass"
    lacking = judgements.secrets("ml", wanted, {"pull"})
    assert lacking.state == "fail"
    assert lacking.mend == "kubectl create secret generic keys --from-literal=ID=… -n ml"
    docker = judgements.secrets("ml", wanted, {"keys"}).mend
    assert docker.startswith("kubectl create secret docker-registry pull")


def claim(phase: str, wanted: str | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "data-demo-store-0"},
        "spec": {"storageClassName": wanted} if wanted else {},
        "status": {"phase": phase},
    }


STANDARD: dict[str, Any] = {"metadata": {"name": "standard"}}
DEFAULT = {"metadata": {"name": "fast", "annotations": {judgements.DEFAULT: "true"}}}


@pytest.mark.parametrize(
    ("claims", "classes", "state", "mend"),
    [
        ([], [], "skip", ""),
        ([claim("Bound")], [], "pass", ""),
        ([claim("Pending", "gold")], [STANDARD], "fail", "storageClassName=standard"),
        ([claim("Pending")], [STANDARD], "fail", "kubectl patch sc standard"),
        ([claim("Pending")], [STANDARD, DEFAULT], "warn", "kubectl describe pvc"),
    ],
)
def test_volumes_are_judged_by_their_classes(
    claims: list[dict[str, Any]], classes: list[dict[str, Any]], state: str, mend: str
) -> None:
    found = judgements.volumes(claims, classes)
    assert found.state == state
    assert mend in found.mend


def hook(policy: str, group: str = "ray.io") -> dict[str, Any]:
    return {
        "name": "vraycluster.kb.io",
        "failurePolicy": policy,
        "clientConfig": {"service": {"namespace": "kuberay", "name": "hook"}},
        "rules": [{"apiGroups": [group], "resources": ["rayclusters"]}],
    }


@pytest.mark.parametrize(
    ("asked", "answering", "state"),
    [
        (hook("Fail"), {("kuberay", "hook")}, "pass"),
        (hook("Fail"), set(), "fail"),
        (hook("Ignore"), set(), "warn"),
        (hook("Fail", "apps"), set(), "skip"),
    ],
)
def test_a_webhook_that_nobody_answers_refuses_every_ray_object(
    asked: dict[str, Any], answering: set[tuple[str, str]], state: str
) -> None:
    (found,) = judgements.webhooks([{"webhooks": [asked]}], answering)
    assert found.state == state


def test_an_endpoint_answers_unless_it_says_that_it_does_not() -> None:
    assert judgements.answers([{"endpoints": [{}]}])
    assert not judgements.answers([{"endpoints": [{"conditions": {"ready": False}}]}])
    assert not judgements.answers([{"endpoints": None}])


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (judgements.version({"minor": "29+", "gitVersion": "v1.29.3-eks"}), "pass"),
        (judgements.version({"gitVersion": "v1.28.9"}), "warn"),
        (judgements.dns([pod(ready=False), pod()]), "pass"),
        (judgements.dns([pod(ready=False)]), "fail"),
        (judgements.dns([]), "warn"),
        (judgements.pods("ml", "demo", [{"status": {"phase": "Running"}}]), "pass"),
        (judgements.pods("ml", "demo", [{"status": {"phase": "Pending"}}]), "warn"),
        (judgements.metrics("demo", False, []), "skip"),
        (judgements.metrics("demo", True, []), "warn"),
        (judgements.metrics("demo", True, [pod("demo-ray")]), "pass"),
    ],
)
def test_the_rest_of_a_cluster_is_judged_by_what_answers(finding: Finding, state: str) -> None:
    assert finding.state == state
    assert bool(finding.mend) == (state in ("warn", "fail"))


def test_the_versions_we_know_are_those_of_the_chart() -> None:
    folder = Path(__file__).parents[2] / "helm" / "eagleray"
    about = yaml.safe_load((folder / "Chart.yaml").read_text())
    values = json.loads((folder / "values.schema.json").read_text())
    operators = values["properties"]["kuberay"]["properties"]["version"]["enum"]
    assert about["kubeVersion"] == f">=1.{judgements.KUBERNETES[0]}.0-0"
    known = [f"1.{minor}" for minor in range(definitions.OLDEST[1], definitions.LATEST[1] + 1)]
    assert operators == known
