"""Why a run's trials wait, from what its driver has put into storage. Pure."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from eagleray import findings, messages
from eagleray.client import runs, screen
from eagleray.findings import Finding
from eagleray.state.searches import View, Waiting

ENDED = "wait until a trial ends, or add a node that has it"
NEVER = "add a node that has it, or set compute in the experiment file to what a node has"


def explain(attempt: runs.Attempt, view: View | None, now: float) -> findings.Explanation:
    """Explain the state of an attempt whose search has this view; `now` is as `View.at`."""
    found = _finding(attempt, view, now)
    if view is not None:
        found = found.under(f"search: {screen.headline(view)}")
    why = f": {attempt.why}" if attempt.why else ""
    found = found.under(f"Run {attempt.id}: {attempt.state}{why}")
    return findings.Explanation("Run", attempt.id, attempt.state, found, ())


def finding(waiting: Sequence[Waiting], now: float) -> Finding | None:
    """What trials wait for, the first that waits in vain before others; None if none waits."""
    if not waiting:
        return None
    lines = list(_lines(waiting, now))
    first = next((place for place, one in enumerate(waiting) if one.never), 0)
    if waiting[first].never:
        return findings.failed(lines[first], NEVER, tuple(lines))
    return Finding("wait", lines[first], ENDED, tuple(lines))


def _finding(attempt: runs.Attempt, view: View | None, now: float) -> Finding:
    if attempt.state == "running":
        waits = finding(view.waiting, now) if view else None
        return waits or findings.passed("nothing is wrong")
    if attempt.state == "succeeded":
        return findings.passed("nothing is wrong")
    if attempt.state == "waiting":
        return Finding("wait", "its driver has not started yet", f"eagleray runs logs {attempt.id}")
    law = {"unfinished": "no driver process", "stopped": "it was stopped"}
    cause = law.get(attempt.state) or attempt.why or "its driver has failed"
    return findings.failed(cause, f"run it again: {runs.RESUME}")


def _lines(waiting: Sequence[Waiting], now: float) -> Iterator[str]:
    for one in waiting:
        trials = messages.listed([str(number) for number in one.numbers])
        subject = f"trial {trials} waits" if len(one.numbers) == 1 else f"trials {trials} wait"
        since = f"{datetime.fromtimestamp(one.since, UTC):%H:%M:%S} UTC"
        yield f"{subject} since {since} ({messages.span(now - one.since)}): {one.why}"
