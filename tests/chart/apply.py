"""What the API server and KubeRay's operator make of a Ray object, as far as owners of fields go.

An emulation of three things, each by its own text: defaults and server-side apply as Kubernetes
documents them, over KubeRay's own definitions; `json.Marshal` of Go's types in KubeRay and
Kubernetes (`omitempty`, pointers, structs); and the canonical form of `resource.Quantity`.
"""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests import kuberay

Node = Any
Schema = dict[str, Any]

# Fields that Go writes when they are zero or empty: pointers, and rayStartParams without omitempty.
WRITTEN_EMPTY = {
    "allowPrivilegeEscalation", "automountServiceAccountToken", "emptyDir",
    "enableInTreeAutoscaling", "enableServiceLinks", "fsGroup", "idleTimeoutSeconds",
    "intervalSeconds", "labelSelector", "maxReplicas", "maxSurgePercent", "minReplicas", "optional",
    "priority", "rayClusterDeletionDelaySeconds", "rayStartParams", "readOnlyRootFilesystem",
    "replicas", "runAsGroup", "runAsNonRoot", "runAsUser", "stepSizePercent",
    "terminationGracePeriodSeconds", "tolerationSeconds",
}  # fmt: skip
# Structs that are no pointers, which Go always writes: the field, and what marks its parent.
STRUCTS = {"scaleStrategy": "groupName", "resources": "lifecycle", "divisor": "containerName"}
BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}


@functools.cache
def schema(kind: str) -> Schema:
    """The specification of a kind by KubeRay's definition."""
    return dict(kuberay.schemas()[kind]["properties"]["spec"])


def canonical(text: str | int) -> str:
    """A quantity as `resource.Quantity` writes it (apimachinery/pkg/api/resource/quantity.go)."""
    found = re.fullmatch(r"\+?([0-9.]+)(.*)", str(text))
    assert found, text
    number, suffix = Decimal(found[1]), found[2]
    if suffix in BINARY:
        number *= 1024 ** (BINARY.index(suffix) + 1)
        if number == int(number) and number >= 1024:
            return _largest(int(number), 1024, ("", *BINARY))
        suffix = ""
    if not number:
        return "0"
    scientific = re.fullmatch("[eE]([+-]?[0-9]+)", suffix)
    scale = {one: power for power, one in DECIMAL.items()}
    number *= Decimal(10) ** (int(scientific[1]) if scientific else scale[suffix])
    power = next(one for one in range(18, -12, -3) if number % Decimal(10) ** one == 0)
    digits = int(number / Decimal(10) ** power)
    return f"{digits}{(f'e{power}' if power else '') if scientific else DECIMAL[power]}"


def _largest(number: int, base: int, suffixes: tuple[str, ...]) -> str:
    power = 0
    while number % base == 0 and power + 1 < len(suffixes):
        number, power = number // base, power + 1
    return f"{number}{suffixes[power]}"


def defaulted(node: Node, of: Schema) -> Node:
    """A value as the API server keeps it: with the defaults of its schema."""
    if isinstance(node, list):
        return [defaulted(each, of.get("items", {})) for each in node]
    if not isinstance(node, dict):
        return node
    fields = of.get("properties", {})
    absent = {
        name: copy.deepcopy(each["default"])
        for name, each in fields.items()
        if "default" in each and name not in node
    }
    return {name: defaulted(each, fields.get(name, {})) for name, each in (node | absent).items()}


def written(node: Node, of: Schema) -> Node:
    """A value as Go reads and writes it again."""
    if isinstance(node, list):
        return [written(each, of.get("items", {})) for each in node]
    if _quantity(of):
        return canonical(node)
    if not isinstance(node, dict):
        return node
    fields, others = of.get("properties", {}), of.get("additionalProperties", {})
    found = {name: written(each, fields.get(name, others)) for name, each in node.items()}
    structs = {
        name: "0" if name == "divisor" else {}
        for name, mark in STRUCTS.items()
        if name in fields and mark in fields
    }
    if not fields:
        return found  # a map, whose entries are written whatever they are
    full = {name: each for name, each in found.items() if each or name in WRITTEN_EMPTY}
    return structs | full


def _quantity(of: Schema) -> bool:
    return bool(of.get("x-kubernetes-int-or-string") and "pattern" in of)


def leaves(node: Node, of: Schema, path: str = "") -> dict[str, Node]:
    """The parts of a value that have an owner each: a list without keys is one of them."""
    if isinstance(node, dict) and node and of.get("x-kubernetes-map-type") != "atomic":
        fields, others = of.get("properties", {}), of.get("additionalProperties", {})
        parts = [(f"{path}.{key}", each, fields.get(key, others)) for key, each in node.items()]
    elif isinstance(node, list) and of.get("x-kubernetes-list-type") == "map":
        items = defaulted(node, of)
        keys = [[one[key] for key in of["x-kubernetes-list-map-keys"]] for one in items]
        parts = [(f"{path}{key}", *one) for key, one in zip(keys, _with(node, of), strict=True)]
    else:
        return {path: node}
    return {name: one for part in parts for name, one in leaves(part[1], part[2], part[0]).items()}


def _with(items: list[Node], of: Schema) -> list[tuple[Node, Schema]]:
    return [(one, of["items"]) for one in items]


@dataclass
class Live:
    """The specification of an object in the cluster, and who owns which part of it.

    What a manager no longer applies stays: no test here asks for it.
    """

    of: Schema
    parts: dict[str, Node] = field(default_factory=dict)
    owners: dict[str, set[str]] = field(default_factory=dict)

    def apply(self, manager: str, spec: Node, *, force: bool = False) -> list[str]:
        """Server-side apply: the parts that it would change and another owns.

        Nothing is done when there are some, unless `force`.
        """
        wanted = leaves(spec, self.of)
        changed = {path for path, value in wanted.items() if self.parts.get(path, ...) != value}
        others = {path for path in changed if self.owners.get(path, set()) - {manager}}
        if others and not force:
            return sorted(others)
        for path in wanted:
            kept = set() if path in changed else self.owners.get(path, set())
            self.owners[path] = kept | {manager}
        self.parts |= leaves(defaulted(spec, self.of), self.of)
        return []

    def update(self, manager: str, spec: Node) -> list[str]:
        """An Update, or a patch that is none of apply: its manager owns what it changes."""
        kept = leaves(defaulted(spec, self.of), self.of)
        changed = [path for path, value in kept.items() if self.parts.get(path, ...) != value]
        self.owners |= {path: {manager} for path in changed}
        self.parts |= kept
        return changed
