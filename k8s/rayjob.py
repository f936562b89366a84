"""A run as a RayJob: pure, from the skeleton that the chart keeps in a ConfigMap.

The skeleton holds what all runs of a release share: image, service account, secrets, resources,
tolerations, the shape of the cluster. What KubeRay and Kueue ask of a RayJob:

- KubeRay, ray-operator/controllers/ray/utils/validation.go, `ValidateRayJobSpec`: `suspend` and
  `ttlSecondsAfterFinished` need `shutdownAfterJobFinishes`.
- rayjob_controller.go, `checkBackoffLimitAndUpdateStatusIfNeeded`: each failure but a deadline's is
  retried, with a new cluster and a new deadline. The old cluster is deleted: before kuberay#4527
  also a shared one, for which `backoffLimit` is refused since then.
- Kueue, pkg/controller/jobs/rayjob and raycluster: the cluster is the job's own and ends with it,
  does not scale by itself, has 7 worker groups at most, and none that is called `head`.
"""

import copy
import math
from dataclasses import dataclass

from kubernetes.utils.quantity import parse_quantity

from eagleray import errors
from eagleray.client import runs
from eagleray.state.runs import Run
from k8s.api import Object
from k8s.objects import at

NAME, RUN, ATTEMPT = "eagleray/name", "eagleray/run", "eagleray/attempt"
STORAGE = "eagleray/storage"
QUEUE = "kueue.x-k8s.io/queue-name"
PODS = 1000
"""Most pods of a group that are counted: the limit of a group may be without bound."""
GROUPS = 7
"""Most worker groups of a cluster that Kueue admits."""


@dataclass(frozen=True)
class Options:
    """What a run may change of the skeleton; None leaves it as it is there."""

    cluster: str | None = None  # an existing RayCluster, instead of one of the run's own
    queue: str | None = None  # a LocalQueue of Kueue, which admits the run's cluster as a whole
    priority: str | None = None  # PriorityClass of the cluster's pods
    suspend: bool = False  # create the RayJob, but do not start it
    deadline_s: int | None = None  # seconds that each attempt may take; then there is no retry
    keep_s: int | None = None  # seconds for which the cluster is kept after its end
    retries: int | None = None  # how often a failed driver is started again; it resumes the search


def render(run: Run, number: int, skeleton: Object, options: Options) -> Object:
    """The RayJob of an attempt at a run, in the namespace of the skeleton.

    Raises:
        UserError: storage that no pod can reach, or options that contradict each other.
    """
    if not run.storage.startswith("s3://"):
        raise errors.UserError(
            "storage: must be s3://… for --kubernetes, where pods come and go, but got "
            f"{run.storage}"
        )
    job = copy.deepcopy(skeleton)
    spec, metadata = job["spec"], job["metadata"]
    labels = {NAME: run.name, RUN: run.id, ATTEMPT: str(number)}
    if options.queue:
        labels[QUEUE] = options.queue
    metadata["name"] = runs.attempt_id(run, number)
    metadata["labels"] = {**metadata.get("labels", {}), **labels}
    metadata["annotations"] = {**metadata.get("annotations", {}), STORAGE: run.storage}
    spec["entrypoint"] = runs.entrypoint(run)
    _set(spec, activeDeadlineSeconds=options.deadline_s, backoffLimit=options.retries)
    if options.cluster is not None:
        spec["clusterSelector"] = {"ray.io/cluster": options.cluster}
    if spec.get("clusterSelector"):
        _share_cluster(spec, options)
    else:
        _own_cluster(spec, options)
    return job


def nodes(cluster: Object) -> list[dict[str, float]] | None:
    """The CPUs and GPUs of each pod of a RayClusterSpec at its largest, as KubeRay tells Ray.

    None if a pod may use what its node has.
    """
    groups = [(cluster.get("headGroupSpec", {}), 1)]
    for group in cluster.get("workerGroupSpecs", []):
        pods = int(group.get("maxReplicas", group.get("replicas", 1))) * group.get("numOfHosts", 1)
        groups.append((group, min(pods, PODS)))
    found = [(_node(group), pods) for group, pods in groups]
    known = [node for node, pods in found if node is not None for _ in range(pods)]
    return None if any(node is None for node, _ in found) else known


def _node(group: Object) -> dict[str, float] | None:
    """KubeRay counts what the first container is limited to, unless Ray's options say otherwise."""
    containers = at(group, "template", "spec", "containers")
    container: Object = containers[0] if containers else {}
    limits, options = at(container, "resources", "limits"), at(group, "rayStartParams")
    if "num-cpus" not in options and "cpu" not in limits:
        return None
    cpus = math.ceil(parse_quantity(limits.get("cpu", 0)))
    gpus = sum(float(parse_quantity(n)) for key, n in limits.items() if key.endswith("gpu"))
    return {
        "CPU": float(options.get("num-cpus", cpus)),
        "GPU": float(options.get("num-gpus", gpus)),
    }


def _share_cluster(spec: Object, options: Options) -> None:
    needs_own = {
        "--queue": options.queue,
        "--priority": options.priority,
        "--suspend": options.suspend or None,
        "--keep": options.keep_s,
        "--retries": options.retries or None,
    }
    refused = next((name for name, value in needs_own.items() if value is not None), None)
    if refused:
        raise errors.UserError(
            f"{refused}: needs a cluster of the run's own, but the run goes to an existing one, by "
            "--cluster or the chart's runs.cluster"
        )
    for key in ("rayClusterSpec", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"):
        spec.pop(key, None)
    spec["backoffLimit"] = 0


def _own_cluster(spec: Object, options: Options) -> None:
    if not spec.get("rayClusterSpec"):
        raise errors.UserError("skeleton: must have a rayClusterSpec or a clusterSelector")
    cluster = spec["rayClusterSpec"]
    groups = cluster.get("workerGroupSpecs", [])
    suspend = True if options.suspend or options.queue else None
    _set(spec, ttlSecondsAfterFinished=options.keep_s, suspend=suspend)
    spec["shutdownAfterJobFinishes"] = True
    if options.queue:
        _fix_size(cluster, groups)
    if options.priority:
        for group in (cluster["headGroupSpec"], *groups):
            group["template"]["spec"]["priorityClassName"] = options.priority


def _fix_size(cluster: Object, groups: list[Object]) -> None:
    """Start each group at its most, without scaling: Kueue admits a cluster as a whole."""
    if len(groups) > GROUPS or any(group.get("groupName") == "head" for group in groups):
        raise errors.UserError(
            f"--queue: Kueue takes at most {GROUPS} worker groups, none of them called head, but "
            f"the chart's tuning.workers has {', '.join(group['groupName'] for group in groups)}"
        )
    cluster["enableInTreeAutoscaling"] = False
    cluster.pop("autoscalerOptions", None)
    for group in groups:
        most = group.get("maxReplicas", group.get("replicas", 1))
        group |= {"replicas": most, "minReplicas": most}


def _set(spec: Object, **fields: object) -> None:
    spec |= {key: value for key, value in fields.items() if value is not None}
