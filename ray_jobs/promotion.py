"""What becomes of a search's winner: champion, candidate of a rollout, or left to a person."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eagleray import compatibility, errors, spec
from eagleray.learn import metrics
from eagleray.state.aliases import CHAMPION
from eagleray.state.models import Registry, Version
from eagleray.state.rollouts import Plan, Rollouts
from eagleray.storage import Storage

BY = "eagleray run"


@dataclass(frozen=True)
class Place:
    """Where the winner stands now."""

    champion: int  # the version that answers requests
    why: str  # why the winner is the champion or not, for people
    rolls_out: bool = False  # whether it takes over step by step


def promote(store: Storage, experiment: spec.Experiment, number: int) -> Place:
    """Make the first version of a model its champion.

    With `serve.rollout` a later one that passes the gate begins a rollout, once. Again, nothing
    happens.
    """
    registry, name = Registry(store), experiment.name
    with contextlib.suppress(errors.ConflictError):  # there is a champion already
        registry.promote(name, number, why="the first version", by=BY, expect=None)
    aliases = registry.aliases(name)
    champion = aliases.values[CHAMPION]
    if champion == number:
        first = "" if aliases.history.get(CHAMPION) else ", as the first version of this model"
        return Place(champion, f"it is the champion{first}")
    if experiment.serve.rollout is None:
        return Place(champion, f"version {champion} stays champion until you promote this one")
    return _begin(store, experiment, registry.version(name, number), champion)


def gate(registry: Registry, before: Version, after: Version) -> str | None:
    """Why a version may not take the champion's requests by itself; None if it may.

    It must have no warning, answer the champion's clients, and if both were tested on the same
    data be at least as good.
    """
    if warnings := after.manifest.get("warnings"):
        return f"it has a warning: it {warnings[0]}"
    try:
        compatibility.check(registry, CHAMPION, before, after)
    except errors.UserError as cause:
        return str(cause)
    metric = after.manifest.get("metric")
    old, new = (_tested(one.manifest, metric) for one in (before, after))
    if _data(before) != _data(after) or metric is None or old is None or new is None:
        return None
    if (new >= old) if metrics.REGISTRY[metric].mode == "max" else (new <= old):
        return None
    return f"its {metric} on the test part is {new:.4f}, the champion's {old:.4f}"


def plan(experiment: spec.Experiment) -> Plan:
    """The plan of `serve.rollout`."""
    canary, slo = experiment.serve.rollout, experiment.serve.slo
    assert canary is not None
    return Plan(
        steps=tuple(percent / 100 for percent in canary.steps),
        bake_s=canary.bake_s,
        least=canary.least,
        deadline_s=canary.deadline_s,
        sticky=canary.sticky,
        p95_ms=slo.p95_ms if slo else None,
    )


def _begin(store: Storage, experiment: spec.Experiment, version: Version, champion: int) -> Place:
    """Begin the rollout of a version that passes the gate; one that had its own has none again."""
    registry, rollouts = Registry(store), Rollouts(store)
    stays = f"version {champion} stays champion"
    last = rollouts.latest(version.name, candidate=version.number)
    if last is not None:
        how = f"at {last.share:.0%}" if last.open else f"{last.status}: {last.decisions[-1].why}"
        return Place(champion, f"{stays}; the rollout of this one is {how}", last.open)
    refusal = gate(registry, registry.version(version.name, champion), version)
    if refusal is not None:
        return Place(champion, f"{stays}, and no rollout begins: {refusal}")
    try:
        begun = rollouts.start(
            version.name,
            version.number,
            plan=plan(experiment),
            why="it passed the gate",
            by=BY,
        )
    except errors.ConflictError as cause:  # another rollout is under way
        return Place(champion, f"{stays}, and no rollout begins: {cause}")
    why = f"it gets {begun.share:.0%} of the requests of version {champion}, and more by evidence"
    return Place(champion, why, rolls_out=True)


def _tested(manifest: Mapping[str, Any], metric: str | None) -> float | None:
    found: float | None = manifest.get("metrics", {}).get("test", {}).get(metric)
    return found


def _data(version: Version) -> object:
    """What the version was trained and tested on."""
    return version.manifest.get("lineage", {}).get("data")
