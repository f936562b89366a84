"""The calls of the Kubernetes API that EagleRay makes, with errors that say what to do.

Objects are JSON. The official client finds the cluster and the credentials: kubectl's, or those of
the pod that this process runs in. Its typed models are not used, since they know no RayJobs.
"""

import codecs
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
SILENCE_S = (5.0, 30.0)
"""Longest wait for a connection, and for the next byte of an answer."""
BRIEF_S = (3.0, 8.0)
"""The same for requests that the caller can do without; they are not repeated."""

Object = dict[str, Any]
Headers = Mapping[str, str]
Silence = tuple[float, float]

JSON = "application/json"
_METHODS = {"create": "POST", "delete": "DELETE"}


@dataclass(frozen=True)
class Kind:
    """A kind of object as the API's paths name it: `ray.io/v1` and `rayjobs`, `v1` and `pods`."""

    version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str, name: str = "") -> str:
        """The path of one object, or of all; namespace "" stands for all namespaces."""
        root = f"/api{'s' if '/' in self.version else ''}/{self.version}"
        space = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
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
    """One namespace of a cluster; UserError when no cluster is configured."""

    def __init__(self, namespace: str | None = None) -> None:
        settings = client.Configuration()
        try:
            current = _configure(settings)
        except (ConfigException, OSError) as cause:
            raise errors.UserError(
                f"--kubernetes: needs a cluster, from KUBECONFIG or ~/.kube/config, but {cause}"
            ) from cause
        settings.retries = False
        self.namespace = namespace or current
        self._host = settings.host
        self._client = client.ApiClient(settings)

    def create(self, kind: Kind, thing: Object) -> None:
        """Create an object; ConflictError when its name is taken."""
        self._call("create", kind, kind.path(self.namespace), body=thing)

    def list(self, kind: Kind, selector: str = "", space: str | None = None) -> Sequence[Object]:
        """List the objects of a kind with these labels, in namespace `space` ("": in all)."""
        path = kind.path(self.namespace if space is None else space)
        items: Sequence[Object] = self._call("list", kind, path, labelSelector=selector)["items"]
        return items

    def get(self, kind: Kind, name: str) -> Object:
        """One object; NotFoundError when there is none."""
        return self._call("get", kind, kind.path(self.namespace, name))

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object, and in the background all that belongs to it."""
        path = kind.path(self.namespace, name)
        self._call("delete", kind, path, propagationPolicy="Background")

    def pod_log(self, pod: str, *, follow: bool) -> Iterator[str]:
        """Pieces of a pod's log; with `follow`, until the pod has ended."""
        path = PODS.path(self.namespace, pod) + "/log"
        with self._translating("get", "pods/log"):
            log = self._ask("GET", path, {"follow": str(follow).lower()}, silence_s=None)
            yield from codecs.iterdecode(log.response.stream(), "utf-8", errors="replace")

    def text(self, path: str, *, silence_s: Silence = SILENCE_S, **query: str) -> str:
        with self._translating("get", path):
            answer = self._ask("GET", path, query, silence_s=silence_s)
            return str(answer.read().decode(errors="replace"))

    def json(self, path: str) -> Object:
        """The JSON at a path, such as `/version`."""
        found: Object = json.loads(self.text(path))
        return found

    def json_once(self, path: str, headers: Headers | None = None) -> tuple[Object, Headers]:
        """The JSON at a path and its headers; asked once, with the limits `BRIEF_S`."""
        with self._translating("get", path):
            answer = self._ask("GET", path, silence_s=BRIEF_S, headers=headers)
            return json.loads(answer.read()), answer.getheaders()

    def _call(
        self, verb: str, kind: Kind, path: str, *, body: Object | None = None, **query: str
    ) -> Object:
        with self._translating(verb, kind.plural):
            answer = self._ask(_METHODS.get(verb, "GET"), path, query, body=body)
            found: Object = json.loads(answer.read())
            return found

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        silence_s: Silence | None = SILENCE_S,
        headers: Headers | None = None,
        body: Object | None = None,
    ) -> Any:
        request = self._client.param_serialize(
            method,
            path,
            query_params=[(name, value) for name, value in (query or {}).items() if value],
            header_params={"Accept": JSON, "Content-Type": JSON, **(headers or {})},
            body=body,
            auth_settings=["BearerToken"],
        )
        retries = 0 if silence_s == BRIEF_S else RETRIES
        for attempt in range(retries + 1):
            answer = self._client.call_api(*request, _request_timeout=silence_s)
            if answer.status not in (429, 500, 502, 503, 504) or attempt == retries:
                break
            time.sleep(PAUSE_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311
        if 200 <= answer.status <= 299:
            return answer
        text = answer.read().decode(errors="replace")
        raise ApiException(status=answer.status, reason=answer.reason, body=text)

    @contextmanager
    def _translating(self, verb: str, resource: str) -> Iterator[None]:
        """Turn the client's errors into ours, which name the cluster and the fix."""
        try:
            yield
        except ApiException as cause:
            raise self._translated(cause, verb, resource) from cause
        except urllib3.exceptions.HTTPError as cause:
            raise errors.ClusterError(
                f"Kubernetes at {self._host}: does not answer any more ({type(cause).__name__}); "
                "runs go on without this terminal"
            ) from cause

    def _translated(self, failure: ApiException, verb: str, resource: str) -> errors.EagleRayError:
        host, space = f"Kubernetes at {self._host}", f"namespace {self.namespace}"
        status, message = failure.status, _message(failure)
        if status == 401:
            return errors.UserError(f"{host}: rejected the credentials (401); log in again")
        if status == 403 and "exceeded quota" not in message:
            return errors.UserError(
                f"{space}: the right to {verb} {resource} is missing; an administrator grants it "
                "by the chart's value rbac.submitters"
            )
        if status == 404 and resource.startswith("ray") and verb in ("create", "list"):
            return errors.UserError(
                f"{host}: must know {resource}, but the KubeRay operator is not installed"
            )
        if status == 404:
            return errors.NotFoundError(f"{space}: {message or f'no such {resource}'}")
        if status == 409:
            return errors.ConflictError(f"{space}: {message}")
        if status in (400, 403, 413, 422):
            return errors.UserError(f"{space}: {resource} refused: {message}")
        return errors.ClusterError(f"{host}: {status} {message}")


def _configure(settings: client.Configuration) -> str:
    """Fill in the address and the credentials of the cluster; return the current namespace."""
    file = os.environ.get("KUBECONFIG")  # the client reads it only once, when it is imported
    try:
        config.load_kube_config(file, client_configuration=settings)
    except ConfigException:
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise
        config.load_incluster_config(settings)
        return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text()
    _, current = config.list_kube_config_contexts(file)
    return str(current["context"].get("namespace", "default"))


def _message(failure: ApiException) -> str:
    try:
        return str(json.loads(failure.body or "")["message"])
    except (KeyError, TypeError, ValueError):
        return str(failure.reason or "")
