"""What becomes of a search's winner: champion, candidate of a rollout, or left to a person."""

import contextlib
from dataclasses import dataclass

from eagleray import compatibility, errors, messages, spec
from eagleray.state.aliases import CHAMPION
from eagleray.state.evaluations import Comparison, Verdict
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
    version = registry.version(name, number)
    if experiment.serve.rollout is None:
        beside = compared_with(champion, version)
        found = f"; this one is {beside.verdict}" if beside and beside.verdict else ""
        why = f"version {champion} stays champion until you promote this one{found}"
        return Place(champion, why)
    return _begin(store, experiment, version, champion)


def gate(registry: Registry, before: Version, after: Version) -> str | None:
    """Why a version may not take the champion's requests by itself; None if it may.

    It must have no warning, answer the champion's clients, and be better on the same test rows: an
    equal one passes about 1 time in 40, since a 95 % interval must lie above zero.
    """
    if warnings := after.manifest.get("warnings"):
        return f"it has a warning: it {warnings[0]}"
    try:
        compatibility.check(registry, CHAMPION, before, after)
    except errors.UserError as cause:
        return str(cause)
    compared = compared_with(before.number, after)
    if compared is None:
        return f"it was not compared with version {before.number} on the same rows"
    if compared.verdict is None:
        return f"it cannot be compared with version {before.number}: {compared.why}"
    if compared.verdict.outcome == "better":
        return None
    return f"on the same rows it is {_against(compared.verdict, before.number)}"


def compared_with(number: int, version: Version) -> Comparison | None:
    """The comparison of a version with another one, if that was champion when it was judged."""
    found = version.manifest.get("compared")
    known = Comparison.model_validate(found) if found else None
    return known if known is not None and known.version == number else None


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


def _against(verdict: Verdict, number: int) -> str:
    gap, metric = verdict.difference, verdict.metric
    how = "worse than" if verdict.outcome == "worse" else "no better, beyond noise, than"
    by = f"{messages.number(gap.value, '+.4f')}{gap.between('.4f')}"
    return f"{how} version {number}: its {metric} differs by {by}"
