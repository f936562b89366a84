"""Decisions of a rollout, pure: from its state and what was counted to its next state.

The candidate is compared with the stable version on the traffic of the same time, by sequential
tests (`serving.sequential`): of errors, of slow requests, of what is predicted, and of labels that
came. Their e-values are averaged; the mean exceeds 1 / `false_stops` with a probability of at most
`false_stops`, ever, if the candidate is within the limits of its plan (Ville's inequality).
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from eagleray.state.evidence import Counts, Evidence
from eagleray.state.rollouts import Rollout
from serving import sequential, shares, winner
from serving.sequential import Count

MOST_OUTCOMES = 20
"""Outcomes that are tested, which share the weight of one test."""
ERRORS, SLOW, SLOWER = "errors", "slow requests", "slow requests, above the median"
LABELS, _PREDICTED = "labels", "predictions of "
_TESTS = 5  # of equal weight: the first four, and all predictions together
MOST_SHOWN, MOST_DECISIONS = 7, 20
"""Outcomes and decisions that a person is shown."""
SUSPICION = 10.0
"""While the e-value is higher, a rollout does not go on to its next step."""


def step(rollout: Rollout, evidence: Evidence, passed_s: float) -> Rollout:
    """Return the rollout after a look at all `evidence`, `passed_s` seconds after the last one."""
    if not rollout.open:
        return rollout
    running = rollout.status == "running"
    # The first block shows what to look for, and is no evidence yet: its requests do not count.
    first = not rollout.seen.candidate.requests
    looked = rollout.model_copy(
        update={
            "entered": evidence.candidate.requests if first else rollout.entered,
            "age_s": rollout.age_s + passed_s,
            "baked_s": rollout.baked_s + (passed_s if running else 0.0),
            "seen": evidence,
            "logs": _logs(rollout, evidence),
            "wins": winner.logs(rollout, evidence),
        }
    )
    if evidence.refused is not None:
        return looked.decided("stopped", evidence.refused, status="stopped")
    if evidence.grown_mb > rollout.plan.more_memory_mb:
        grown = f"memory: a replica has grown by {evidence.grown_mb:.0f} MiB since it came"
        return looked.decided("stopped", f"{grown}; {summary(looked)}", status="stopped")
    if _log_e(looked) >= -math.log(rollout.plan.false_stops):
        return looked.decided("stopped", _against(looked), status="stopped")
    if running and _baked(looked) and (named := winner.named(looked)) is not None:
        return named
    if looked.age_s >= rollout.plan.deadline_s:
        return _late(looked)
    return _proceed(looked) if running and _baked(looked) else looked


def summary(rollout: Rollout) -> str:
    """What was counted, in numbers."""
    old, new = rollout.seen.stable, rollout.seen.candidate
    failed = f"errors {shares.errors(new).rate:.2%} (champion {shares.errors(old).rate:.2%})"
    texts = [f"{new.requests} requests", failed]
    if (limit := shares.limit(rollout.plan.p95_ms, old)) is not None:
        late, others = (shares.slow(one, limit).rate for one in (new, old))
        above = f"over {shares.milliseconds(limit):.3g} ms"
        texts.append(f"{above} {late:.1%} (champion {others:.1%})")
    if new.labels:
        right = f"{shares.hits(new).rate:.1%} (champion {shares.hits(old).rate:.1%})"
        texts.append(f"right {right} of {new.labels} labels")
    if new.compared:
        texts.append(f"{new.differing / new.compared:.1%} of {new.compared} predictions differ")
    return ", ".join(texts)


def doubt(rollout: Rollout) -> str:
    """How much speaks against the candidate, and what would stop it."""
    strength, limit = math.exp(min(_log_e(rollout), 700)), 1 / rollout.plan.false_stops
    return (
        f"evidence against version {rollout.candidate}: e = {strength:.3g}, and {limit:g} stops it"
    )


def described(rollout: Rollout) -> dict[str, Any]:
    """A rollout for people: how far it is, what was counted of both versions, every decision."""
    decisions = [
        {"at": one.at, "action": one.action, "share": f"{one.share:.0%}", "why": one.why}
        for one in reversed(rollout.decisions[-MOST_DECISIONS:])
    ]
    return {
        "stable": rollout.stable,
        "candidate": rollout.candidate,
        "headline": rollout.headline,
        "open": rollout.open,
        "steps": rollout.plan.steps,
        "step": rollout.step,
        "compared": _compared(rollout),
        "doubt": doubt(rollout),
        "decisions": decisions,
    }


def _compared(rollout: Rollout) -> list[tuple[str, str, str]]:
    """What was counted, of the stable version and of the candidate."""
    old, new = rollout.seen.stable, rollout.seen.candidate

    def both(what: str, count: Callable[[Counts], Count]) -> tuple[str, str, str]:
        first, second = (f"{count(one).rate:.2%}" if one.requests else "-" for one in (old, new))
        return what, first, second

    found = [("requests", f"{old.requests:,}", f"{new.requests:,}"), both(ERRORS, shares.errors)]
    if (limit := shares.limit(rollout.plan.p95_ms, old)) is not None:
        above = f"over {shares.milliseconds(limit):.3g} ms"
        found.append(both(above, functools.partial(shares.slow, limit=limit)))
    counted = (Counter(old.outcomes) + Counter(new.outcomes)).most_common(MOST_SHOWN)
    for name, _ in counted:
        found.append(both(f"predicted {name}", functools.partial(shares.predicted, outcome=name)))
    if new.labels:
        found.append(both("right labels", shares.hits))
    if new.compared:
        found.append(("other predictions", "-", f"{new.differing / new.compared:.1%}"))
    return [*found, ("memory", "-", f"+{rollout.seen.grown_mb:.0f} MiB")]


def _proceed(rollout: Rollout) -> Rollout:
    """Go on to the next step, or end."""
    why = summary(rollout)
    if rollout.plan.mode == "shadow":
        return rollout.decided("ended", why, status="ended")
    if rollout.plan.mode == "split":
        return rollout  # until its deadline, or a winner is named
    if rollout.step + 1 == len(rollout.plan.steps):
        return rollout.decided("promoted", why, status="promoted")
    entered = rollout.seen.candidate.requests
    return rollout.decided("advanced", why, step=rollout.step + 1, baked_s=0.0, entered=entered)


def _late(rollout: Rollout) -> Rollout:
    why = f"its {rollout.plan.deadline_s:g} s are over: {summary(rollout)}"
    if rollout.plan.measure is not None:
        why = f"{winner.undecided(rollout)}; {why}"
    if rollout.plan.mode == "canary":
        return rollout.decided("stopped", why, status="stopped")
    return rollout.decided("ended", why, status="ended")


def _baked(rollout: Rollout) -> bool:
    """Whether a step has had its time and its requests, and nothing is suspicious."""
    plan = rollout.plan
    enough = rollout.seen.candidate.requests - rollout.entered >= plan.least
    return enough and rollout.baked_s >= plan.bake_s and _log_e(rollout) < math.log(SUSPICION)


def _against(rollout: Rollout) -> str:
    """Why the candidate is stopped: the test that speaks most against it, then all numbers."""
    worst = max(rollout.logs, key=rollout.logs.__getitem__)
    strength = f"e = {math.exp(min(_log_e(rollout), 700)):.3g}"
    return f"{worst}: the limits are passed ({strength}); {summary(rollout)}"


def _log_e(rollout: Rollout) -> float:
    """Log of the mean e-value of all tests."""
    return sequential.mean([(_weight(name), log) for name, log in rollout.logs.items()])


def _weight(test: str) -> float:
    return 1 / _TESTS / (MOST_OUTCOMES if test.startswith(_PREDICTED) else 1)


def _logs(rollout: Rollout, evidence: Evidence) -> dict[str, float]:
    """Logs of the e-values after this look, by what is tested."""
    plan, before = rollout.plan, rollout.seen
    block = evidence.since(before)
    earlier = before.stable, before.candidate

    def above(count: Callable[[Counts], Count], by: float) -> float:
        old, new, *then = map(count, (*block, *earlier))
        return sequential.log_e_above(old, new, (then[0], then[1]), by)

    def apart(name: str) -> float:
        old, new, *then = (shares.predicted(one, name) for one in (*block, *earlier))
        return sequential.log_e_apart(old, new, (then[0], then[1]), plan.apart)

    found = {ERRORS: above(shares.errors, plan.more_errors)}
    found[LABELS] = above(shares.wrong, plan.more_wrong)
    if (limit := shares.limit(plan.p95_ms, before.stable)) is not None:
        found[SLOW] = above(lambda one: shares.slow(one, limit), plan.more_slow)
    if plan.p95_ms is None and (median := shares.median(before.stable)) is not None:
        found[SLOWER] = above(lambda one: shares.slow(one, median), plan.more_slower)
    found |= {f"{_PREDICTED}{name}": apart(name) for name in _outcomes(rollout, evidence)}
    tests = {**rollout.logs, **found}
    return {name: rollout.logs.get(name, 0.0) + found.get(name, 0.0) for name in tests}


def _outcomes(rollout: Rollout, evidence: Evidence) -> list[str]:
    """The outcomes that are tested: those that were seen first."""
    tested = [one.removeprefix(_PREDICTED) for one in rollout.logs if one.startswith(_PREDICTED)]
    counted = {*evidence.stable.outcomes, *evidence.candidate.outcomes}
    return [*tested, *sorted(counted - set(tested))][:MOST_OUTCOMES]
