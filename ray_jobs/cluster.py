"""The Ray cluster of a search, and how many trials the search may start there.

A pending trial makes Ray's autoscaler add a node. Ray does not tell how many nodes the autoscaler
may still add, so the limit follows the nodes that are alive (docs/adr/0014).
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import ray

from eagleray import ray_compat

MAX_PENDING = 10
"""Maximum number of pending trials."""
READ_S = 1.0
"""Interval between two reads of the cluster's nodes."""

Resources = Mapping[str, float]


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Connect to the cluster at `address` or `RAY_ADDRESS`, else start one on this machine.

    Does nothing in a process that is connected. Raises what `ray_compat.connected` raises.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # records say why a trial failed
    address = address or os.environ.get("RAY_ADDRESS")
    with ray_compat.connected(address, ray_compat.DEVICES, num_cpus=os.cpu_count()):
        yield


class Room:
    """Counts the trials that fit on the living nodes; `wanted` are the resources of each."""

    def __init__(self, wanted: Resources) -> None:
        self._wanted, self._count, self._read_at = wanted, 0, float("-inf")

    def __call__(self) -> int:
        if time.monotonic() - self._read_at >= READ_S:
            self._read_at = time.monotonic()
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._count = room(nodes, self._wanted)
        return self._count


def room(nodes: Sequence[Resources], wanted: Resources) -> int:
    """Number of trials that fit on the nodes, busy or not; a trial runs on one node."""
    return sum(
        int(min(node.get(name, 0.0) // need for name, need in wanted.items() if need))
        for node in nodes
    )


def limit(room: int, live: int, independent: int) -> int:
    """Maximum number of running and pending trials, of which there are `live` now.

    One pending trial makes the autoscaler add a node. Up to `MAX_PENDING` may be pending if they
    are among the next `independent` trials, which depend on no result.
    """
    return max(room + 1, min(live + independent, room + MAX_PENDING))
