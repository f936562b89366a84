"""Runs on Kubernetes: each attempt is a RayJob, for which KubeRay starts a cluster and a driver."""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence

import yaml

from eagleray import errors
from eagleray.client.runs import Attempt, State
from eagleray.state.runs import Run
from k8s import api, rayjob
from k8s import release as releases
from k8s.objects import at, created, labels, name

EXIT_CODE = re.compile(r"exit code (\d+)")
"""The exit code in KubeRay's message about a failed driver."""
POLL_S = 1.0
"""Seconds between polls of a followed run that prints nothing."""

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

    def most(self) -> list[dict[str, float]] | None:
        spec = self._skeleton()["spec"]
        shared = self._options.cluster or at(spec, "clusterSelector").get("ray.io/cluster")
        if shared is None:
            return rayjob.nodes(at(spec, "rayClusterSpec"))
        with contextlib.suppress(errors.EagleRayError):  # it may be hidden from us
            return rayjob.nodes(self._api.get(api.RAYCLUSTERS, shared)["spec"])
        return None

    def plan(self, run: Run, number: int) -> str:
        return yaml.safe_dump(self._rendered(run, number), sort_keys=False, width=1000)

    def start(self, run: Run, number: int) -> None:
        self._api.create(api.RAYJOBS, self._rendered(run, number))

    def log(self, attempt: Attempt, *, follow: bool) -> Iterator[str]:
        """The log of each submitter pod in turn: a retry has one of its own."""
        read = set()
        while True:
            now = attempt_of(self._api.get(api.RAYJOBS, attempt.id))
            pods = self._api.list(api.PODS, f"job-name={attempt.id}")
            latest = max(pods, key=created, default={})
            phase, pod = at(latest, "status").get("phase", "Pending"), name(latest)
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
        release = releases.chosen(known, self._release)
        if not release:
            raise errors.UserError(
                f"--release: must be one of {', '.join(sorted(known))} in {space}, "
                f"but got {self._release or 'none'}"
            )
        try:
            job = yaml.safe_load(known[release]["data"][releases.SKELETON])
            metadata = {**job.get("metadata", {}), "namespace": self._api.namespace}
            return {**job, "metadata": metadata, "spec": {**job["spec"]}}
        except (KeyError, TypeError, AttributeError, yaml.YAMLError) as cause:
            law = f"ConfigMap {name(known[release])}: {releases.SKELETON} must be a RayJob"
            raise errors.UserError(f"{law}, but {cause!r}") from cause


def attempt_of(job: api.Object) -> Attempt | None:
    """The attempt that a RayJob is; None for a RayJob that is not EagleRay's."""
    known, status = labels(job), at(job, "status")
    if not known.get(rayjob.RUN):  # each run of a schedule has only one attempt
        scheduled = _SCHEDULED.fullmatch(at(job, "spec").get("entrypoint", ""))
        if scheduled is None:
            return None
        known = {rayjob.NAME: scheduled[1], rayjob.RUN: name(job), rayjob.ATTEMPT: "1"}
    lines = str(status.get("message") or "").splitlines()[:1]
    exit_code = EXIT_CODE.search("".join(lines))
    reason = status.get("reason") or status.get("jobDeploymentStatus") or ""
    return Attempt(
        id=name(job),
        name=known[rayjob.NAME],
        run=known[rayjob.RUN],
        number=int(known[rayjob.ATTEMPT]),
        state=_state(status),
        why=": ".join(filter(None, [reason, *lines])),
        started=created(job),
        exit_code=int(exit_code[1]) if exit_code else None,
        storage=at(job, "metadata", "annotations").get(rayjob.STORAGE, ""),
    )


def _state(status: api.Object) -> State:
    deployment = status.get("jobDeploymentStatus")
    if deployment == "Complete":
        return _JOBS.get(status.get("jobStatus", ""), "succeeded")
    if deployment == "Running":
        return "running"
    return "failed" if deployment in ("Failed", "ValidationFailed") else "waiting"
