"""Releases of the chart, installed, changed and undone by the `helm` program: they are its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eagleray import errors
from k8s import api, status
from k8s.helm import Helm, Record, busy

CHART = "eagleray"
APPLY_S = 600
"""Longest time for the API to take all objects and for the store to come up, where nobody waits."""
PAUSE_S = 1.0
MASK = "(hidden)"


@dataclass(frozen=True)
class Wanted:
    """The desired state of a release.

    Attributes:
        files: files of the chart's values; of two values for a key the later one counts.
        pairs: single values, `key=value`; they count more.
        named: single values, taken as they stand; they count most.
        reset: forget the values that were given before.
        wait_s: seconds in which the endpoint must become ready, else the change is undone.
        force: take over fields that somebody else has set.
    """

    files: Sequence[Path] = ()
    pairs: Sequence[str] = ()
    named: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    wait_s: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Change:
    """What becomes of one object of a release: created, changed, deleted or kept."""

    action: str
    kind: str
    name: str


@dataclass(frozen=True)
class Deployed:
    """A release after it was installed or updated, or as it would be then.

    Attributes:
        release: its name.
        namespace: where it is.
        action: `installed` or `updated`.
        revision: how often it was installed or changed.
        chart: the chart's version.
        changes: what becomes of each of its objects.
        manifest: its objects, with the contents of Secrets hidden.
        notes: what the chart says to do next.
    """

    release: str
    namespace: str
    action: str
    revision: int
    chart: str
    changes: Sequence[Change]
    manifest: Sequence[api.Object]
    notes: str


def chart() -> Path:
    """The chart's folder: inside this package when it is installed, else that of the checkout."""
    here = Path(__file__).resolve()
    inside, beside = here.parent / "chart", here.parents[1] / "helm" / CHART
    return inside if inside.is_dir() else beside


def deploy(cluster: api.Api, release: str, wanted: Wanted, *, dry_run: bool = False) -> Deployed:
    """Install a release, or update it; a change that fails, or is interrupted, is undone.

    Args:
        cluster: the namespace to be in.
        release: its name.
        wanted: values, and how to go about it.
        dry_run: ask Helm and the API what would be done, and do nothing.

    Raises:
        UserError: no helm, values that the chart refuses, missing rights or kinds, a taken name.
        ConflictError: somebody else changes the release now, or owns fields of it.
        ClusterError: the API fails or goes away, or the release does not become ready in time.
    """
    helm = Helm(cluster.namespace)
    before = helm.record(release)
    _check(before, cluster, release)
    old = objects(helm.run("get", "manifest", release)) if before else []
    words = ["upgrade", "--install", release, str(chart()), *_values(wanted), "--output", "json"]
    if dry_run:
        return _deployed(old, json.loads(helm.run(*words, "--dry-run=server")), before)
    limit_s = wanted.wait_s or APPLY_S
    words += [*helm.atomic(limit_s), *(helm.forcing(before) if wanted.force else ())]
    with _undoing(helm, release, before):
        until = time.monotonic() + limit_s
        after = json.loads(helm.run(*words))
        if wanted.wait_s:
            _await(cluster, release, until, wanted.wait_s)
    return _deployed(old, after, before)


def changes(before: Sequence[api.Object], after: Sequence[api.Object]) -> list[Change]:
    """What becomes of each object, from those of a release before and after."""
    old, new = ({_identity(one): one for one in all_} for all_ in (before, after))
    found = [Change(_action(old.get(identity), one), *identity) for identity, one in new.items()]
    return [*found, *(Change("deleted", *identity) for identity in old if identity not in new)]


def objects(manifest: str) -> list[api.Object]:
    """The objects of a manifest, those of the same kind together."""
    found = [one for one in yaml.load_all(manifest, yaml.CSafeLoader) if one]
    return sorted(found, key=_identity)


def hidden(thing: api.Object) -> api.Object:
    """An object as it may be shown: a Secret without what it keeps."""
    if thing["kind"] != "Secret":
        return thing
    veiled = {
        key: dict.fromkeys(thing[key], MASK) for key in ("data", "stringData") if thing.get(key)
    }
    return {**thing, **veiled}


def _values(wanted: Wanted) -> Iterator[str]:
    yield "--reset-values" if wanted.reset else "--reset-then-reuse-values"
    for file in wanted.files:
        yield from ("--values", str(file))
    for pair in wanted.pairs:
        yield from ("--set", pair)
    for key, text in wanted.named.items():
        yield from ("--set-literal", f"{key}={text}")


def _check(before: Record | None, cluster: api.Api, release: str) -> None:
    """Leave alone what is not ours, or what somebody else is changing."""
    if before is None:
        return
    space = cluster.namespace
    if before.chart != CHART:
        raise errors.UserError(
            f"release {release}: must be of chart {CHART}, but in namespace {space} it is of "
            f"{before.chart}; choose another name"
        )
    if before.status.startswith("pending"):
        way_out = "uninstall" if before.revision == 1 else "rollback"
        raise errors.ConflictError(
            f"release {release}: must be at rest, but is {before.status}: somebody changes it "
            f"now; if nobody does, helm was killed: helm {way_out} {release} -n {space}"
        )


@contextmanager
def _undoing(helm: Helm, release: str, before: Record | None) -> Iterator[None]:
    """Undo what Helm did not: it was killed, its own rollback failed, or nobody answers in time.

    Fields are taken over: whoever owns them kept Helm from both its change and its rollback.
    """
    try:
        yield
    except (errors.EagleRayError, KeyboardInterrupt) as failure:
        now = None if busy(str(failure)) else helm.record(release)
        if now and before is None:
            helm.run("uninstall", release)
        elif now and before and now != before and not _rolled_back(now, before):
            helm.run("rollback", release, str(before.revision), *helm.forcing(before))
        raise


def _rolled_back(now: Record, before: Record) -> bool:
    """Whether Helm has undone a change by itself: that takes a revision more than the change."""
    return now.status == "deployed" and now.revision > before.revision + 1


def _await(cluster: api.Api, release: str, until: float, limit_s: int) -> None:
    while (state := status.state(cluster, release)) not in (status.READY, status.NO_ENDPOINT):
        if time.monotonic() > until:
            raise errors.ClusterError(
                f"release {release}: must become ready within {limit_s} s, but is {state}; it was "
                f"undone; deploy it without --wait, and see: eagleray why {release} --namespace "
                f"{cluster.namespace}"
            )
        time.sleep(PAUSE_S)


def _deployed(
    old: Sequence[api.Object], after: Mapping[str, Any], before: Record | None
) -> Deployed:
    new = objects(after["manifest"])
    return Deployed(
        release=after["name"],
        namespace=after["namespace"],
        action="updated" if before else "installed",
        revision=after["version"],
        chart=after["chart"]["metadata"]["version"],
        changes=changes(old, new),
        manifest=[hidden(one) for one in new],
        notes=str(after["info"].get("notes", "")).strip(),
    )


def _identity(thing: api.Object) -> tuple[str, str]:
    return thing["kind"], thing["metadata"]["name"]


def _action(old: api.Object | None, new: api.Object) -> str:
    if old is None:
        return "created"
    return "kept" if old == new else "changed"
