"""An object in a cluster and the owners of its fields, as server-side apply has them.

https://kubernetes.io/docs/reference/using-api/server-side-apply/. A list is one field, unless the
schema gives its entries keys.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

IDENTITY = ("apiVersion", "kind", "status")
SERVERS = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp")
"""Fields of `metadata` that no manager owns."""

Object = dict[str, Any]
Schema = Mapping[str, Any]
Path = tuple[str, ...]
Managers = set[tuple[str, str]]
"""Names and operations: an applier and an updater of the same name are two managers."""


@dataclass
class Live:
    """An object in a cluster, or a part of one, with the owners of its fields."""

    thing: Any = field(default_factory=dict)
    schema: Schema = field(default_factory=dict)
    owners: dict[Path, Managers] = field(default_factory=dict)

    def apply(self, manager: str, wanted: Object, *, force: bool = False) -> dict[Path, Managers]:
        """Apply fields; with conflicts, and without `force`, return these and change nothing.

        A field that the manager has applied before, and now leaves out, goes unless others own it.
        """
        me = (manager, "Apply")
        old, new = (dict(leaves(one, self.schema)) for one in (self.thing, wanted))
        changed = {path for path, value in new.items() if old.get(path, ...) != value}
        others = {path: managers - {me} for path, managers in self.owners.items()}
        conflicts = {path: others[path] for path in new if path in changed and others.get(path)}
        if conflicts and not force:
            return conflicts
        for path in others.keys() - new.keys():
            if not others[path]:
                _remove(self.thing, path)
        mine = {
            path: {me} | (set() if path in changed else others.get(path, set())) for path in new
        }
        self.owners = {path: managers for path, managers in others.items() if managers} | mine
        self.thing = defaulted(merged(self.thing, wanted), self.schema)
        return {}

    def update(self, manager: str, whole: Object) -> list[Path]:
        """Replace the object: who changes a field is its only owner. Return the changed fields."""
        old = dict(leaves(self.thing, self.schema))
        self.thing = defaulted(whole, self.schema)
        new = dict(leaves(self.thing, self.schema))
        changed = [path for path, value in new.items() if old.get(path, ...) != value]
        self.owners = {path: managers for path, managers in self.owners.items() if path in new}
        self.owners |= {path: {(manager, "Update")} for path in changed}
        return changed


def leaves(value: Any, schema: Schema, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each field that has owners of its own, and its path."""
    if isinstance(value, Mapping) and value and schema.get("x-kubernetes-map-type") != "atomic":
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for key, inner in value.items():
            if not ((at == () and key in IDENTITY) or (at == ("metadata",) and key in SERVERS)):
                yield from leaves(inner, known.get(key, others), (*at, key))
    elif isinstance(value, list) and schema.get("x-kubernetes-list-type") == "map":
        for entry, full in zip(value, defaulted(value, schema), strict=True):
            keys = [full[key] for key in schema["x-kubernetes-list-map-keys"]]
            yield from leaves(entry, schema["items"], (*at, str(keys)))
    else:
        yield at, value


def defaulted(value: Any, schema: Schema) -> Any:
    """A value as the API server keeps it: with the defaults of its schema."""
    if isinstance(value, list):
        return [defaulted(each, schema.get("items", {})) for each in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    defaults = {
        name: copy.deepcopy(each["default"]) for name, each in known.items() if "default" in each
    }
    return {key: defaulted(each, known.get(key, {})) for key, each in (defaults | value).items()}


def merged(live: Object, patch: Mapping[str, Any]) -> Object:
    """A JSON merge patch (RFC 7396) applied; directives of a strategic one are passed over."""
    found = dict(live)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            inner = found.get(key)
            found[key] = merged(inner if isinstance(inner, dict) else {}, value)
        elif not key.startswith("$"):
            found[key] = value
    return found


def message(conflicts: Mapping[Path, Managers], version: str) -> str:
    """What the API server says of conflicts: apimachinery/pkg/util/managedfields."""
    found: dict[str, list[str]] = {}
    for path, managers in conflicts.items():
        for manager, operation in sorted(managers):
            using = f'"{manager}" using {version}' if operation == "Update" else f'"{manager}"'
            found.setdefault(using, []).append("." + ".".join(path))
    count = sum(map(len, found.values()))
    lines = [
        f"conflict with {whose}: {paths[0]}"
        if len(paths) == 1
        else "\n".join([f"conflicts with {whose}:", *(f"- {path}" for path in paths)])
        for whose, paths in found.items()
    ]
    return f"Apply failed with {count} conflict{'s' if count > 1 else ''}: " + "\n".join(lines)


def _remove(thing: Any, path: Path) -> None:
    *outer, last = path
    for key in outer:
        thing = thing.get(key) if isinstance(thing, dict) else None
    if isinstance(thing, dict):
        thing.pop(last, None)
