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

from eagleray import errors, ray_compat, ray_load, spec

log = logging.getLogger(__name__)

MAX_PENDING = 10
"""Maximum number of pending trials."""
COORDINATOR = {"memory": 2.0**28}
"""What Ray reserves for the actor of a trial with a group, whose workers Ray Train places."""
JOIN_S = 180.0
"""How long a cluster without a CPU is waited for: its first worker may still fetch its image."""
AUTOSCALER_S = 15.0
"""Time within which the autoscaler of a new cluster reports; it does so every 5 s."""
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


def wanted(compute: spec.Compute) -> dict[str, float]:
    """What Ray reserves for a worker."""
    return {"CPU": compute.cpus} | ({"GPU": compute.gpus} if compute.gpus else {})


def reserved(compute: spec.Compute) -> dict[str, float]:
    """What Ray Tune reserves for a trial: its worker, or the coordinator of its group."""
    return COORDINATOR if compute.grouped else wanted(compute)


class Room:
    """Counts the trials that fit on the living nodes, and `more`."""

    def __init__(self, compute: spec.Compute, more: int = 0) -> None:
        self._compute, self._more, self._count, self._read_at = compute, more, 0, float("-inf")

    def __call__(self) -> int:
        if time.monotonic() - self._read_at >= READ_S:
            self._read_at = time.monotonic()
            workers, fitting = self._compute.workers, room(alive(), wanted(self._compute))
            self._count = fitting // workers.max or int(fitting >= workers.min)
        return self._count + self._more


def nodes() -> dict[str, Resources]:
    """The resources of the living nodes, by id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def alive() -> list[Resources]:
    """The resources of the living nodes."""
    return list(nodes().values())


def joined() -> list[Resources]:
    """The resources of the living nodes, once one has a CPU: workers join their head later."""
    until = time.monotonic() + (0.0 if ray_compat.started_here() else JOIN_S)
    while not any(one.get("CPU") for one in alive()) and time.monotonic() < until:
        time.sleep(READ_S)
    return alive()


def own_node() -> dict[str, str]:
    """The label selector of the node that this process is on."""
    return {ray_compat.NODE_LABEL: ray.get_runtime_context().get_node_id()}


def grows() -> bool:
    """Whether an autoscaler may add nodes; also where Ray does not tell.

    The autoscaler of a cluster that has just started is waited for.
    """
    if ray_compat.started_here():
        return False
    until = time.monotonic() + AUTOSCALER_S
    try:
        while (autoscaled := ray_load.load().autoscaled) is None and time.monotonic() < until:
            time.sleep(READ_S)
    except Exception as failure:  # Ray raises what it likes, such as behind its client
        log.info("Ray does not tell of its autoscaler", exc_info=failure)
        return True
    return autoscaled is not False


def fit(nodes: Sequence[Resources], compute: spec.Compute) -> None:
    """UserError if a trial does not fit on the nodes; names the largest that does."""
    asked, least = wanted(compute), compute.workers.min
    fitting, each = room(nodes, asked), shown(asked)
    if 0 < fitting < least:
        law = f"must fit on the cluster, at most {fitting} with {each} each"
        raise errors.UserError(f"compute.workers: {law}, but got {least}")
    if fitting < least:
        law = f"a worker must fit on a node, at most {shown(largest(nodes, asked))}"
        raise errors.UserError(f"compute: {law}, but got {each}")


def largest(nodes: Sequence[Resources], asked: Resources) -> Resources:
    """The most that a node has of each resource that is asked for."""
    return {name: max((one.get(name, 0.0) for one in nodes), default=0) for name in asked}


def shown(resources: Resources) -> str:
    """Resources in words: `1 CPU and 0.5 GPU`."""
    units = {"memory": "GiB of memory"}
    return " and ".join(
        f"{number(name, amount)} {units.get(name, name)}" for name, amount in resources.items()
    )


def number(name: str, amount: float) -> str:
    """An amount of a resource without its name; memory in GiB."""
    return f"{amount / 2**30:.3g}" if name == "memory" else f"{amount:g}"


def room(nodes: Sequence[Resources], wanted: Resources) -> int:
    """Number of workers that fit on the nodes, busy or not; each runs on one node."""
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
