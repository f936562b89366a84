"""What `eagleray doctor` says of what a Kubernetes cluster has: every check."""

import datetime
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException

from eagleray import errors
from eagleray.findings import Finding
from k8s import release as releases
from k8s.diagnose import capacity, checks, definitions
from k8s.diagnose.capacity import Requirements
from k8s.diagnose.snapshot import Snapshot


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
        ({}, [], "fail", "lacks the CRDs RayCluster, RayJob, RayService"),
        ({**OLD, "RayCluster": schema("spec.rayVersion")}, [], "fail", "must be of KubeRay 1.4"),
        (OLD, [], "pass", "of KubeRay 1.4"),
        (NEW, [], "pass", "of KubeRay 1.6 or newer"),
        (OLD, [TOKENS], "fail", "are of KubeRay 1.4 and drop what the release sets: RayJob.spec"),
        (OLD, [GROUPS], "fail", "RayJob.spec.rayClusterSpec.workerGroupSpecs.idle"),
    ],
)
def test_definitions_are_compared_with_what_they_have_and_drop(
    known: dict[str, Any], wanted: list[dict[str, Any]], state: str, said: str
) -> None:
    found = definitions.check(known, wanted)
    assert found.severity == state
    assert said in found.message


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
def test_an_operator_is_compared_with_its_pods(pods: list[dict[str, Any]], state: str) -> None:
    assert definitions.operator(pods, gated=False).severity == state


JOB = {
    "rayClusterSpec": cluster((0, 3, container(cpu="4", memory="8Gi"))),
    "submitterPodTemplate": {"spec": {"containers": [container(cpu="1", memory="1Gi")]}},
}
RUN = Requirements("a run", JOB["rayClusterSpec"], JOB)
SERVICE = Requirements("RayService demo", cluster((2, 4, container(cpu="1"))))


def test_a_run_needs_its_head_its_submitter_and_a_worker_and_may_grow_to_all() -> None:
    assert RUN.total("least") == {
        "pods": 3,
        "requests.cpu": 6,
        "limits.cpu": 6,
        "requests.memory": 10 << 30,
        "limits.memory": 10 << 30,
    }
    assert (RUN.total("most")["requests.cpu"], RUN.total("most")["pods"]) == (14, 5)


def test_the_autoscaler_beside_the_head_counts_and_what_starts_first_does_not_add() -> None:
    spec = {**cluster(), "enableInTreeAutoscaling": True}
    assert Requirements("it", spec).total("least")["requests.cpu"] == pytest.approx(1.5)  # type: ignore
    first = {"containers": [container(cpu="1")], "initContainers": [container(cpu="250m")]}
    assert capacity.of_pod(first)["requests.cpu"] == 1


@pytest.mark.parametrize(
    ("found", "state", "said", "mend"),
    [
        (quota({}, cpu="20", pods="9"), "pass", "team has room", ""),
        (
            quota({}, requests_cpu="4"),
            "fail",
            "a run needs 6 requests.cpu, but quota team allows 4",
            '\'{"spec": {"hard": {"requests.cpu": "6"}}}\'',
        ),
        (
            quota({}, memory="8Gi"),
            "fail",
            "10Gi requests.memory, but quota team allows 8Gi",
            "10Gi",
        ),
        (
            quota({"cpu": "18"}, cpu="20"),
            "warn",
            "a run needs 6 requests.cpu, but quota team has 2 left: it waits",
            '"cpu": "24"',
        ),
        (quota({}, limits_cpu="12"), "warn", "a run may grow to 14 limits.cpu", "14"),
    ],
)
def test_quotas_are_compared_with_what_the_release_needs(
    found: dict[str, Any], state: str, said: str, mend: str
) -> None:
    judged = capacity.quota(found, [RUN, SERVICE])
    assert judged.severity == state
    assert said in judged.message
    assert mend in judged.fix


def test_what_runs_already_is_not_asked_for_twice() -> None:
    tight = quota({"cpu": "3"}, cpu="5")
    assert capacity.quota(tight, [SERVICE]).severity == "pass"


def test_a_container_that_does_not_say_what_a_quota_counts_is_told() -> None:
    judged = capacity.quota(quota({}, memory="99Gi"), [SERVICE])
    assert (judged.severity, "requests.memory; some do not" in judged.message) == ("warn", True)
    assert '"defaultRequest": {"memory": "1Gi"}' in judged.fix


def test_a_quota_for_some_pods_alone_is_left_aside() -> None:
    scoped = quota({}, cpu="1")
    scoped["spec"]["scopes"] = ["BestEffort"]
    assert capacity.quota(scoped, [RUN]).severity == "skip"


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
        ([node(cpu="4")], "warn", "fine if an autoscaler adds nodes on demand"),
    ],
)
def test_gpus_are_compared_with_what_one_pod_asks_of_one_node(
    nodes: list[dict[str, Any]], state: str, said: str
) -> None:
    gpu = {"name": "c", "resources": {"limits": {"cpu": "4", "nvidia.com/gpu": 2}}}
    (found,) = capacity.devices(lambda: nodes, [Requirements("a run", cluster((0, 1, gpu)))])
    assert found.severity == state
    assert said in found.message


def test_gpus_are_asked_for_by_the_value_that_is_named() -> None:
    gpu = {"name": "c", "resources": {"limits": {"nvidia.com/gpu": 2}}}
    serving, tuning = (cluster((0, 1, container(cpu="1")), (0, 1, gpu)) for _ in range(2))
    for spec, component in ((serving, "serving"), (tuning, "runs")):
        for group in spec["workerGroupSpecs"]:
            labels = {"app.kubernetes.io/component": component, "eagleray/role": "worker"}
            group["template"]["metadata"] = {"labels": labels}
    both = [
        Requirements("RayService demo", serving),
        Requirements("a run", tuning),
    ]
    (found,) = capacity.devices(lambda: [node(gpu="1")], both)
    assert found.message.startswith("serving.workers.gpus asks for 2, tuning.workers[1].gpus asks")
    assert found.fix.startswith("set serving.workers.gpus and tuning.workers[1].gpus to 1 or less")
    (found,) = capacity.devices(lambda: [node(gpu="1")], both[:1])
    assert "tuning" not in found.message + found.fix


def test_a_release_that_asks_for_no_gpu_is_not_judged_by_them() -> None:
    assert capacity.devices(list, [RUN])[0].severity == "skip"


def skeleton(job: str, release: str = "demo") -> dict[str, Any]:
    return {"metadata": {"name": release}, "data": {releases.SKELETON: job}}


def found(
    check: str, unread: dict[str, errors.EagleRayError] | None = None, **objects: Any
) -> Finding:
    """The first line of a check, of a namespace with the skeleton of a release `demo`."""
    job = {"spec": {"rayClusterSpec": {**cluster(), "rayVersion": "2.0"}}}
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"] |= SPEC
    known = {"configmaps": [skeleton(json.dumps(job))], **objects}
    now = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
    site = checks.Site(Snapshot("ml", now, objects=known, unread=unread or {}))
    said = next(checks.CHECKS[check](site))
    assert said is not None
    return said


ABSENT = errors.UserError("the server could not find the requested resource")
ABSENT.__cause__ = ApiException(status=404)
SPEC = {
    "imagePullSecrets": [{"name": "pull"}],
    "containers": [
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "ID"}}}]}
    ],
}
PULL, KEYS = ({"metadata": {"name": name}} for name in ("pull", "keys"))
OF_DEMO = {"app.kubernetes.io/instance": "demo"}


def mine(**rest: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "labels": OF_DEMO}, "spec": {}, **rest}


def waiting(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return mine(status={"containerStatuses": [{"name": "c", "image": "x/y", "state": state}]})


def claim(phase: str, wanted: str | None = None) -> dict[str, Any]:
    spec = {"storageClassName": wanted} if wanted else {}
    return mine() | {"spec": spec, "status": {"phase": phase}}


STANDARD: dict[str, Any] = {"metadata": {"name": "standard"}}
FAST = {"metadata": {"name": "fast", "annotations": {checks.DEFAULT_CLASS: "true"}}}


def hook(policy: str, group: str = "ray.io") -> dict[str, Any]:
    webhook = {
        "name": "vraycluster.kb.io",
        "failurePolicy": policy,
        "clientConfig": {"service": {"namespace": "kuberay", "name": "hook"}},
        "rules": [{"apiGroups": [group], "resources": ["rayclusters"]}],
    }
    return {"webhooks": [webhook]}


def ends(*endpoints: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    labels = {"kubernetes.io/service-name": "hook"}
    metadata = {"name": "hook-1", "namespace": "kuberay", "labels": labels}
    return {"endpointslices": [{"metadata": metadata, "endpoints": list(endpoints) or None}]}


CASES = [
    (
        partial(found, "Kubernetes", version=[{"minor": "29+", "gitVersion": "v1.29.3"}]),
        "pass",
        "",
        "",
    ),
    (
        partial(found, "Kubernetes", version=[{"gitVersion": "v1.28.9"}]),
        "warn",
        "1.29 to 1.",
        "make",
    ),
    (partial(found, "quota"), "pass", "namespace ml has none", ""),
    (partial(found, "secrets", secrets=[PULL, KEYS]), "pass", "keys, pull: there", ""),
    (
        partial(found, "secrets", secrets=[PULL]),
        "fail",
        "pods need Secret keys, but namespace ml has none of that name",
        "kubectl create secret generic keys --from-literal=ID=… -n ml",
    ),
    (
        partial(found, "secrets", secrets=[KEYS]),
        "fail",
        "pull",
        "create secret docker-registry pull",
    ),
    (partial(found, "storage class"), "skip", "no volume", ""),
    (
        partial(found, "storage class", claims=[claim("Bound")]),
        "pass",
        "1 of 1 volumes are bound",
        "",
    ),
    (
        partial(found, "storage class", claims=[claim("Pending", "gold")], classes=[STANDARD]),
        "fail",
        "p waits for class gold, but there is standard",
        "storageClassName=standard",
    ),
    (
        partial(found, "storage class", claims=[claim("Pending")], classes=[STANDARD]),
        "fail",
        "no class is the default",
        "kubectl patch sc standard",
    ),
    (
        partial(found, "storage class", claims=[claim("Pending")], classes=[STANDARD, FAST]),
        "warn",
        "p waits for a volume of class fast",
        "kubectl describe pvc p",
    ),
    (partial(found, "webhook", validating=[hook("Fail")], **ends({})), "pass", "answered for", ""),
    (
        partial(found, "webhook", validating=[hook("Fail")]),
        "fail",
        "every Ray object is refused",
        "ku",
    ),
    (
        partial(found, "webhook", mutating=[hook("Ignore")], **ends()),
        "warn",
        "passed over",
        "kubectl",
    ),
    (
        partial(
            found, "webhook", mutating=[hook("Fail")], **ends({"conditions": {"ready": False}})
        ),
        "fail",
        "kuberay/hook, which has no ready pod",
        "kubectl -n kuberay get endpointslices,pods",
    ),
    (partial(found, "webhook", mutating=[hook("Fail", "apps")]), "skip", "none is asked", ""),
    (partial(found, "secrets", configmaps=[]), "skip", "the release names none", ""),
    (partial(found, "release"), "pass", "demo in namespace ml", ""),
    (partial(found, "release", configmaps=[]), "warn", "has no release", "helm install eagleray"),
    (
        partial(found, "release", configmaps=[skeleton("{}", "a"), skeleton("{}", "b")]),
        "fail",
        "must be one of a, b in namespace ml, but got none",
        "--release a",
    ),
    (
        partial(found, "release", configmaps=[skeleton("{")]),
        "fail",
        "ConfigMap demo: rayjob.yaml must be YAML",
        "helm upgrade demo helm/eagleray -n ml --reuse-values",
    ),
    (partial(found, "metrics", configmaps=[]), "skip", "no release", ""),
    (partial(found, "metrics", unread={"podmonitors": ABSENT}), "skip", "no Prometheus op", ""),
    (partial(found, "DNS", dns=[pod(ready=False), pod()]), "pass", "1 of 2 pods are ready", ""),
    (partial(found, "DNS", dns=[pod(ready=False)]), "fail", "none of 1 pods", "rollout restart"),
    (partial(found, "DNS"), "warn", "no pod labelled k8s-app=kube-dns", "grep -i dns"),
    (partial(found, "pods", pods=[mine(status={"phase": "Succeeded"})]), "pass", "1 Succeeded", ""),
    (
        partial(found, "pods", pods=[mine(status={"phase": "Pending"})]),
        "warn",
        "p: it is",
        "describe",
    ),
    (
        partial(found, "pods", pods=[waiting("ImagePullBackOff", "not found")] * 2),
        "fail",
        "p, p: there is no image x/y",
        "set image.repository",
    ),
    (
        partial(found, "pods", pods=[waiting("ErrImageNeverPull", "absent")]),
        "fail",
        "image x/y is not on the node",
        "kind load docker-image x/y",
    ),
    (
        partial(found, "metrics"),
        "warn",
        "demo has no monitor",
        "monitoring.podMonitor.enabled=true",
    ),
    (partial(found, "metrics", podmonitors=[mine()]), "pass", "scraped as p say", ""),
]
"""A check and objects of the cluster, and the first line of the check."""


@pytest.mark.parametrize(("finding", "severity", "message", "fix"), CASES)
def test_the_rest_of_a_cluster_is_checked_by_what_answers(
    finding: Callable[[], Finding], severity: str, message: str, fix: str
) -> None:
    said = finding()
    assert said.severity == severity
    assert message in said.message
    assert fix in said.fix
    assert bool(said.fix) == (severity in ("warn", "fail"))


def test_the_versions_we_know_are_those_of_the_chart() -> None:
    folder = Path(__file__).parents[2] / "helm" / "eagleray"
    about = yaml.safe_load((folder / "Chart.yaml").read_text())
    values = json.loads((folder / "values.schema.json").read_text())
    operators = values["properties"]["kuberay"]["properties"]["version"]["enum"]
    assert about["kubeVersion"] == f">=1.{checks.KUBERNETES[0]}.0-0"
    assert (operators[0], operators[-1]) == (definitions.OLDEST, definitions.LATEST)
