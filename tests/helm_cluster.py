"""An emulated cluster that Helm itself can install to: discovery, apply, the secrets of releases.

What kmock lacks for that: a Kubernetes version of our choice, OpenAPI, server-side apply with field
ownership, PUT, and lists by labels. An operator is played by `operator`: the status that it would
write, and by `updates`: the fields that it changes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp.web
import kmock
import yaml

from tests import fields, kube_api

CORE = {
    "v1/configmaps": "ConfigMap",
    "v1/namespaces": "Namespace",
    "v1/pods": "Pod",
    "v1/secrets": "Secret",
    "v1/serviceaccounts": "ServiceAccount",
    "v1/services": "Service",
    "apps/v1/statefulsets": "StatefulSet",
    "apps/v1/replicasets": "ReplicaSet",
    "batch/v1/cronjobs": "CronJob",
    "batch/v1/jobs": "Job",
    "networking.k8s.io/v1/ingresses": "Ingress",
    "networking.k8s.io/v1/networkpolicies": "NetworkPolicy",
    "policy/v1/poddisruptionbudgets": "PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1/roles": "Role",
    "rbac.authorization.k8s.io/v1/rolebindings": "RoleBinding",
    "gateway.networking.k8s.io/v1/httproutes": "HTTPRoute",
}
OPERATOR = {
    "ray.io/v1/rayclusters": "RayCluster",
    "ray.io/v1/raycronjobs": "RayCronJob",
    "ray.io/v1/rayjobs": "RayJob",
    "ray.io/v1/rayservices": "RayService",
}
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
MAGIC = b"k8s\0"
VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")


@dataclass
class Refusal:
    """What the API says to a request instead of doing it."""

    method: str
    plural: str
    status: int
    message: str


@dataclass
class Operator:
    """What the cluster does by itself: refuse, and give objects of a kind their status."""

    refusals: list[Refusal] = field(default_factory=list)
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)


class Emulator(kmock.KubernetesEmulator):
    """kmock's emulation, with what Helm asks for beyond it."""

    def __init__(self) -> None:
        super().__init__()
        self.operator = Operator()
        self.owners: dict[Any, fields.Owners] = {}
        self["get /version"] << VERSION
        self["get /openapi/v3"] << self._openapi
        self["get /api/v1"] << self._core

    def know(self, kinds: Mapping[str, str]) -> None:
        """Let the cluster have these kinds, namespaced but for namespaces."""
        for resource, kind in kinds.items():
            self.resources[resource] = {
                "namespaced": kind != "Namespace",
                "kind": kind,
                "singular": kind.lower(),
                "verbs": VERBS,
            }
            version = resource.rpartition("/")[0]
            self["get " + _schema_path(version)] << functools.partial(self._schema, version)

    async def __call__(self, raw_request: Any) -> aiohttp.web.StreamResponse:
        if (await raw_request.read()).startswith(MAGIC):
            sent = {} if raw_request.method == "DELETE" else _secret(raw_request._read_bytes)
            raw_request._read_bytes = json.dumps(sent).encode()  # what aiohttp keeps of a body
        return await super().__call__(raw_request)

    async def _handle(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        del self._requests[:-1]  # kmock compares each request with all before it
        plural, method = getattr(request.resource, "plural", None), str(request.method.value)
        for each in self.operator.refusals:
            if plural == each.plural and method == each.method:
                return _status(each.status, each.message)
        if plural and request.name and method in ("PATCH", "PUT"):
            return self._written(request)
        if plural and request.action == kmock.action.LIST:
            return self._listed(request)
        if plural and request.action == kmock.action.WATCH:
            return await self._watched(request)
        return await super()._handle(request)

    def _written(self, request: kmock.Request) -> aiohttp.web.Response:
        """Apply, update or patch an object, and say who owns its fields from then on."""
        key = (request.resource, request.namespace, request.name)
        there = key in self.objects and not self.objects[key].deleted
        live = self.objects[key].raw if there else None
        kind = request.headers.get("Content-Type", "")
        if live is None and "patch+json" in kind:
            return _status(404, f'{request.resource.plural} "{request.name}" not found')
        owners = copy.deepcopy(self.owners.get(key, fields.Owners())) if there else fields.Owners()
        try:
            new = _changed(owners, live, yaml.load(request.body, yaml.CSafeLoader), request)
        except fields.ConflictError as conflict:
            return _status(409, str(conflict))
        status = self.operator.statuses.get(new["kind"], (live or {}).get("status"))
        whole = {**new, **({"status": status} if status else {})}
        if request.params.get("dryRun") != "All":
            self.objects[key], self.owners[key] = whole, owners
        return aiohttp.web.json_response(whole, status=200 if there else 201)

    def _listed(self, request: kmock.Request) -> aiohttp.web.Response:
        if request.resource not in self.resources:
            return _status(404, "the server could not find the requested resource")
        kind = f"{self.resources[request.resource].kind}List"
        head = {"apiVersion": _version(request.resource), "kind": kind}
        return aiohttp.web.json_response(
            {**head, "metadata": {"resourceVersion": "1"}, "items": self._items(request)}
        )

    async def _watched(self, request: kmock.Request) -> aiohttp.web.StreamResponse:
        """Tell what is there, and then whatever becomes of it, until nobody listens."""
        stream = aiohttp.web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request._raw_request)
        told: dict[str, dict[str, Any]] | None = None
        with contextlib.suppress(ConnectionError):
            while True:
                now = {one["metadata"]["name"]: one for one in self._items(request)}
                events = [*_events(told or {}, now)]
                if told is None and request.params.get("sendInitialEvents") == "true":
                    events.append(self._bookmark(request.resource))
                for event in events:
                    await stream.write(json.dumps(event).encode() + b"\n")
                told = now
                await asyncio.sleep(0.05)
        return stream

    def _items(self, request: kmock.Request) -> list[dict[str, Any]]:
        selector = request.params.get("labelSelector", "")
        wanted = [pair.split("=") for pair in selector.split(",") if pair]
        return [
            one.raw
            for (resource, space, _), one in self.objects.items()
            if resource == request.resource
            and space == request.namespace
            and not one.deleted
            and all(_labelled(one.raw, *pair) for pair in wanted)
        ]

    def _bookmark(self, resource: Any) -> dict[str, Any]:
        """That all which is there has been told."""
        end = {"annotations": {"k8s.io/initial-events-end": "true"}, "resourceVersion": "1"}
        head = {"kind": self.resources[resource].kind, "apiVersion": _version(resource)}
        return {"type": "BOOKMARK", "object": {**head, "metadata": end}}

    def _core(self) -> dict[str, Any]:
        """The kinds of `v1`, which kmock calls `/v1`."""
        known = [
            {
                "name": one.plural,
                "kind": info.kind,
                "singularName": info.singular,
                "namespaced": info.namespaced,
                "verbs": list(info.verbs),
            }
            for one, info in self.resources.items()
            if one.group == ""
        ]
        return {"kind": "APIResourceList", "groupVersion": "v1", "resources": known}

    def _openapi(self) -> dict[str, Any]:
        versions = {_version(resource) for resource in self.resources}
        return {
            "paths": {
                _schema_path(one)[12:]: {"serverRelativeURL": _schema_path(one)} for one in versions
            }
        }

    def _schema(self, version: str) -> dict[str, Any]:
        """That PATCH checks the fields by itself: then Helm leaves it to the server."""
        group, _, number = version.rpartition("/")
        paths = {
            f"/{resource.plural}/{{name}}": {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query"}],
                    "responses": {},
                    "x-kubernetes-group-version-kind": {
                        "group": group,
                        "version": number,
                        "kind": info.kind,
                    },
                }
            }
            for resource, info in self.resources.items()
            if _version(resource) == version
        }
        return {"openapi": "3.0.0", "info": {"title": "t", "version": "1"}, "paths": paths}


class Server(kube_api.Server):
    """The emulated cluster behind real HTTP, with KubeRay's kinds."""

    emulator = Emulator
    mock: Emulator

    def __init__(self, kinds: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.mock.know({**CORE, **(OPERATOR if kinds is None else kinds)})

    def updates(self, resource: str, name: str, manager: str, change: dict[str, Any]) -> None:
        """Let somebody change fields of an object in namespace `ml`, as a controller does."""
        key = (resource, "ml", name)
        live = self.mock.objects[key].raw
        owners = next(one for known, one in self.mock.owners.items() if known == key)
        self.mock.objects[key] = owners.update(live, fields.merged(live, change), manager)

    def names(self, resource: str) -> set[str]:
        """The names of all objects of a kind, as `v1/secrets`."""
        return {
            name
            for (each, _, name), one in self.mock.objects.items()
            if each == resource and not one.deleted
        }


def _secret(body: bytes) -> dict[str, Any]:
    """A Secret as client-go sends it: protobuf, in which Helm keeps its releases.

    apimachinery/pkg/runtime/generated.proto (Unknown) and api/core/v1/generated.proto of k8s.io.
    """
    raw = dict(_fields(body[len(MAGIC) :]))[2]
    fields = list(_fields(raw))
    metadata = [*_fields(dict(fields)[1])]
    labels = dict(_pair(value) for number, value in metadata if number == 11)
    data = dict(_pair(value) for number, value in fields if number == 2)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": dict(metadata)[1].decode(),
            "labels": {key: value.decode() for key, value in labels.items()},
        },
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        "type": dict(fields)[3].decode(),
    }


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field that has a length; numbers alone are left out."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        size, at = _varint(message, at)
        if key & 7 == 2:
            yield key >> 3, message[at : at + size]
            at += size


def _pair(entry: bytes) -> tuple[str, bytes]:
    found = dict(_fields(entry))
    return found[1].decode(), found[2]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _changed(
    owners: fields.Owners, live: dict[str, Any] | None, sent: dict[str, Any], request: kmock.Request
) -> dict[str, Any]:
    kind = request.headers.get("Content-Type", "")
    manager = request.params.get("fieldManager") or request.headers["User-Agent"].split("/")[0]
    if "apply-patch" in kind:
        return owners.apply(live, sent, manager, force=request.params.get("force") == "true")
    whole = fields.merged(live or {}, sent) if "patch+json" in kind else sent
    return owners.update(live, whole, manager)


def _events(
    told: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    for name, one in now.items():
        if one != told.get(name):
            yield {"type": "MODIFIED" if name in told else "ADDED", "object": one}
    for name, one in told.items():
        if name not in now:
            yield {"type": "DELETED", "object": one}


def _labelled(thing: dict[str, Any], key: str, value: str = "", *_: str) -> bool:
    labels = thing["metadata"].get("labels") or {}
    return key in labels and value in ("", labels[key])


def _version(resource: Any) -> str:
    return f"{resource.group}/{resource.version}" if resource.group else str(resource.version)


def _schema_path(version: str) -> str:
    return f"/openapi/v3/api{'s' if '/' in version else ''}/{version}"


def _status(code: int, message: str) -> aiohttp.web.Response:
    reasons = {403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid"}
    said = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    said |= {"code": code, "reason": reasons.get(code, "InternalError"), "message": message}
    return aiohttp.web.Response(status=code, text=json.dumps(said), content_type="application/json")
