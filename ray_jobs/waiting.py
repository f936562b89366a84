"""Trials that wait for resources: since when, and what is missing on which nodes."""

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ray import tune

from eagleray import ray_load, spec
from eagleray.state import searches
from ray_jobs import cluster

READ_S = 2.0
"""Interval between two looks at the trials, and at the cluster."""
PATIENCE_S = 30.0
"""Time after which an autoscaler that starts no node is taken to have none that would do."""


class _Wait(NamedTuple):
    numbers: list[int]  # of the trial's members
    since: float  # in seconds since 1970
    asked: cluster.Resources  # for each worker


class Queue(tune.Callback):
    """The trials of a search that wait; Ray Tune calls by keyword, other threads call it."""

    def __init__(self, compute: spec.Compute) -> None:
        self._compute = compute
        self._waits: dict[str, _Wait] = {}  # by Ray's id; replaced, never changed
        self._groups: set[str] = set()  # ids of trials whose workers have not started
        self._looked_at = self._read_at = float("-inf")
        self._read: list[searches.Waiting] = []

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it for its own recovery; a search resumes from its records

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        if result.get("waits"):
            self._groups.add(trial.trial_id)
        else:
            self._groups.discard(trial.trial_id)

    def on_step_end(self, *, trials: Sequence[Any], **_: Any) -> None:  # type: ignore[override]
        if time.monotonic() - self._looked_at < READ_S:
            return
        self._looked_at = time.monotonic()
        self._waits = dict(self._look(trials))

    def __call__(self) -> list[searches.Waiting]:
        """Those that wait now, the first first."""
        if not self._waits:
            return []
        if time.monotonic() - self._read_at >= READ_S:
            self._read_at = time.monotonic()
            self._read = explain_waits(list(self._waits.values()), ray_load.load)
        return self._read

    def _look(self, trials: Iterable[Any]) -> Iterable[tuple[str, _Wait]]:
        for trial in trials:
            pending = trial.status == "PENDING"
            if pending or (trial.status == "RUNNING" and trial.trial_id in self._groups):
                numbers = [one["number"] for one in trial.config["members"]]
                asked = (
                    cluster.reserved(self._compute) if pending else cluster.wanted(self._compute)
                )
                known = self._waits.get(trial.trial_id)
                yield trial.trial_id, _Wait(numbers, known.since if known else time.time(), asked)


def explain_waits(
    waits: Sequence[_Wait], load: Callable[[], ray_load.Load]
) -> list[searches.Waiting]:
    """Explain for each waiting trial what it lacks; those with free resources are left out.

    Ray does not say whose a request is: of trials that ask for the same, the last ones wait.
    """
    try:
        now = load()
    except Exception as failure:  # noqa: BLE001 - Ray raises what it likes; the search goes on
        why = f"Ray does not tell what is missing: {failure}"
        return [searches.Waiting(numbers=one.numbers, since=one.since, why=why) for one in waits]
    found, groups = list[searches.Waiting](), defaultdict[str, list[int]](list)
    for bundle, count in now.requests:
        groups[_key(bundle)].append(count)
    for one in sorted(waits, key=lambda wait: wait.since, reverse=True):
        if groups[_key(one.asked)]:
            why, never = explain(one.asked, groups[_key(one.asked)].pop(), now)
            never &= now.autoscaled is False or time.time() - one.since >= PATIENCE_S
            waiting = searches.Waiting(numbers=one.numbers, since=one.since, why=why, never=never)
            found.append(waiting)
    return found[::-1]


def explain(asked: cluster.Resources, workers: int, load: ray_load.Load) -> tuple[str, bool]:
    """What workers of one trial lack, on which nodes; and whether no node that is there has it."""
    each = cluster.shown(asked)
    what = f"{workers} workers with {each} each" if workers > 1 else each
    fitting = cluster.room([node.total for node in load.nodes], asked)
    if fitting == 0:
        largest = cluster.largest([node.total for node in load.nodes], asked)
        text = f"{what}; no node has that, at most {cluster.shown(largest)}{_coming(load)}"
        return text, not load.starting
    if fitting < workers:
        return f"{what}; only {fitting} fit on the cluster{_coming(load)}", not load.starting
    able = [node for node in load.nodes if cluster.room([node.total], asked)]
    kinds = itertools.groupby(sorted(able, key=lambda one: one.kind), key=lambda one: one.kind)
    used = "; ".join(_used(kind, list(nodes), asked) for kind, nodes in kinds)
    free = cluster.room([node.free for node in load.nodes], asked)
    return f"{what}; {free or 'none'} free now: {used}{_coming(load)}", False


def _used(kind: str, nodes: Sequence[ray_load.Node], asked: cluster.Resources) -> str:
    """What of the resources that are short is used on the nodes of a kind."""
    short = [
        name for name in asked if not any(one.free.get(name, 0) >= asked[name] for one in nodes)
    ]
    parts = []
    for name in short or asked:
        total = sum(one.total.get(name, 0.0) for one in nodes)
        taken = total - sum(one.free.get(name, 0.0) for one in nodes)
        parts.append(f"{cluster.number(name, taken)} of {cluster.shown({name: total})}")
    count = f"{len(nodes)} nodes" if len(nodes) > 1 else "1 node"
    return f"{' and '.join(parts)} used on {count}{f' of {kind}' if kind else ''}"


def _coming(load: ray_load.Load) -> str:
    """What the autoscaler does about it."""
    if load.starting:
        starts = " and ".join(f"{count} of {kind}" for kind, count in load.starting.items())
        return f"; the autoscaler starts {starts}"
    if load.failed:
        return f"; {load.failed[-1]}"
    return "; the autoscaler starts no node" if load.autoscaled else ""


def _key(resources: Mapping[str, float]) -> str:
    return repr(sorted((name, float(amount)) for name, amount in resources.items() if amount))
