"""The winner of a split, named by a stated measure. Pure.

Two tests run side by side: the candidate is no better, and the stable version is no better. A
winner is named when the mean of their e-values reaches 1 / `false_winner`; between equal versions
that happens with a probability of at most `false_winner`, however long they are watched.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from eagleray.state import rollouts
from eagleray.state.evidence import Counts, Evidence
from eagleray.state.rollouts import Rollout
from serving import sequential, shares
from serving.sequential import Count

CANDIDATE, CHAMPION = "candidate", "champion"


class Measure(NamedTuple):
    """What a split is judged by."""

    counts: Callable[[Counts], Count]  # events among trials of a version
    trials: str  # `labels` or `requests`
    fewer: bool  # whether fewer events are better


def logs(rollout: Rollout, evidence: Evidence) -> dict[str, float]:
    """Logs of the e-values for either version, after a look at all `evidence`."""
    before, wins = rollout.seen, rollout.wins
    measure = _measure(rollout)
    if measure is None:
        return wins
    stable, candidate = map(measure.counts, evidence.since(before))
    old, new = map(measure.counts, (before.stable, before.candidate))
    more = sequential.log_e_above(stable, candidate, (old, new), 0.0)
    less = sequential.log_e_above(candidate, stable, (new, old), 0.0)
    better, worse = (less, more) if measure.fewer else (more, less)
    return {
        CANDIDATE: wins.get(CANDIDATE, 0.0) + better,
        CHAMPION: wins.get(CHAMPION, 0.0) + worse,
    }


def named(rollout: Rollout) -> Rollout | None:
    """The rollout after its end with a winner; None while none is named."""
    if not rollout.wins or _log_e(rollout) < -math.log(rollout.plan.false_winner):
        return None
    wins = rollout.wins[CANDIDATE] > rollout.wins[CHAMPION]
    why = f"{CANDIDATE if wins else CHAMPION} is better: {_numbers(rollout)}"
    number = rollout.candidate if wins else rollout.stable
    if wins and rollout.plan.promote_winner:
        return rollout.decided("promoted", why, status="promoted", winner=number)
    return rollout.decided("ended", why, status="ended", winner=number)


def undecided(rollout: Rollout) -> str:
    """Why no winner is named, in numbers."""
    return f"no difference: {_numbers(rollout)}"


def _numbers(rollout: Rollout) -> str:
    """Rates of the better and the other version, the e-value, and their trials together."""
    measure = _measure(rollout)
    if measure is None:
        return "too few requests"
    stable, candidate = map(measure.counts, (rollout.seen.stable, rollout.seen.candidate))
    rates = [f"{candidate.rate:.3g}", f"{stable.rate:.3g}"]
    if rollout.wins.get(CANDIDATE, 0.0) < rollout.wins.get(CHAMPION, 0.0):
        rates.reverse()
    e_value = math.exp(min(_log_e(rollout), 700))
    trials = f"{candidate.trials + stable.trials:,} {measure.trials}"
    return f"{' against '.join(rates)}, e-value {e_value:.3g}, {trials}"


def _measure(rollout: Rollout) -> Measure | None:
    """The measure of a plan; None for a plan without one, or before it is known what is slow."""
    measure = rollout.plan.measure
    if measure is None:
        return None
    if measure == rollouts.LABEL:
        return Measure(shares.hits, "labels", fewer=False)
    if measure == rollouts.ERRORS:
        return Measure(shares.errors, "requests", fewer=True)
    if measure == rollouts.LATENCY:
        limit = shares.limit(rollout.plan.p95_ms, rollout.seen.stable)
        if limit is None:
            return None
        return Measure(lambda one: shares.slow(one, limit), "requests", fewer=True)
    outcome = measure.removeprefix(rollouts.OUTCOME)
    return Measure(lambda one: shares.predicted(one, outcome), "requests", fewer=False)


def _log_e(rollout: Rollout) -> float:
    """Log of the mean of both e-values."""
    return sequential.mean([(0.5, log) for log in rollout.wins.values()])
