"""An emulation of the Kubernetes API behind real HTTP, and a kubeconfig that leads to it.

kmock emulates an API; `Emulator` adds what the real `helm` programs ask for beyond it. There is no
operator and no kubelet: `statuses` holds what they would write, by kind, and `updates` changes an
object as a controller does.
"""

import asyncio
import base64
import contextlib
import copy
import json
import re
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp.web
import kmock
import yaml
from google.protobuf import empty_pb2, unknown_fields

from tests import fields, kuberay

CORE = {
    "v1": ("ConfigMap", "Namespace", "Pod", "Secret", "ServiceAccount", "Service"),
    "apps/v1": ("StatefulSet", "ReplicaSet"),
    "batch/v1": ("CronJob", "Job"),
    "networking.k8s.io/v1": ("Ingress", "NetworkPolicy"),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
    "gateway.networking.k8s.io/v1": ("HTTPRoute",),
}
KINDS = {**CORE, "ray.io/v1": tuple(kuberay.schemas())}
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
MAGIC = b"k8s\0"

Object = dict[str, Any]


class Emulator(kmock.KubernetesEmulator):
    """kmock's emulation with OpenAPI, field owners, labels, watches that see all, and protobuf."""

    def __init__(self, kinds: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.live: dict[Any, fields.Live] = {}
        self.statuses: dict[str, Object] = {}
        self.fallback["put"] << self._serve_update
        self.fallback["get /openapi/v3"] << self._serve_paths
        self.fallback["get /openapi/v3/all"] << self._serve_schemas
        for version, known in kinds.items():
            for kind in known:
                self.resources[f"{version}/{_plural(kind)}"] = {
                    "namespaced": kind != "Namespace",
                    "kind": kind,
                    "singular": kind.lower(),
                    "verbs": ("create", "delete", "get", "list", "patch", "update", "watch"),
                }

    async def __call__(self, raw_request: Any) -> aiohttp.web.StreamResponse:
        if (body := await raw_request.read()).startswith(MAGIC):
            sent = {} if raw_request.method == "DELETE" else _secret(body[len(MAGIC) :])
            raw_request._read_bytes = json.dumps(sent).encode()  # where aiohttp keeps the body
        return await super().__call__(raw_request)

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        del self._requests[:-20]  # kmock compares each request with all before it
        if "sendInitialEvents" in request.params:  # clients then list, and watch from there
            raise kmock.KubernetesError(422, "Invalid", "sendInitialEvents is forbidden")
        if request.action == kmock.action.UPDATE:  # which kmock would do as a merge, unasked
            return await super(kmock.KubernetesEmulator, self)._handle(request)
        return await super()._handle(request)

    async def _serve_create(self, request: kmock.Request) -> Object:
        thing: Object = await super()._serve_create(request)
        if status := self.statuses.get(thing.get("kind", "")):
            key = (request.resource, request.namespace, thing["metadata"]["name"])
            self.objects[key]["status"] = status
        return thing

    async def _serve_update(self, request: kmock.Request) -> Object:
        """Apply, patch or replace an object; its fields have owners from then on."""
        key = (request.resource, request.namespace, request.name)
        there = key in self.objects and not self.objects[key].deleted
        live = copy.deepcopy(self.live.get(key, fields.Live())) if there else fields.Live()
        live.thing = before = self.objects[key].raw if there else {}
        kind = request.headers.get("Content-Type", "")
        manager = request.params.get("fieldManager") or request.headers["User-Agent"].split("/")[0]
        sent = yaml.load(request.body, yaml.CSafeLoader)
        if "apply-patch" in kind:
            conflicts = live.apply(manager, sent, force=request.params.get("force") == "true")
            if conflicts:
                said = fields.message(conflicts, sent["apiVersion"])
                raise kmock.KubernetesError(409, "Conflict", said)
        elif "patch+json" in kind and not there:
            raise kmock.KubernetesObjectNotFoundError
        else:
            whole = fields.merged(before, sent) if "patch+json" in kind else sent
            live.update(manager, whole)
        known = self.statuses.get(live.thing.get("kind", ""))
        status = known or live.thing.get("status") or before.get("status")
        live.thing = {**live.thing, **({"status": status} if status else {})}
        if request.params.get("dryRun") != "All":
            self.objects[key], self.live[key] = live.thing, live
        return live.thing

    async def _serve_list(self, request: kmock.Request) -> Object:
        found = await super()._serve_list(request)
        selector = request.params.get("labelSelector", "")
        wanted = [re.split("=+", pair) for pair in selector.split(",") if pair]
        items = [one for one in found["items"] if all(_labelled(one, *pair) for pair in wanted)]
        head = {"apiVersion": _version(request.resource), "metadata": {"resourceVersion": "1"}}
        kind = getattr(self.resources.get(request.resource), "kind", "")
        return {**head, "kind": f"{kind}List", "items": items}

    async def _serve_watch(self, request: kmock.Request) -> AsyncIterator[Any]:
        """What is there, and whatever becomes of it, also by the hand of a test."""
        told: dict[str, Object] = {}
        yield b""
        while True:
            items = (await self._serve_list(request))["items"]
            now = {one["metadata"]["name"]: one for one in items}
            for name, one in now.items():
                if one != told.get(name):
                    yield {"type": "MODIFIED" if name in told else "ADDED", "object": one}
            for name in told.keys() - now.keys():
                yield {"type": "DELETED", "object": told[name]}
            told = now
            await asyncio.sleep(0.05)

    async def _serve_server_version(self, request: kmock.Request) -> Object:
        return VERSION

    async def _serve_version(self, request: kmock.Request) -> Object:
        found: Object = await super()._serve_version(request)
        return {**found, "groupVersion": found["groupVersion"].lstrip("/")}

    def _serve_paths(self) -> Object:
        versions = {_version(resource) for resource in self.resources}
        paths = [f"api{'s' if '/' in one else ''}/{one}" for one in versions]
        return {"paths": {path: {"serverRelativeURL": "/openapi/v3/all"} for path in paths}}

    def _serve_schemas(self) -> Object:
        """That PATCH checks the fields by itself: then Helm leaves it to the server."""
        check = {"parameters": [{"name": "fieldValidation", "in": "query"}], "responses": {}}
        paths = {}
        for one, info in self.resources.items():
            kind = {"group": one.group, "version": one.version, "kind": info.kind}
            patch = {**check, "x-kubernetes-group-version-kind": kind}
            paths[f"/{_version(one)}/{one.plural}/{{name}}"] = {"patch": patch}
        return {"openapi": "3.0.0", "info": {"title": "t", "version": "1"}, "paths": paths}


class Server:
    """The emulated API, in a thread of its own; `stop` ends it.

    Args:
        kinds: what the cluster knows, by group and version; KubeRay's kinds by default too.
    """

    def __init__(self, kinds: Mapping[str, tuple[str, ...]] = KINDS) -> None:
        self._loop, self._ended = asyncio.new_event_loop(), asyncio.Event()
        self._kinds, started = kinds, threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # stopped before
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    def updates(self, resource: str, name: str, manager: str, change: Object) -> None:
        """Change fields of an object in namespace `ml`, as a controller does."""
        key = (resource, "ml", name)
        live = next(one for known, one in self.mock.live.items() if known == key)
        live.update(manager, fields.merged(self.mock.objects[key].raw, change))
        self.mock.objects[key] = live.thing

    def names(self, resource: str = "") -> set[str]:
        """The names of all objects of a kind, as `v1/secrets`; of all kinds by default."""
        there = [key for key, one in self.mock.objects.items() if not one.deleted]
        return {name for known, _, name in there if not resource or known == resource}

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        async with Emulator(self._kinds) as self.mock, kmock.Server(self.mock) as server:
            self.url = str(server.url)
            started.set()
            await self._ended.wait()


def kubeconfig(server: Server, folder: Path, namespace: str = "ml") -> Path:
    """A file whose current context is a namespace of the emulated cluster."""
    context = {"cluster": "c", "user": "u", "namespace": namespace}
    settings = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(settings))
    return file


def _secret(body: bytes) -> Object:
    """A Secret as client-go sends it: protobuf, in which Helm keeps its releases.

    apimachinery/pkg/runtime/generated.proto (Unknown) and api/core/v1/generated.proto of k8s.io.
    """
    secret = _fields(dict(_fields(body))[2])
    metadata = _fields(dict(secret)[1])
    data = dict(_entry(value) for number, value in secret if number == 2)
    labels = dict(_entry(value) for number, value in metadata if number == 11)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": dict(metadata)[1].decode(),
            "labels": {key: value.decode() for key, value in labels.items()},
        },
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        "type": dict(secret)[3].decode(),
    }


def _fields(message: bytes) -> list[tuple[int, Any]]:
    """Number and content of each field of a protobuf message."""
    found = unknown_fields.UnknownFieldSet(empty_pb2.Empty.FromString(message))
    return [(one.field_number, one.data) for one in found]


def _entry(message: bytes) -> tuple[str, bytes]:
    entry = dict(_fields(message))
    return entry[1].decode(), entry.get(2, b"")


def _labelled(thing: Object, key: str, value: str = "", *_: str) -> bool:
    labels = thing["metadata"].get("labels") or {}
    return key in labels and value in ("", labels[key])


def _version(resource: Any) -> str:
    return f"{resource.group}/{resource.version}" if resource.group else str(resource.version)


def _plural(kind: str) -> str:
    return re.sub("y$", "ie", re.sub("s$", "se", kind.lower())) + "s"
