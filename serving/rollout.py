"""Decisions of a rollout, pure: from its state and what was counted to its next state.

The candidate is compared with the stable version on the traffic of the same time, by sequential
tests (`serving.sequential`): of errors, of slow requests, and of what is predicted. Their e-values
are averaged; the mean exceeds 1 / `false_stops` with a probability of at most `false_stops`, ever,
if the candidate is within the limits of its plan (Ville's inequality).
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from eagleray.state.rollouts import Counts, Evidence, Rollout
from serving import sequential
from serving.sequential import Count

GROWTH = 1.1
"""Ratio of the ends of a bucket of times."""
MOST_OUTCOMES = 20
"""Outcomes that are tested, each with this share of a third of the weight."""
LEAST_TIMES = 50
"""Requests of the stable version from which on its p95 is known well enough."""
ERRORS, SLOW, _PREDICTED = "errors", "slow requests", "predictions of "
MOST_SHOWN, MOST_DECISIONS = 7, 20
"""Outcomes and decisions that a person is shown."""
SUSPICION = 10.0
"""While the e-value is higher, a rollout does not go on to its next step."""


def bucket(seconds: float) -> int:
    """The bucket of a time: those of one differ by less than `GROWTH`."""
    return math.floor(math.log(max(seconds, 1e-6)) / math.log(GROWTH))


def step(rollout: Rollout, evidence: Evidence, passed_s: float) -> Rollout:
    """Return the rollout after a look at all `evidence`, `passed_s` seconds after the last one."""
    if not rollout.open:
        return rollout
    running = rollout.status == "running"
    looked = rollout.model_copy(
        update={
            "age_s": rollout.age_s + passed_s,
            "baked_s": rollout.baked_s + (passed_s if running else 0.0),
            "seen": evidence,
            "logs": _logs(rollout, evidence),
        }
    )
    if evidence.refused is not None:
        return looked.decided("stopped", evidence.refused, status="stopped")
    if evidence.grown_mb > rollout.plan.more_memory_mb:
        grown = f"memory: a replica has grown by {evidence.grown_mb:.0f} MiB since it came"
        return looked.decided("stopped", f"{grown}; {summary(looked)}", status="stopped")
    if _log_e(looked) >= -math.log(rollout.plan.false_stops):
        return looked.decided("stopped", _against(looked), status="stopped")
    if looked.age_s >= rollout.plan.deadline_s:
        return _late(looked)
    return _proceed(looked) if running and _baked(looked) else looked


def summary(rollout: Rollout) -> str:
    """What was counted, in numbers."""
    old, new = rollout.seen.stable, rollout.seen.candidate
    failed = f"errors {_errors(new).rate:.2%} (champion {_errors(old).rate:.2%})"
    texts = [f"{new.requests} requests", failed]
    if (limit := _limit(rollout, old)) is not None:
        late, others = (_slow(one, limit).rate for one in (new, old))
        texts.append(f"over {_milliseconds(limit):.3g} ms {late:.1%} (champion {others:.1%})")
    if new.compared:
        texts.append(f"{new.differing / new.compared:.1%} of {new.compared} predictions differ")
    return ", ".join(texts)


def described(rollout: Rollout) -> dict[str, Any]:
    """A rollout for people: how far it is, what was counted of both versions, every decision."""
    decisions = [
        {"at": one.at, "action": one.action, "share": f"{one.share:.0%}", "why": one.why}
        for one in reversed(rollout.decisions[-MOST_DECISIONS:])
    ]
    strength, limit = math.exp(min(_log_e(rollout), 700)), 1 / rollout.plan.false_stops
    return {
        "stable": rollout.stable,
        "candidate": rollout.candidate,
        "headline": rollout.headline,
        "open": rollout.open,
        "steps": rollout.plan.steps,
        "step": rollout.step,
        "compared": _compared(rollout),
        "doubt": f"evidence against version {rollout.candidate}: e = {strength:.3g},"
        f" and {limit:g} stops it",
        "decisions": decisions,
    }


def _compared(rollout: Rollout) -> list[tuple[str, str, str]]:
    """What was counted, of the stable version and of the candidate."""
    old, new = rollout.seen.stable, rollout.seen.candidate

    def both(what: str, count: Callable[[Counts], Count]) -> tuple[str, str, str]:
        first, second = (f"{count(one).rate:.2%}" if one.requests else "-" for one in (old, new))
        return what, first, second

    found = [("requests", f"{old.requests:,}", f"{new.requests:,}"), both(ERRORS, _errors)]
    if (limit := _limit(rollout, old)) is not None:
        found.append(both(f"over {_milliseconds(limit):.3g} ms", lambda one: _slow(one, limit)))
    counted = (Counter(old.outcomes) + Counter(new.outcomes)).most_common(MOST_SHOWN)
    for name, _ in counted:
        found.append(both(f"predicted {name}", functools.partial(_predicted, outcome=name)))
    if new.compared:
        found.append(("other predictions", "-", f"{new.differing / new.compared:.1%}"))
    return [*found, ("memory", "-", f"+{rollout.seen.grown_mb:.0f} MiB")]


def _proceed(rollout: Rollout) -> Rollout:
    """Go on to the next step, or end."""
    why = summary(rollout)
    if rollout.plan.mode == "shadow":
        return rollout.decided("ended", why, status="ended")
    if rollout.plan.mode == "split":
        return rollout  # until its deadline
    if rollout.step + 1 == len(rollout.plan.steps):
        return rollout.decided("promoted", why, status="promoted")
    entered = rollout.seen.candidate.requests
    return rollout.decided("advanced", why, step=rollout.step + 1, baked_s=0.0, entered=entered)


def _late(rollout: Rollout) -> Rollout:
    why = f"its {rollout.plan.deadline_s:g} s are over: {summary(rollout)}"
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
    return 1 / 3 / MOST_OUTCOMES if test.startswith(_PREDICTED) else 1 / 3


def _logs(rollout: Rollout, evidence: Evidence) -> dict[str, float]:
    """Logs of the e-values after this look, by what is tested."""
    plan, before = rollout.plan, rollout.seen
    block = evidence.stable.minus(before.stable), evidence.candidate.minus(before.candidate)
    earlier = before.stable, before.candidate

    def above(count: Callable[[Counts], Count], by: float) -> float:
        old, new, *then = map(count, (*block, *earlier))
        return sequential.log_e_above(old, new, (then[0], then[1]), by)

    def apart(name: str) -> float:
        old, new, *then = (_predicted(one, name) for one in (*block, *earlier))
        return sequential.log_e_apart(old, new, (then[0], then[1]), plan.apart)

    found = {ERRORS: above(_errors, plan.more_errors)}
    if (limit := _limit(rollout, before.stable)) is not None:
        found[SLOW] = above(lambda one: _slow(one, limit), plan.more_slow)
    found |= {f"{_PREDICTED}{name}": apart(name) for name in _outcomes(rollout, evidence)}
    tests = {**rollout.logs, **found}
    return {name: rollout.logs.get(name, 0.0) + found.get(name, 0.0) for name in tests}


def _outcomes(rollout: Rollout, evidence: Evidence) -> list[str]:
    """The outcomes that are tested: those that were seen first."""
    tested = [one.removeprefix(_PREDICTED) for one in rollout.logs if one.startswith(_PREDICTED)]
    counted = {*evidence.stable.outcomes, *evidence.candidate.outcomes}
    return [*tested, *sorted(counted - set(tested))][:MOST_OUTCOMES]


def _errors(counts: Counts) -> Count:
    return Count(counts.errors, counts.requests)


def _predicted(counts: Counts, outcome: str) -> Count:
    return Count(counts.outcomes.get(outcome, 0), sum(counts.outcomes.values()))


def _slow(counts: Counts, limit: int) -> Count:
    slow = sum(number for place, number in counts.seconds.items() if place > limit)
    return Count(slow, sum(counts.seconds.values()))


def _limit(rollout: Rollout, stable: Counts) -> int | None:
    """The last bucket that is not slow: of the objective, or else of the stable version's p95."""
    if rollout.plan.p95_ms is not None:
        return bucket(rollout.plan.p95_ms / 1000)
    whole, running = sum(stable.seconds.values()), 0
    if whole < LEAST_TIMES:
        return None
    for place, number in sorted(stable.seconds.items()):
        running += number
        if running >= 0.95 * whole:
            return place
    raise AssertionError("the last bucket has all")


def _milliseconds(limit: int) -> float:
    return 1000 * GROWTH ** (limit + 1)
