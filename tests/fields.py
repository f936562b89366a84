"""Field ownership as server-side apply has it: who set which field, and who must not change it.

https://kubernetes.io/docs/reference/using-api/server-side-apply/. A list is one field here, as it
is in custom resources without a list type, such as KubeRay's; those of the core API are finer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str, ...]
IDENTITY = ("apiVersion", "kind", "status")
NOBODYS = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp")

Object = dict[str, Any]


class ConflictError(Exception):
    """Fields that others own; its text is that of the API server."""


@dataclass
class Owners:
    """Who owns the fields of one object; an applier and an updater of the same name are two."""

    fields: dict[Path, set[tuple[str, str]]] = field(default_factory=dict)

    def apply(self, live: Object | None, wanted: Object, manager: str, *, force: bool) -> Object:
        """The object after an apply; what the manager applied before and leaves out now is gone."""
        me, old, new = (manager, "Apply"), dict(leaves(live or {})), dict(leaves(wanted))
        changed = [path for path, value in new.items() if path not in old or old[path] != value]
        taken = {path: self.fields.get(path, set()) - {me} for path in changed}
        if live is not None and any(taken.values()) and not force:
            raise ConflictError(_told(taken, str(wanted["apiVersion"])))
        found = copy.deepcopy(live or {})
        for path in [one for one, owners in self.fields.items() if owners == {me}]:
            if path not in new:
                _remove(found, path)
                del self.fields[path]
        for path, owners in self.fields.items():
            owners -= {me} if path not in new else set()
        for path in changed:
            self.fields[path] = set()
        for path in new:
            self.fields.setdefault(path, set()).add(me)
        return merged(found, wanted)

    def update(self, live: Object | None, whole: Object, manager: str) -> Object:
        """The object after an update: whoever changes a field becomes its only owner."""
        old, new = dict(leaves(live or {})), dict(leaves(whole))
        for path, value in new.items():
            if path not in old or old[path] != value:
                self.fields[path] = {(manager, "Update")}
        for path in old.keys() - new.keys():
            self.fields.pop(path, None)
        return whole


def leaves(value: Any, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each field that holds more than further fields, by its path."""
    if not isinstance(value, Mapping) or not value:
        yield at, value
        return
    for key, inner in value.items():
        path = (*at, key)
        if not (at == () and key in IDENTITY) and not (at == ("metadata",) and key in NOBODYS):
            yield from leaves(inner, path)


def merged(live: Object, patch: Mapping[str, Any]) -> Object:
    """A JSON merge patch (RFC 7396) applied; directives of a strategic one are passed over."""
    found = dict(live)
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            inner = found.get(key)
            found[key] = merged(inner if isinstance(inner, dict) else {}, value)
        else:
            found[key] = value
    return found


def _remove(thing: Object, path: Path) -> None:
    *outer, last = path
    for key in outer:
        inner = thing.get(key)
        if not isinstance(inner, dict):
            return
        thing = inner
    thing.pop(last, None)


def _told(taken: Mapping[Path, set[tuple[str, str]]], version: str) -> str:
    """As apimachinery's managedfields say it, for one manager or several."""
    found: dict[str, list[str]] = {}
    for path, owners in taken.items():
        for manager, operation in sorted(owners):
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
