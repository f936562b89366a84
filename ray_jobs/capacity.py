"""How many trials of a search may be under way on a cluster that grows and shrinks.

A trial that waits makes Ray's autoscaler add a node. Ray does not say how many nodes the autoscaler
may still add, so a search follows the nodes that are there (docs/adr/0014).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune import search
from ray.tune.experiment import Trial

AHEAD = 10
"""At most this many trials wait for room."""
READ_S = 1.0
"""How old the knowledge of the cluster's nodes may be."""

Resources = Mapping[str, float]


def limit(room: int, live: int, independent: int) -> int:
    """Trials that may be under way, those included that wait for room.

    One more than there is room for, since the one that waits asks for a node. More wait as long as
    no result can change what they try: they cost the sampler nothing.

    Args:
        room: trials that the nodes hold.
        live: trials that have begun or wait.
        independent: trials yet to be drawn that no result can change.
    """
    return max(room + 1, min(live + independent, room + AHEAD))


def room(nodes: Sequence[Resources], wanted: Resources) -> int:
    """Trials that fit on the nodes, each trial on one of them.

    Args:
        nodes: resources of each node, busy or not.
        wanted: resources of a trial; at least one is more than zero.
    """
    return sum(
        int(min(node.get(name, 0.0) // need for name, need in wanted.items() if need))
        for node in nodes
    )


def nodes() -> list[Resources]:
    """Resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class Pace(tune.Callback):
    """Sets the limit of a search anew before each of Ray Tune's steps.

    Until a trial has a score only one waits: were all to fail alike, what waits would fail too.
    """

    def __init__(
        self, limiter: search.ConcurrencyLimiter, wanted: Resources, independent: int
    ) -> None:
        self._limiter, self._wanted, self._independent = limiter, wanted, independent
        self._read_at, self._room = float("-inf"), 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles itself to be restored, which docs/adr/0001 does without

    def on_step_begin(self, *, trials: list[Trial], **_: Any) -> None:  # type: ignore[override]
        now = time.monotonic()
        if now - self._read_at >= READ_S:
            self._read_at, self._room = now, room(nodes(), self._wanted)
        live = sum(not trial.is_finished() for trial in trials)
        works = any((trial.last_result or {}).get("score") is not None for trial in trials)
        ahead = max(0, self._independent - len(trials)) if works else 0
        self._limiter.set_max_concurrency(limit(self._room, live, ahead))
