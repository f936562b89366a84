"""Releases of the chart, installed, changed and undone by the `helm` program."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eagleray import errors
from k8s import api, status
from k8s.helm import Helm, Record, busy

CHART = "eagleray"
APPLY_S = 600
"""Longest time for the API to take all objects and for the store to come up, without `--wait`."""
PAUSE_S = 1.0
MASK = "(hidden)"

Objects = Mapping[tuple[str, str], api.Object]
"""The objects of a release by kind and name."""


@dataclass(frozen=True)
class Wanted:
    """The desired state of a release."""

    files: Sequence[Path] = ()  # of the chart's values; later ones override earlier ones
    pairs: Sequence[str] = ()  # single values, `key=value`, which override files
    named: Mapping[str, str] = field(default_factory=dict)  # literal values, which override pairs
    reset: bool = False  # forget the values of earlier revisions
    wait_s: int | None = None  # seconds for the endpoint to become ready, else the change is undone
    force: bool = False  # take over fields that others have set


@dataclass(frozen=True)
class Change:
    """A change to one object of a release."""

    action: str  # created, changed, deleted or kept
    kind: str
    name: str


@dataclass(frozen=True)
class Deployed:
    """A release after a change, or as a dry run shows it."""

    release: str
    namespace: str
    action: str  # `installed` or `updated`
    revision: int
    chart: str  # its version
    changes: Sequence[Change]
    manifest: Sequence[api.Object]  # without the contents of Secrets
    notes: str


def chart() -> Path:
    """The chart's folder: in this package when it is installed, else in the checkout."""
    here = Path(__file__).resolve()
    inside, beside = here.parent / "chart", here.parents[1] / "helm" / CHART
    return inside if inside.is_dir() else beside


def deploy(cluster: api.Api, release: str, wanted: Wanted, *, dry_run: bool = False) -> Deployed:
    """Install a release, or update it; a change that fails, or is interrupted, is undone.

    With `dry_run`, Helm and the API check and show the change, but do not make it.

    Raises:
        UserError: no helm, values that the chart refuses, missing rights or kinds, a taken name.
        ConflictError: somebody else changes the release now, or owns fields of it.
        ClusterError: the API fails or goes away, or the release does not become ready in time.
    """
    helm = Helm(cluster.namespace)
    before = helm.record(release)
    if before:
        _check(before, release, cluster.namespace)
    old = objects(helm.run("get", "manifest", release)) if before else {}
    words = ["upgrade", "--install", release, str(chart()), *_values(wanted), "--output", "json"]
    if dry_run:
        return _deployed(old, json.loads(helm.run(*words, "--dry-run=server")), before)
    limit_s = wanted.wait_s or APPLY_S
    words += [*helm.atomic(limit_s), *(helm.forcing(before) if wanted.force else ())]
    until = time.monotonic() + limit_s
    try:
        after = json.loads(helm.run(*words))
        if wanted.wait_s:
            _await(cluster, release, until, wanted.wait_s)
    except (errors.EagleRayError, KeyboardInterrupt) as failure:
        if not busy(str(failure)):
            _undo(helm, release, before)
        raise
    return _deployed(old, after, before)


def changes(before: Objects, after: Objects) -> list[Change]:
    """The change to each object of a release, from its objects before and after."""
    actions = dict.fromkeys(after, "created") | dict.fromkeys(before, "deleted")
    for one in before.keys() & after.keys():
        actions[one] = "kept" if before[one] == after[one] else "changed"
    return [Change(action, *one) for one, action in actions.items()]


def objects(manifest: str) -> Objects:
    """The objects of a manifest, sorted by kind and name."""
    things = filter(None, yaml.load_all(manifest, yaml.CSafeLoader))
    found = {(one["kind"], one["metadata"]["name"]): one for one in things}
    return dict(sorted(found.items()))


def hidden(thing: api.Object) -> api.Object:
    """An object; a Secret without its contents."""
    keys = ("data", "stringData") if thing["kind"] == "Secret" else ()
    return thing | {key: dict.fromkeys(thing[key], MASK) for key in keys if thing.get(key)}


def _values(wanted: Wanted) -> list[str]:
    return [
        "--reset-values" if wanted.reset else "--reset-then-reuse-values",
        *(f"--values={file}" for file in wanted.files),
        *(f"--set={pair}" for pair in wanted.pairs),
        *(f"--set-literal={key}={text}" for key, text in wanted.named.items()),
    ]


def _check(before: Record, release: str, namespace: str) -> None:
    if before["chart"] != CHART:
        raise errors.UserError(
            f"release {release}: must be of chart {CHART}, but in namespace {namespace} it is of "
            f"{before['chart']}; choose another name"
        )
    if before["status"].startswith("pending"):
        fix = "uninstall" if before["revision"] == 1 else "rollback"
        raise errors.ConflictError(
            f"release {release}: must not be changing, but is {before['status']}: somebody changes "
            f"it now; if nobody does, helm was killed: helm {fix} {release} -n {namespace}"
        )


def _undo(helm: Helm, release: str, before: Record | None) -> None:
    """Undo what Helm left: it was killed, its own rollback failed, or `--wait` ran out."""
    now = helm.record(release)
    if now is None or now == before:
        return
    if before is None:
        helm.run("uninstall", release)
        return
    # Helm's own rollback is a second revision; owners of fields may have blocked it: force ours
    if not (now["status"] == "deployed" and now["revision"] > before["revision"] + 1):
        helm.run("rollback", release, str(before["revision"]), *helm.forcing(before))


def _await(cluster: api.Api, release: str, until: float, limit_s: int) -> None:
    while (state := status.state(cluster, release)) not in (status.READY, status.NO_ENDPOINT):
        if time.monotonic() > until:
            raise errors.ClusterError(
                f"release {release}: must become ready within {limit_s} s, but is {state}; it was "
                f"undone; deploy it without --wait, and see: eagleray why {release} --namespace "
                f"{cluster.namespace}"
            )
        time.sleep(PAUSE_S)


def _deployed(old: Objects, after: Mapping[str, Any], before: Record | None) -> Deployed:
    new = objects(after["manifest"])
    return Deployed(
        release=after["name"],
        namespace=after["namespace"],
        action="updated" if before else "installed",
        revision=after["version"],
        chart=after["chart"]["metadata"]["version"],
        changes=changes(old, new),
        manifest=[hidden(one) for one in new.values()],
        notes=str(after["info"].get("notes", "")).strip(),
    )
