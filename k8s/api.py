"""The few calls of the Kubernetes API that runs need, with errors that say what to do.

Credentials are those of kubectl, or of the pod that this process is in.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException

from eagleray import errors

GROUP, VERSION, RAYJOBS = "ray.io", "v1", "rayjobs"
RETRIES = 4
PAUSE_S = 0.5
WATCH_S = 10
"""Seconds after which a watch is begun anew, from what is true then."""

Object = dict[str, Any]


class Api:
    """One namespace of a cluster.

    Raises:
        UserError: no cluster is configured.
    """

    def __init__(self, namespace: str | None = None) -> None:
        settings = client.Configuration()
        try:
            current = _configure(settings)
        except (ConfigException, OSError) as cause:
            raise errors.UserError(
                f"--kubernetes: must know a cluster, from KUBECONFIG or ~/.kube/config, but {cause}"
            ) from cause
        settings.retries = False
        self.namespace = namespace or current
        self._host = settings.host
        self._client = client.ApiClient(settings)
        self._objects = client.CustomObjectsApi(self._client)
        self._core = client.CoreV1Api(self._client)

    def create(self, job: Object) -> None:
        """Create a RayJob; ConflictError when its name is taken."""
        self._ask(
            "create",
            RAYJOBS,
            lambda: self._objects.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, RAYJOBS, job
            ),
        )

    def list(self, selector: str) -> Sequence[Object]:
        """The RayJobs with these labels."""
        found: Object = self._ask(
            "list",
            RAYJOBS,
            lambda: self._objects.list_namespaced_custom_object(
                GROUP, VERSION, self.namespace, RAYJOBS, label_selector=selector
            ),
        )
        items: Sequence[Object] = found["items"]
        return items

    def get(self, name: str) -> Object:
        """One RayJob; NotFoundError when there is none."""
        found: Object = self._ask(
            "get",
            RAYJOBS,
            lambda: self._objects.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, RAYJOBS, name
            ),
        )
        return found

    def delete(self, name: str) -> None:
        """Delete a RayJob and all that belongs to it."""
        self._ask(
            "delete",
            RAYJOBS,
            lambda: self._objects.delete_namespaced_custom_object(
                GROUP, VERSION, self.namespace, RAYJOBS, name, propagation_policy="Background"
            ),
        )

    def watch(self, name: str) -> Iterator[Object]:
        """A RayJob as it is and whenever it changes; NotFoundError when it is gone.

        A watch whose place in history has expired (410) is begun anew from a fresh read.
        """
        while True:
            job = self.get(name)
            yield job
            with self._naming("watch", RAYJOBS):
                try:
                    yield from self._changes(job)
                except ApiException as expired:
                    if expired.status != 410:
                        raise

    def skeletons(self) -> Sequence[Object]:
        """The ConfigMaps in which charts keep their RayJobs to be filled in."""
        return self._core_objects(
            "configmaps", self._core.list_namespaced_config_map, "eagleray/skeleton=rayjob"
        )

    def submitter(self, name: str) -> tuple[str, str] | None:
        """Name and phase of the newest pod that submits a RayJob's driver and prints its log."""
        pods = self._core_objects("pods", self._core.list_namespaced_pod, f"job-name={name}")
        if not pods:
            return None
        latest = max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
        return latest["metadata"]["name"], latest.get("status", {}).get("phase", "Pending")

    def pod_log(self, pod: str, *, follow: bool) -> Iterator[str]:
        """Pieces of a pod's log; with `follow`, until it has ended."""
        stream: Any = self._ask(
            "get",
            "pods/log",
            lambda: self._core.read_namespaced_pod_log(
                pod, self.namespace, follow=follow, _preload_content=False
            ),
        )
        with self._naming("get", "pods/log"):
            for piece in stream.stream():
                yield piece.decode(errors="replace")

    def _core_objects(
        self, resource: str, call: Callable[..., object], selector: str
    ) -> Sequence[Object]:
        found = self._ask("list", resource, lambda: call(self.namespace, label_selector=selector))
        listed: Object = self._client.sanitize_for_serialization(found)  # type: ignore[no-untyped-call]
        items: Sequence[Object] = listed["items"]
        return items

    def _changes(self, job: Object) -> Iterator[Object]:
        metadata = job["metadata"]
        events = watch.Watch().stream(  # type: ignore[no-untyped-call]
            self._objects.list_namespaced_custom_object,
            GROUP,
            VERSION,
            self.namespace,
            RAYJOBS,
            field_selector=f"metadata.name={metadata['name']}",
            resource_version=metadata.get("resourceVersion"),
            timeout_seconds=WATCH_S,
            _request_timeout=(5, 2 * WATCH_S),
        )
        for event in events:
            if event["type"] in ("ADDED", "MODIFIED"):
                yield event["object"]
            if event["type"] == "DELETED":
                return

    def _ask(self, verb: str, resource: str, call: Callable[[], Any]) -> Any:
        """Call, and call again while the server fails (5xx, or 429)."""
        with self._naming(verb, resource):
            for attempt in range(RETRIES):
                try:
                    return call()
                except ApiException as failure:
                    if failure.status not in (429, 500, 502, 503, 504):
                        raise
                    time.sleep(PAUSE_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311
            return call()

    @contextmanager
    def _naming(self, verb: str, resource: str) -> Iterator[None]:
        """Name the cluster in whatever goes wrong there, and say what mends it."""
        try:
            yield
        except ApiException as cause:
            raise self._explained(cause, verb, resource) from cause
        except urllib3.exceptions.HTTPError as cause:
            raise errors.ClusterError(
                f"Kubernetes at {self._host}: does not answer any more ({type(cause).__name__}); "
                "runs go on without us"
            ) from cause

    def _explained(self, failure: ApiException, verb: str, resource: str) -> errors.EagleRayError:
        said, space = _message(failure), f"namespace {self.namespace}"
        if failure.status == 401:
            return errors.UserError(
                f"Kubernetes at {self._host}: must know who we are, but does not; log in again"
            )
        if failure.status == 403 and "exceeded quota" not in said:
            return errors.UserError(
                f"{space}: the right to {verb} {resource} is missing; an administrator grants it "
                "by the chart's value rbac.submitters"
            )
        if failure.status == 404 and resource == RAYJOBS and verb in ("create", "list"):
            return errors.UserError(
                f"Kubernetes at {self._host}: must know RayJobs, but the KubeRay operator is not "
                "installed"
            )
        if failure.status == 404:
            return errors.NotFoundError(f"{space}: {said or f'no such {resource}'}")
        if failure.status == 409:
            return errors.ConflictError(f"{space}: {said}")
        if failure.status in (400, 403, 413, 422):
            return errors.UserError(f"{space}: {resource} refused: {said}")
        return errors.ClusterError(f"Kubernetes at {self._host}: {failure.status} {said}")


def _configure(settings: client.Configuration) -> str:
    """Fill in where the cluster is and who we are; give the namespace to be in."""
    file = os.environ.get("KUBECONFIG")  # the client reads it when it is imported, once for all
    try:
        config.load_kube_config(file, client_configuration=settings)  # type: ignore[no-untyped-call]
    except ConfigException:
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise
        config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
        return _own_namespace()
    _, current = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
    return str(current["context"].get("namespace", "default"))


def _own_namespace() -> str:
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text()


def _message(failure: ApiException) -> str:
    """What the server said, from the Status object it answers with."""
    try:
        status = json.loads(failure.body or "")
    except (TypeError, ValueError):
        return str(failure.reason or "")
    return str(status.get("message", "")) if isinstance(status, dict) else ""
