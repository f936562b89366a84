"""The Ray cluster that a search runs on, and how many of its trials may be under way there.

A trial that waits makes Ray's autoscaler add a node. Ray does not say how many nodes the autoscaler
may still add, so a search follows the nodes that are there (docs/adr/0014).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import ray

from eagleray import ray_compat

AHEAD = 10
"""At most this many trials wait for room."""
READ_S = 1.0
"""The nodes of the cluster are read again after this time."""

Resources = Mapping[str, float]


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start one on this machine for the block.

    A process that is connected already stays as it is. Raises what `ray_compat.connected` raises.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # records say why a trial failed
    address = address or os.environ.get("RAY_ADDRESS")
    with ray_compat.connected(address, ray_compat.DEVICES, num_cpus=os.cpu_count()):
        yield


class Room:
    """Counts the trials of the resources `wanted` that fit on the living nodes."""

    def __init__(self, wanted: Resources) -> None:
        self._wanted, self._count, self._read_at = wanted, 0, float("-inf")

    def __call__(self) -> int:
        if time.monotonic() - self._read_at >= READ_S:
            self._read_at = time.monotonic()
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._count = room(nodes, self._wanted)
        return self._count


def room(nodes: Sequence[Resources], wanted: Resources) -> int:
    """Trials of these resources that fit on the nodes, busy or not; each trial is on one node."""
    return sum(
        int(min(node.get(name, 0.0) // need for name, need in wanted.items() if need))
        for node in nodes
    )


def limit(room: int, live: int, independent: int) -> int:
    """The most trials that may be under way; `live` are, those that wait for room included.

    One more than there is room for, since the one that waits asks for a node. More wait while no
    result can change what they try (`independent`): they cost the sampler nothing.
    """
    return max(room + 1, min(live + independent, room + AHEAD))
