"""The few calls of the Kubernetes API that we need, with errors that say what to do.

Objects are what the API speaks: JSON. The official client knows where the cluster is and who we
are (kubectl's credentials, or those of the pod that this process is in); its typed models are left
alone, since they know no RayJobs.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException

from eagleray import errors

RETRIES = 4
PAUSE_S = 0.5
WATCH_S = 10
"""Seconds after which a watch is begun anew, from what is true then."""
SILENCE_S = (5.0, 30.0)
"""Longest wait for a connection, and for the next byte of an answer."""
BRIEF_S = (3.0, 8.0)
"""The same, for what may as well not answer."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of object as the API's paths name it.

    Attributes:
        version: its group and version, such as `ray.io/v1`, or `v1`.
        plural: its name in paths.
        namespaced: whether each is in a namespace.
    """

    version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str, name: str = "") -> str:
        """Where these objects, or one of them, are."""
        root = f"/api{'s' if '/' in self.version else ''}/{self.version}"
        space = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{root}{space}/{self.plural}{f'/{name}' if name else ''}"


RAYJOBS = Kind("ray.io/v1", "rayjobs")
RAYCLUSTERS = Kind("ray.io/v1", "rayclusters")
RAYSERVICES = Kind("ray.io/v1", "rayservices")
CONFIG_MAPS = Kind("v1", "configmaps")
EVENTS = Kind("v1", "events")
PODS = Kind("v1", "pods")
QUOTAS = Kind("v1", "resourcequotas")
SECRETS = Kind("v1", "secrets")
SERVICES = Kind("v1", "services")
WORKLOADS = Kind("kueue.x-k8s.io/v1beta1", "workloads")
NODES = Kind("v1", "nodes", namespaced=False)


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

    def create(self, kind: Kind, thing: Object) -> None:
        """Create an object; ConflictError when its name is taken."""
        with self._naming("create", kind.plural):
            self._read("POST", kind.path(self.namespace), body=thing)

    def list(self, kind: Kind, selector: str = "", space: str | None = None) -> Sequence[Object]:
        """The objects of a kind with these labels, in another namespace, or in all ("")."""
        path = kind.path(self.namespace if space is None else space).replace("/namespaces//", "/")
        with self._naming("list", kind.plural):
            found = self._read("GET", path, {"labelSelector": selector})
        items: Sequence[Object] = found["items"]
        return items

    def get(self, kind: Kind, name: str) -> Object:
        """One object; NotFoundError when there is none."""
        with self._naming("get", kind.plural):
            return self._read("GET", kind.path(self.namespace, name))

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object, and in the background all that belongs to it."""
        with self._naming("delete", kind.plural):
            self._read(
                "DELETE", kind.path(self.namespace, name), {"propagationPolicy": "Background"}
            )

    def watch(self, kind: Kind, name: str) -> Iterator[Object]:
        """An object as it is and whenever it changes; NotFoundError when it is gone.

        A watch whose place in history has expired (410) is begun anew from a fresh read.
        """
        while True:
            now = self.get(kind, name)
            yield now
            with self._naming("watch", kind.plural):
                try:
                    yield from self._changes(kind, now)
                except ApiException as expired:
                    if expired.status != 410:
                        raise

    def pod_log(self, pod: str, *, follow: bool) -> Iterator[str]:
        """Pieces of a pod's log; with `follow`, until it has ended."""
        path = PODS.path(self.namespace, pod) + "/log"
        with self._naming("get", "pods/log"):
            stream = self._ask("GET", path, {"follow": str(follow).lower()}, silence_s=None)
            for piece in stream.response.stream():
                yield piece.decode(errors="replace")

    def read(self, path: str) -> Object:
        """What the API says at a path of its own, such as `/version`."""
        with self._naming("get", path):
            return self._read("GET", path)

    def text(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        silence_s: tuple[float, float] = SILENCE_S,
    ) -> str:
        """What the API says at a path that answers with text, such as a pod's log so far."""
        with self._naming("get", path):
            answer = self._ask("GET", path, query or {}, silence_s=silence_s)
            return str(answer.read().decode(errors="replace"))

    def answer(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[Object, Mapping[str, str]]:
        """What the API says at a path, and its headers; asked once, with little patience."""
        request = self._client.param_serialize(
            "GET",
            path,
            header_params={"Accept": "application/json", **(headers or {})},
            auth_settings=["BearerToken"],
        )
        with self._naming("get", path):
            found = _good(self._client.call_api(*request, _request_timeout=BRIEF_S))
            return json.loads(found.read()), found.getheaders()

    def _changes(self, kind: Kind, since: Object) -> Iterator[Object]:
        metadata = since["metadata"]
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={metadata['name']}",
            "resourceVersion": metadata.get("resourceVersion", ""),
            "timeoutSeconds": str(WATCH_S),
        }
        silence_s = (SILENCE_S[0], 2.0 * WATCH_S)
        stream = self._ask("GET", kind.path(self.namespace), query, silence_s=silence_s)
        for line in _lines(stream.response.stream()):
            event = json.loads(line)
            if event["type"] == "ERROR":
                said = event["object"]
                raise ApiException(status=said.get("code"), reason=said.get("message"))
            if event["type"] == "DELETED":
                return
            yield event["object"]

    def _read(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Object:
        found: Object = json.loads(self._ask(method, path, query or {}, body=body).read())
        return found

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Any = None,
        silence_s: tuple[float, float] | None = SILENCE_S,
    ) -> Any:
        """Ask, and ask again while the server fails (5xx, or 429)."""
        request = self._client.param_serialize(
            method,
            path,
            query_params=[(name, value) for name, value in query.items() if value],
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        for attempt in range(RETRIES + 1):
            answer = self._client.call_api(*request, _request_timeout=silence_s)
            if answer.status not in (429, 500, 502, 503, 504) or attempt == RETRIES:
                break
            time.sleep(PAUSE_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311
        return _good(answer)

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
        if failure.status == 404 and resource.startswith("ray") and verb in ("create", "list"):
            return errors.UserError(
                f"Kubernetes at {self._host}: must know {resource}, but the KubeRay operator is "
                "not installed"
            )
        if failure.status == 404:
            return errors.NotFoundError(f"{space}: {said or f'no such {resource}'}")
        if failure.status == 409:
            return errors.ConflictError(f"{space}: {said}")
        if failure.status in (400, 403, 413, 422):
            return errors.UserError(f"{space}: {resource} refused: {said}")
        return errors.ClusterError(f"Kubernetes at {self._host}: {failure.status} {said}")


def _good(answer: Any) -> Any:
    if 200 <= answer.status <= 299:
        return answer
    text = answer.read().decode(errors="replace")
    raise ApiException(status=answer.status, reason=answer.reason, body=text)


def _configure(settings: client.Configuration) -> str:
    """Fill in where the cluster is and who we are; give the namespace to be in."""
    file = os.environ.get("KUBECONFIG")  # the client reads it when it is imported, once for all
    try:
        config.load_kube_config(file, client_configuration=settings)
    except ConfigException:
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise
        config.load_incluster_config(settings)
        return _own_namespace()
    _, current = config.list_kube_config_contexts(file)
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


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a stream that comes in pieces."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from filter(None, whole)
