"""Runs on Kubernetes: each attempt is a RayJob, which KubeRay gives a cluster and a driver."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from eagleray import errors
from eagleray.client.runs import Attempt, State
from eagleray.state.runs import Run
from k8s import api, rayjob
from k8s import release as releases

_DEPLOYMENTS: dict[str, State] = {
    "Running": "running",
    "Failed": "failed",
    "ValidationFailed": "failed",
}
_JOBS: dict[str, State] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}
_SCHEDULED = re.compile(r"eagleray run /experiments/([a-z0-9-]+)\.yaml")
"""What the chart's schedules run, whoever makes their RayJobs; a RayCronJob labels them its way."""
_EXIT = re.compile(r"exit code (\d+)")


class Kubernetes:
    """The RayJobs of a namespace, made from the skeleton of the release installed there.

    Args:
        namespace: else that of kubectl's current context.
        options: what runs ask for beyond the skeleton.
        release: whose skeleton, where the namespace has several releases.
    """

    def __init__(
        self,
        namespace: str | None = None,
        options: rayjob.Options | None = None,
        release: str | None = None,
    ) -> None:
        self._api = api.Api(namespace)
        self._asked, self._release = options or rayjob.Options(), release
        self.options = f"--kubernetes --namespace {self._api.namespace}"

    def attempts(self) -> Sequence[Attempt]:
        found = (attempt_of(job) for job in self._api.list(api.RAYJOBS))
        return [one for one in found if one is not None]

    def plan(self, run: Run, number: int) -> str:
        return yaml.safe_dump(self._rendered(run, number), sort_keys=False, width=1000)

    def start(self, run: Run, number: int) -> None:
        self._api.create(api.RAYJOBS, self._rendered(run, number))

    def log(self, attempt: Attempt, *, follow: bool) -> Iterator[str]:
        """The log of each submitter pod in turn: a retry has one of its own."""
        read = set()
        for job in self._api.watch(api.RAYJOBS, attempt.id):
            pod, phase = self._submitter(attempt.id) or ("", "Pending")
            if phase != "Pending" and pod not in read:
                read.add(pod)
                yield from self._api.pod_log(pod, follow=follow)
            now = attempt_of(job)
            if not (follow and now and now.active):
                return

    def stop(self, attempt: Attempt) -> None:
        """Delete the RayJob, its cluster and its pods; what the search has found is in storage."""
        self._api.delete(api.RAYJOBS, attempt.id)

    def tunnel(self) -> str | None:
        """The commands that lead from here to the S3 of the release; None when it is elsewhere."""
        return releases.tunnel(self._skeleton().model_dump(), self._api.namespace)

    def _submitter(self, job: str) -> tuple[str, str] | None:
        """Name and phase of the newest pod that submits a RayJob's driver and prints its log."""
        pods = self._api.list(api.PODS, f"job-name={job}")
        if not pods:
            return None
        latest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
        return latest["metadata"]["name"], latest.get("status", {}).get("phase", "Pending")

    def _rendered(self, run: Run, number: int) -> dict[str, Any]:
        return rayjob.render(run, number, self._skeleton(), self._asked).manifest()

    def _skeleton(self) -> rayjob.RayJob:
        found = releases.skeletons(self._api)
        space = f"namespace {self._api.namespace}"
        if not found:
            raise errors.UserError(
                f"{space}: must have a release of the chart, but has none; install it with: "
                "helm install eagleray helm/eagleray"
            )
        release = self._release or (next(iter(found)) if len(found) == 1 else None)
        if release not in found:
            raise errors.UserError(
                f"--release: must be one of {', '.join(sorted(found))} in {space}, "
                f"but got {release or 'none'}"
            )
        job = _read(found[release])
        return job.model_copy(
            update={"metadata": job.metadata.model_copy(update={"namespace": self._api.namespace})}
        )


def _read(skeleton: dict[str, Any]) -> rayjob.RayJob:
    try:
        return rayjob.RayJob.model_validate(yaml.safe_load(skeleton["data"]["rayjob.yaml"]))
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as cause:
        name = skeleton["metadata"]["name"]
        raise errors.UserError(
            f"ConfigMap {name}: rayjob.yaml must be a RayJob, but {cause!r}"
        ) from cause


def attempt_of(job: dict[str, Any]) -> Attempt | None:
    """The attempt that a RayJob is; None for a RayJob that is not ours."""
    status = job.get("status") or {}
    called = _called(job)
    if called is None:
        return None
    lines = str(status.get("message") or "").splitlines()
    exit_code = _EXIT.search(lines[0]) if lines else None
    reason = status.get("reason") or status.get("jobDeploymentStatus") or ""
    return Attempt(
        id=job["metadata"]["name"],
        name=called[0],
        run=called[1],
        number=called[2],
        state=_state(status),
        why=": ".join(filter(None, [reason, *lines[:1]])),
        started=job["metadata"].get("creationTimestamp", ""),
        exit_code=int(exit_code[1]) if exit_code else None,
        storage=job["metadata"].get("annotations", {}).get(rayjob.STORAGE, ""),
    )


def _called(job: dict[str, Any]) -> tuple[str, str, int] | None:
    """Experiment, run and number of an attempt; each run of a schedule has but one attempt."""
    labels = job["metadata"].get("labels") or {}
    if rayjob.RUN in labels:
        return labels[rayjob.NAME], labels[rayjob.RUN], int(labels[rayjob.ATTEMPT])
    scheduled = _SCHEDULED.fullmatch(job.get("spec", {}).get("entrypoint", ""))
    return (scheduled[1], job["metadata"]["name"], 1) if scheduled else None


def _state(status: dict[str, Any]) -> State:
    """KubeRay keeps a state of the deployment, and inside it one of the Ray job."""
    deployment = status.get("jobDeploymentStatus", "")
    if deployment == "Complete":
        return _JOBS.get(status.get("jobStatus", ""), "succeeded")
    return _DEPLOYMENTS.get(deployment, "waiting")
