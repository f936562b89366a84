"""Runs on Kubernetes: each attempt is a RayJob, for which KubeRay starts a cluster and a driver."""

import re
import time
from collections.abc import Iterator, Sequence

import yaml

from eagleray import errors
from eagleray.client.runs import Attempt, State
from eagleray.state.runs import Run
from k8s import api, rayjob
from k8s import release as releases

EXIT_CODE = re.compile(r"exit code (\d+)")
"""The exit code in KubeRay's message about a failed driver."""
POLL_S = 1.0
"""Seconds between polls of a followed run that prints nothing."""

_DEPLOYMENTS: dict[str, State] = {
    "Running": "running",
    "Failed": "failed",
    "ValidationFailed": "failed",
}
_JOBS: dict[str, State] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}
_SCHEDULED = re.compile(r"eagleray run /experiments/([a-z0-9-]+)\.yaml")
"""What the chart's schedules run; the RayJobs of a RayCronJob carry no labels of EagleRay."""


class Kubernetes:
    """The RayJobs of a namespace (default: kubectl's), made from the skeleton of a release."""

    def __init__(
        self,
        namespace: str | None = None,
        options: rayjob.Options | None = None,
        release: str | None = None,
    ) -> None:
        self._api = api.Api(namespace)
        self._options, self._release = options or rayjob.Options(), release
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
        while True:
            now = attempt_of(self._api.get(api.RAYJOBS, attempt.id))
            pod, phase = self._submitter(attempt.id) or ("", "Pending")
            if phase != "Pending" and pod not in read:
                read.add(pod)
                yield from self._api.pod_log(pod, follow=follow)
            if not (follow and now and now.active):
                return
            time.sleep(POLL_S)

    def stop(self, attempt: Attempt) -> None:
        """Delete the RayJob, its cluster and its pods; the search's records are in storage."""
        self._api.delete(api.RAYJOBS, attempt.id)

    def tunnel(self) -> str | None:
        """Shell commands for a tunnel to the release's S3; None if it is not in the cluster."""
        return releases.tunnel(self._skeleton(), self._api.namespace)

    def _submitter(self, job: str) -> tuple[str, str] | None:
        """Name and phase of the newest pod that submits a RayJob's driver and prints its log."""
        pods = self._api.list(api.PODS, f"job-name={job}")
        if not pods:
            return None
        latest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
        return latest["metadata"]["name"], latest.get("status", {}).get("phase", "Pending")

    def _rendered(self, run: Run, number: int) -> api.Object:
        return rayjob.render(run, number, self._skeleton(), self._options)

    def _skeleton(self) -> api.Object:
        known = releases.skeletons(self._api.list(api.CONFIG_MAPS, releases.SKELETONS))
        space = f"namespace {self._api.namespace}"
        if not known:
            raise errors.UserError(
                f"{space}: must have a release of the chart, but has none; install it with: "
                "helm install eagleray helm/eagleray"
            )
        release = self._release or (next(iter(known)) if len(known) == 1 else None)
        if release not in known:
            raise errors.UserError(
                f"--release: must be one of {', '.join(sorted(known))} in {space}, "
                f"but got {release or 'none'}"
            )
        try:
            job = yaml.safe_load(known[release]["data"][releases.SKELETON])
            metadata = {**job.get("metadata", {}), "namespace": self._api.namespace}
            return {**job, "metadata": metadata, "spec": {**job["spec"]}}
        except (KeyError, TypeError, AttributeError, yaml.YAMLError) as cause:
            name = known[release]["metadata"]["name"]
            raise errors.UserError(
                f"ConfigMap {name}: {releases.SKELETON} must be a RayJob, but {cause!r}"
            ) from cause


def attempt_of(job: api.Object) -> Attempt | None:
    """The attempt that a RayJob is; None for a RayJob that is not EagleRay's."""
    identity = _identity(job)
    if identity is None:
        return None
    name, run, number = identity
    status, metadata = job.get("status") or {}, job["metadata"]
    lines = str(status.get("message") or "").splitlines()[:1]
    exit_code = EXIT_CODE.search("".join(lines))
    reason = status.get("reason") or status.get("jobDeploymentStatus") or ""
    return Attempt(
        id=metadata["name"],
        name=name,
        run=run,
        number=number,
        state=_state(status),
        why=": ".join(filter(None, [reason, *lines])),
        started=metadata.get("creationTimestamp", ""),
        exit_code=int(exit_code[1]) if exit_code else None,
        storage=metadata.get("annotations", {}).get(rayjob.STORAGE, ""),
    )


def _identity(job: api.Object) -> tuple[str, str, int] | None:
    """Experiment, run and number of an attempt; each run of a schedule has only one attempt."""
    labels = job["metadata"].get("labels") or {}
    if rayjob.RUN in labels:
        return labels[rayjob.NAME], labels[rayjob.RUN], int(labels[rayjob.ATTEMPT])
    scheduled = _SCHEDULED.fullmatch(job.get("spec", {}).get("entrypoint", ""))
    return (scheduled[1], job["metadata"]["name"], 1) if scheduled else None


def _state(status: api.Object) -> State:
    deployment = status.get("jobDeploymentStatus", "")
    if deployment == "Complete":
        return _JOBS.get(status.get("jobStatus", ""), "succeeded")
    return _DEPLOYMENTS.get(deployment, "waiting")
