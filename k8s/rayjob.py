"""A run as a RayJob: pure, from the skeleton that the chart keeps in a ConfigMap.

The skeleton has what is the same for all runs of a release: image, service account, secrets,
resources, tolerations, the shape of the cluster. The laws of others about RayJobs are kept here,
where they can be explained:

- KubeRay, ray-operator/controllers/ray/utils/validation.go, `ValidateRayJobSpec`: only a RayJob
  that ends its cluster (`shutdownAfterJobFinishes`) may be suspended, or keep it for a while
  (`ttlSecondsAfterFinished`); none with a `clusterSelector` may be suspended; a deadline is
  positive; names have 47 letters at most.
- rayjob_controller.go, `checkBackoffLimitAndUpdateStatusIfNeeded`: each failure is tried again, but
  for a deadline that has passed; there is no exit code that would end it. A retry is a new cluster:
  the old one is deleted. Before kuberay#4527 that was so for a cluster chosen by `clusterSelector`
  too, however many used it; since then, such a RayJob with a `backoffLimit` is refused.
- rayjob_controller.go, `initRayJobStatusIfNeed`: each retry starts the deadline's clock anew.
- Kueue, pkg/controller/jobs/rayjob and raycluster: the cluster is the job's own and ends with it,
  does not scale by itself, has 7 worker groups at most, and none that is called `head`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pydantic

from eagleray import errors
from eagleray.client import runs
from eagleray.state.runs import Run

API_VERSION = "ray.io/v1"
NAME, RUN, ATTEMPT = "eagleray/name", "eagleray/run", "eagleray/attempt"
STORAGE = "eagleray/storage"
QUEUE = "kueue.x-k8s.io/queue-name"
GROUPS = 7
"""Most worker groups of a cluster that Kueue admits."""


class Metadata(pydantic.BaseModel, extra="allow"):
    """What a RayJob is called, and found by."""

    name: str | None = None
    namespace: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Spec(pydantic.BaseModel, extra="allow"):
    """The keys of a RayJobSpec that are filled in; what else the skeleton has is passed on."""

    entrypoint: str | None = None
    clusterSelector: dict[str, str] | None = None  # noqa: N815 (named by KubeRay, as those below)
    rayClusterSpec: dict[str, Any] | None = None  # noqa: N815
    shutdownAfterJobFinishes: bool | None = None  # noqa: N815
    ttlSecondsAfterFinished: int | None = None  # noqa: N815
    activeDeadlineSeconds: int | None = None  # noqa: N815
    backoffLimit: int | None = None  # noqa: N815
    suspend: bool | None = None


class RayJob(pydantic.BaseModel):
    """https://github.com/ray-project/kuberay, apis/ray/v1/rayjob_types.go."""

    apiVersion: str = API_VERSION  # noqa: N815
    kind: str = "RayJob"
    metadata: Metadata
    spec: Spec

    def manifest(self) -> dict[str, Any]:
        """The object as the API takes it."""
        return self.model_dump(exclude_none=True)


@dataclass(frozen=True)
class Options:
    """What a run may ask for beyond the skeleton; None leaves it as it is there.

    Attributes:
        cluster: an existing RayCluster to run on, instead of one of the run's own.
        queue: a LocalQueue of Kueue, which admits the run's cluster as a whole.
        priority: PriorityClass of the cluster's pods.
        suspend: create it, but do not start it.
        deadline_s: seconds after which it is ended, and not tried again; each retry has as many.
        keep_s: seconds for which its cluster is kept after its end.
        retries: how often a driver that failed is started again; it goes on where it was.
    """

    cluster: str | None = None
    queue: str | None = None
    priority: str | None = None
    suspend: bool = False
    deadline_s: int | None = None
    keep_s: int | None = None
    retries: int | None = None


def render(run: Run, number: int, skeleton: RayJob, options: Options) -> RayJob:
    """The RayJob of an attempt at a run, in the namespace of the skeleton.

    Raises:
        UserError: storage that no pod can reach, or options that contradict each other.
    """
    if not run.storage.startswith("s3://"):
        raise errors.UserError(
            "storage: must be s3://… for --kubernetes, where pods come and go, but got "
            f"{run.storage}"
        )
    spec = skeleton.spec.model_copy(deep=True)
    spec.entrypoint = runs.entrypoint(run)
    spec.activeDeadlineSeconds = _given(options.deadline_s, spec.activeDeadlineSeconds)
    spec.backoffLimit = _given(options.retries, spec.backoffLimit)
    labels = {NAME: run.name, RUN: run.id, ATTEMPT: str(number)}
    if options.cluster is not None:
        spec.clusterSelector, spec.rayClusterSpec = {"ray.io/cluster": options.cluster}, None
    if spec.clusterSelector:
        _check_shared(options)
        spec.shutdownAfterJobFinishes = spec.ttlSecondsAfterFinished = None
        spec.backoffLimit = 0
    else:
        _fill_cluster(spec, options)
        labels |= {QUEUE: options.queue} if options.queue else {}
    metadata = skeleton.metadata.model_copy(
        update={
            "name": runs.attempt_id(run, number),
            "labels": {**skeleton.metadata.labels, **labels},
            "annotations": {**skeleton.metadata.annotations, STORAGE: run.storage},
        }
    )
    return RayJob(metadata=metadata, spec=spec)


def _fill_cluster(spec: Spec, options: Options) -> None:
    """A cluster of the run's own, which is ended with it."""
    if spec.rayClusterSpec is None:
        raise errors.UserError("skeleton: must have a rayClusterSpec or a clusterSelector")
    spec.shutdownAfterJobFinishes = True
    spec.ttlSecondsAfterFinished = _given(options.keep_s, spec.ttlSecondsAfterFinished)
    spec.suspend = True if options.suspend or options.queue else spec.suspend
    if options.queue:
        _fix_size(spec.rayClusterSpec)
    if options.priority:
        for template in _pod_templates(spec.rayClusterSpec):
            template["spec"]["priorityClassName"] = options.priority


def _fix_size(cluster: dict[str, Any]) -> None:
    """Kueue admits a cluster as a whole, so each group starts at its most and nothing scales."""
    groups = cluster.get("workerGroupSpecs", [])
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


def _pod_templates(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield cluster["headGroupSpec"]["template"]
    for group in cluster.get("workerGroupSpecs", []):
        yield group["template"]


def _check_shared(options: Options) -> None:
    """A cluster that was there before keeps its pods, its size and its life."""
    asked = {
        "--queue": options.queue,
        "--priority": options.priority,
        "--suspend": options.suspend or None,
        "--keep": options.keep_s,
        "--retries": options.retries or None,
    }
    refused = next((name for name, value in asked.items() if value is not None), None)
    if refused:
        raise errors.UserError(
            f"{refused}: needs a cluster of the run's own, but the run goes to one that is there "
            "already, by --cluster or the chart's runs.cluster"
        )


def _given(option: int | None, otherwise: int | None) -> int | None:
    return otherwise if option is None else option
