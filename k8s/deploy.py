"""Releases of the chart, made and changed by Helm itself, in this process: no program is needed.

Helm comes with the package helm-python-sdk (`pip install 'eagleray[kubernetes]'`). A change that
fails is undone: what a failed installation has made is deleted, a failed update is rolled back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from eagleray import errors
from k8s import api

if TYPE_CHECKING:
    import helm_python

CHART = "eagleray"
APPLY_S = 300
"""Longest time for the API to take all objects, and to undo them, where nobody waits for pods."""
MASK = "(hidden)"

_FORBIDDEN = re.compile(r'cannot (\w+) resource "([\w/]+)"')
_VALUES = re.compile(r"execution error at \([^)]*\): (.*)", re.DOTALL)
_SCHEMA = "values don't meet the specifications of the schema"

Values = dict[str, Any]


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


def deploy(
    cluster: api.Api,
    release: str,
    given: Values,
    *,
    reset: bool = False,
    wait_s: int | None = None,
    dry_run: bool = False,
) -> Deployed:
    """Install a release, or update it; of two values for a key, the one given now counts.

    Args:
        cluster: the namespace to be in.
        release: its name.
        given: values of the chart, as in a values file.
        reset: forget the values that were given before.
        wait_s: seconds in which everything must become ready, else the change is undone.
        dry_run: ask Helm and the API what would be done, and do nothing.

    Raises:
        UserError: values that the chart refuses, missing rights or kinds, a name that is taken.
        ClusterError: the API fails or goes away, or the release does not become ready in time.
    """
    helm = _helm()
    _check_name(helm, release)
    with _explaining(helm, cluster, release), _configured(helm, cluster) as config:
        before = _present(config, helm, release)
        _check(before, cluster, release)
        kept: Values = (config.get_values(release) if before and not reset else None) or {}
        options: dict[str, Any] = {
            "timeout": wait_s or APPLY_S,
            "wait": "watcher" if wait_s else "hookOnly",
            "dry_run": "server" if dry_run else None,
        }
        with _undoing(config, helm, release, before):
            after = _apply(config, release, merged(kept, given), before is None, options)
    return _deployed(before, after)


def values(files: Sequence[Path], pairs: Sequence[str], named: Values) -> Values:
    """The values of files, changed by `key=value` pairs, and by those that have their own options.

    Raises:
        UserError: a file or a pair that cannot be read.
    """
    found: Values = {}
    for file in files:
        found = merged(found, _file(file))
    for pair in pairs:
        try:
            found = merged(found, _helm().parse_set_string(pair))
        except ValueError as cause:
            raise errors.UserError(f"--set: must be key=value, but got {pair!r}") from cause
    return merged(found, named)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> Values:
    """Values with some changed, key by key; a list is replaced as a whole, as Helm does."""
    out = dict(values)
    for key, value in changes.items():
        old = out.get(key)
        deeper = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[key] = merged(dict(old or {}), value) if deeper else value
    return out


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


def _apply(
    config: helm_python.Config, release: str, values: Values, new: bool, options: dict[str, Any]
) -> Mapping[str, Any]:
    if new:
        return config.install(chart(), release, values, **options)
    return config.upgrade(
        chart(), release, values, reset_values=True, cleanup_on_fail=True, **options
    )


@contextmanager
def _undoing(
    config: helm_python.Config, helm: Any, release: str, before: Mapping[str, Any] | None
) -> Iterator[None]:
    """Take back what a change has done until it failed.

    Helm's own way (rollback_on_failure) would make every change wait until all pods are ready.
    """
    try:
        yield
    except helm.HelmError:
        now = _present(config, helm, release)
        if now and not before:
            config.uninstall(release, timeout=APPLY_S)
        elif now and before and now["revision"] != before["revision"]:
            config.rollback(release, version=before["revision"], timeout=APPLY_S)
        raise


def _deployed(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Deployed:
    old, new = (objects(one.get("manifest", "")) for one in (before or {}, after))
    return Deployed(
        release=after["name"],
        namespace=after["namespace"],
        action="updated" if before else "installed",
        revision=after["revision"],
        chart=after["chart_version"],
        changes=changes(old, new),
        manifest=[hidden(one) for one in new],
        notes=str(after.get("notes", "")).strip(),
    )


def _identity(thing: api.Object) -> tuple[str, str]:
    return thing["kind"], thing["metadata"]["name"]


def _action(old: api.Object | None, new: api.Object) -> str:
    if old is None:
        return "created"
    return "kept" if old == new else "changed"


def _file(file: Path) -> Values:
    try:
        found = yaml.safe_load(file.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        said = " ".join(str(cause).split())
        raise errors.UserError(f"--values {file}: must be a file of YAML, but {said}") from cause
    if not isinstance(found, dict):
        raise errors.UserError(
            f"--values {file}: must be keys and values, but is a {type(found).__name__}"
        )
    return found


def _helm() -> Any:
    """Helm's library, which is large: loaded when it is needed, and not in the cluster's image."""
    try:
        import helm_python
    except ImportError as cause:
        raise errors.UserError(
            "deploy: needs Helm, but it is not installed here; install it with: "
            "pip install 'eagleray[kubernetes]'"
        ) from cause
    return helm_python


def _configured(helm: Any, cluster: api.Api) -> helm_python.Config:
    """Helm in the same cluster and namespace; several files in KUBECONFIG it joins by itself."""
    file = os.environ.get("KUBECONFIG")
    one = file if file and os.pathsep not in file else None
    config: helm_python.Config = helm.Config(kubeconfig_path=one, namespace=cluster.namespace)
    return config


def _present(config: helm_python.Config, helm: Any, release: str) -> Mapping[str, Any] | None:
    try:
        return config.status(release)
    except helm.HelmNotFoundError:
        return None


def _check_name(helm: Any, release: str) -> None:
    try:
        helm.validate_release_name(release)
    except helm.HelmError as cause:
        raise errors.UserError(
            "RELEASE: must be at most 53 of a-z, 0-9, '-' and '.', with a letter or digit at both "
            f"ends, but got {release!r}"
        ) from cause


def _check(before: Mapping[str, Any] | None, cluster: api.Api, release: str) -> None:
    """Leave alone what is not ours, or what somebody else is changing."""
    if before is None:
        return
    found, status, space = before["chart_name"], before["status"], cluster.namespace
    if found != CHART:
        raise errors.UserError(
            f"release {release}: must be of chart {CHART}, but in namespace {space} it is of "
            f"{found}; choose another name"
        )
    if status.startswith("pending"):
        raise errors.ConflictError(
            f"release {release}: must be at rest, but is {status}: somebody changes it now; if "
            f"nobody does: helm rollback {release} -n {space}, or helm uninstall"
        )
    if status in ("uninstalled", "uninstalling"):
        raise errors.UserError(
            f"release {release}: must be installed, but is {status}; remove what is kept of it: "
            f"helm uninstall {release} -n {space}"
        )


@contextmanager
def _explaining(helm: Any, cluster: api.Api, release: str) -> Iterator[None]:
    """Say Helm's errors in one line, with what mends them."""
    try:
        yield
    except helm.HelmError as cause:
        raise explained(" ".join(str(cause).split()), cluster.namespace, release) from cause


def explained(said: str, namespace: str, release: str) -> errors.EagleRayError:
    """The error that stands for what Helm said, in one line."""
    space = f"namespace {namespace}"
    if forbidden := _FORBIDDEN.search(said):
        verb, resource = forbidden.groups()
        return errors.UserError(
            f"{space}: the right to {verb} {resource} is missing; who deploys needs the role "
            f"admin there, and all rights on ray.io"
        )
    if "unreachable" in said or "connection refused" in said:
        return errors.ClusterError(f"Kubernetes: does not answer: {said}")
    if found := _VALUES.search(said):
        return errors.UserError(f"values: {found[1]}")
    if _SCHEMA in said:
        return errors.UserError(
            f"values: must keep to the chart's schema, but {said.partition(f'{CHART}: - ')[2]}; "
            "see helm/eagleray/README.md"
        )
    if re.search(r'namespaces "[^"]*" not found', said):
        return errors.UserError(
            f"{space}: must exist, but does not; make it: kubectl create namespace {namespace}"
        )
    if "deadline exceeded" in said:
        return errors.ClusterError(
            f"release {release}: must become ready in time, but did not, and was undone: {said}; "
            f"deploy it without --wait, and see: eagleray why {release} --namespace {namespace}"
        )
    refused = any(word in said for word in ("denied", "invalid", "exceeded quota", "cannot be im"))
    kind = errors.UserError if refused else errors.ClusterError
    return kind(f"release {release}: {space}: {said}")
