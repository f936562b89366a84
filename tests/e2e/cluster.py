"""What the steps ask of a cluster, and what must be true of it before the first one."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from eagleray import errors
from k8s import api
from k8s.diagnose import definitions
from tests.e2e.settings import Settings

NAMESPACES = api.Kind("v1", "namespaces", namespaced=False)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
INSTANCE = "app.kubernetes.io/instance"
LABELS = {
    "instance": INSTANCE,
    "component": "app.kubernetes.io/component",
    "role": "eagleray/role",
    "cluster": "ray.io/cluster",
    "client": "eagleray/e2e",
}
IGNORED = ("events",)
"""Kinds that stay by themselves for a while and belong to nobody."""

Object = dict[str, Any]


def check(settings: Settings) -> None:
    """That there is a cluster, that it answers, and that it has the operator.

    Raises:
        EagleRayError: one line that says what is needed.
    """
    try:
        there = api.Api(settings.namespace)
    except errors.UserError as cause:
        raise errors.UserError(
            f"make e2e: needs a cluster, from KUBECONFIG or ~/.kube/config, but "
            f"{' '.join(str(cause).partition('but ')[2].split())}"
        ) from cause
    there.json("/version")
    try:
        there.json("/apis/ray.io/v1")
    except errors.NotFoundError as cause:
        raise errors.UserError(
            f"make e2e: needs the KubeRay operator, but the cluster does not know ray.io/v1; "
            f"install it: {definitions.install(gated=True)}"
        ) from cause


class Cluster:
    """A namespace, with a few questions that several steps ask."""

    def __init__(self, namespace: str) -> None:
        self.api = api.Api(namespace)
        self.namespace = namespace

    def make_namespace(self) -> bool:
        """Make it, under Pod Security `restricted`; whether it was absent."""
        try:
            self.api.get(NAMESPACES, self.namespace)
        except errors.NotFoundError:
            self.api.create(NAMESPACES, fresh(self.namespace))
            return True
        except errors.UserError:  # no right to look: then it is somebody's, and there
            pass
        return False

    def pods(self, **labels: str) -> list[Object]:
        """The pods with these labels that are not on their way out."""
        selector = ",".join(f"{LABELS[key]}={value}" for key, value in labels.items())
        found = self.api.list(api.PODS, selector)
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def delete(self, kind: api.Kind, name: str) -> None:
        """Delete an object; fine when it is gone."""
        with contextlib.suppress(errors.NotFoundError):
            self.api.delete(kind, name)

    def gone(self, kind: api.Kind, name: str) -> str:
        """What is still missing until an object is no more."""
        try:
            self.api.get(kind, name)
        except errors.NotFoundError:
            return ""
        return f"the end of {kind.plural} {name}"

    def log(self, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        """The last lines of a container's log; why there are none, otherwise."""
        try:
            answer: Any = core().read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                tail_lines=lines,
                previous=previous,
                _preload_content=False,  # the bytes: the client would guess at their type
                _request_timeout=api.SILENCE_S,
            )
        except (ApiException, urllib3.exceptions.HTTPError) as failure:
            return f"(no log: {getattr(failure, 'reason', None) or type(failure).__name__})"
        return str(answer.data.decode(errors="replace"))

    def leftovers(self, release: str) -> list[str]:
        """Every object in the namespace that has the release's label, or its name in front."""
        found = set()
        for kind in self._kinds():
            with contextlib.suppress(errors.EagleRayError):  # kinds that we may not list
                left = [one for one in self.api.list(kind) if belongs(one, release)]
                found |= {f"{kind.plural}/{name}" for name in names(left)}
        return sorted(found)

    def _kinds(self) -> Iterator[api.Kind]:
        """Every kind of the cluster that lives in namespaces and can be deleted."""
        groups = [one["preferredVersion"]["groupVersion"] for one in self._read("/apis", "groups")]
        for version in ("v1", *groups):
            root = f"/api{'s' if '/' in version else ''}/{version}"
            for found in self._read(root, "resources"):
                name, verbs = found["name"], found.get("verbs", ())
                listed = {"list", "delete"} <= set(verbs) and "/" not in name
                if found.get("namespaced") and listed and name not in IGNORED:
                    yield api.Kind(version, name)

    def _read(self, path: str, key: str) -> list[Object]:
        try:
            found: list[Object] = self.api.json(path).get(key) or []
        except errors.EagleRayError:  # an aggregated API whose server is away
            return []
        return found


def fresh(name: str) -> Object:
    """A namespace that takes only pods without any privilege."""
    metadata = {"name": name, "labels": RESTRICTED}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def core() -> client.CoreV1Api:
    """The typed API, which has logs and streams; one each, for streams change their client."""
    found = client.Configuration()
    api._configure(found)  # the same cluster and credentials
    return client.CoreV1Api(client.ApiClient(found))


def names(objects: Sequence[Object]) -> list[str]:
    """The names of objects, sorted."""
    return sorted(one["metadata"]["name"] for one in objects)


def belongs(thing: Object, release: str) -> bool:
    """Whether an object has a release's label, or its name in front."""
    name, labels = str(thing["metadata"]["name"]), thing["metadata"].get("labels") or {}
    named = name == release or name.startswith(f"{release}-")
    return named or labels.get(INSTANCE) == release
