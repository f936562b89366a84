"""KubeRay's definitions of its objects, and the form in which its operator writes them.

`tests/data/README.md` says where the definitions are from. `written` emulates, by their texts,
`json.Marshal` of Go's types in KubeRay and Kubernetes (`omitempty`, pointers, structs), and the
canonical form of `resource.Quantity`.
"""

import functools
import gzip
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "kuberay-1.7"

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


def schemas() -> dict[str, Schema]:
    """OpenAPI schema of `ray.io/v1` by kind, made anew for each call."""
    found = {}
    for file in sorted(FOLDER.glob("*.json.gz")):
        spec = json.loads(gzip.decompress(file.read_bytes()))["spec"]
        (version,) = spec["versions"]
        found[spec["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    assert len(found) == 4, f"the definitions of {FOLDER} are not whole: {list(found)}"
    return found


@functools.cache
def schema(kind: str) -> Schema:
    """The schema of a kind's specification."""
    return dict(schemas()[kind]["properties"]["spec"])


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
