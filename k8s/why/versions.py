"""Why replicas answer with another version than the alias names, or with none.

Replicas look at the alias every `poll_s`; a version that does not reproduce its golden rows is
refused, and the one before keeps answering (serving/follower.py). Their metrics tell both.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from k8s import release as releases
from k8s.api import Object
from k8s.situation import Alias, Situation
from k8s.why.finding import Finding, age_s, labels, name, span

VERSION = "eagleray_model_version"
REFUSED = "eagleray_version_refused_total"
ERRORS = "eagleray_storage_errors_total"
"""Names of serving/metrics.py, which owns them; a test holds these copies."""
_PATIENCE_S = 30.0
"""Time to load a version and to reproduce its golden rows, before its absence is a cause."""


def finding(situation: Situation) -> Finding | None:
    """Why a service that is ready does not answer with what its alias names."""
    alias = situation.alias
    if alias is None:
        return None
    if alias.version is None:
        return _nowhere(alias)
    if not situation.metrics:
        return _unknown(alias, situation)
    serving = _count(situation, VERSION)
    others = sorted(one for one in serving if one != alias.version)
    refused = alias.version in _count(situation, REFUSED)
    if not others and serving:
        return None
    shown = ", ".join(map(str, sorted(serving))) or "none"
    line = f"{_points(alias)}; replicas serve version {shown}"
    if refused:
        return _unfit(alias, situation).under(line)
    moved_s = age_s(situation, alias.moved)
    if alias.moved and moved_s < _PATIENCE_S:
        said = f"{alias.name} was moved {span(moved_s)} ago; replicas are loading version"
        return Finding(f"{said} {alias.version}", "wait", (line,), waits=True)
    if sum(_count(situation, ERRORS, "model").values()):
        return Finding(
            f"replicas cannot read version {alias.version} from {alias.storage}",
            _logs(situation),
            (line, "replicas count failed looks at storage"),
        )
    return Finding(
        f"replicas have not taken version {alias.version}, and have not refused it",
        _logs(situation),
        (line,),
    )


def unloaded(situation: Situation) -> Finding:
    """Why replicas that have started wait for their first version."""
    alias = situation.alias
    if alias is None:
        return Finding(
            "replicas wait for a version: the alias points nowhere, or they refuse the version, "
            "or cannot read it",
            _logs(situation),
        )
    if alias.version is None:
        return _nowhere(alias)
    return Finding(
        f"replicas refuse version {alias.version} of {alias.model}, or cannot read it from "
        f"{alias.storage}",
        _logs(situation),
        (_points(alias),),
    )


def _nowhere(alias: Alias) -> Finding:
    line = f"alias {alias.name} of model {alias.model}: points nowhere in {alias.storage}"
    if alias.latest is None:
        return Finding(
            f"model {alias.model} has no version in {alias.storage}",
            f"eagleray run an experiment named {alias.model} with storage: {alias.storage}",
            (line,),
        )
    return Finding(
        f"alias {alias.name} of model {alias.model} points nowhere",
        f"eagleray models promote {alias.model} latest --alias {alias.name} "
        f"--storage {alias.storage}",
        (line,),
    )


def _unfit(alias: Alias, situation: Situation) -> Finding:
    return Finding(
        f"replicas refuse version {alias.version}: it cannot be loaded, or does not reproduce its "
        "golden rows",
        f"eagleray models rollback {alias.model} --alias {alias.name} --storage {alias.storage}; "
        f"why it is unfit: {_logs(situation)}",
    )


def _unknown(alias: Alias, situation: Situation) -> Finding | None:
    """Replicas could not be asked, so only a fresh move is worth a word."""
    if not any(one.startswith("versions of replicas") for one in situation.unseen):
        return None
    port = f"kubectl -n {situation.namespace} port-forward svc/{situation.name}-serve-svc 8000"
    return Finding(
        f"which version replicas serve could not be asked; it should be {alias.version}",
        f"{port}, then curl 127.0.0.1:8000/readyz",
        (_points(alias),),
        waits=True,
    )


def _points(alias: Alias) -> str:
    moved = f", moved at {alias.moved} by {alias.by}" if alias.moved else ""
    return f"alias {alias.name} of model {alias.model}: points to version {alias.version}{moved}"


def _logs(situation: Situation) -> str:
    """The command that shows what replicas say: their log stays in their pod."""
    workers = [one for one in situation.pods if labels(one).get("ray.io/node-type") == "worker"]
    pod: Object = workers[-1] if workers else {"metadata": {"name": "POD"}}
    file = "/tmp/ray/session_latest/logs/serve/replica_*.log"  # noqa: S108 - in the pod
    return f"kubectl -n {situation.namespace} exec {name(pod)} -- sh -c 'tail -n 20 {file}'"


def _count(situation: Situation, metric: str, label: str = "version") -> dict[int | str, float]:
    """A metric of the service's model summed over pods, by version; nothing that is 0."""
    found: dict[int | str, float] = {}
    for version, value in _samples(situation, metric, label):
        found[version] = found.get(version, 0.0) + value
    return {version: value for version, value in found.items() if value}


def _samples(situation: Situation, metric: str, label: str) -> Iterator[tuple[int | str, float]]:
    model = releases.arguments(situation.subject).get("name")
    for text in situation.metrics.values():
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                if one.name == metric and one.labels.get("model") == model:
                    key = one.labels[label]
                    yield (int(key) if key.isdecimal() else key), one.value
