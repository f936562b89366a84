"""The resources of a Ray cluster, its pending requests, and the state of its autoscaler.

Parts of Ray 2.60 that are private or undocumented, under the test of `ray_compat`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Node(NamedTuple):
    """A living node; amounts are by resource."""

    kind: str  # the autoscaler's type of node; empty if it has none
    total: dict[str, float]
    free: dict[str, float]


class Load(NamedTuple):
    """A cluster's resources, its pending requests, and what its autoscaler does about them."""

    nodes: list[Node]
    requests: list[tuple[dict[str, float], int]]  # groups that wait: each bundle, and how many
    autoscaled: bool | None = None  # whether an autoscaler may add nodes; None: not known yet
    starting: Mapping[str, int] = {}  # nodes that are being started, by type
    failed: Sequence[str] = ()  # why nodes could not be started, the latest last


def load() -> Load:
    """The load of the cluster that this process is connected to."""
    import ray
    from ray.autoscaler.v2 import sdk

    status = sdk.get_cluster_status(ray.get_runtime_context().gcs_address, timeout=5)
    demands = status.resource_demands.placement_group_demand
    starting, autoscaled = _first_autoscaler()
    starting.update({one.ray_node_type_name: one.count for one in status.pending_launches})
    starting.update(one.ray_node_type_name for one in status.pending_nodes)
    return Load(
        nodes=[_node(one) for one in (*status.active_nodes, *status.idle_nodes)],
        requests=[
            (dict(bundle.bundle), bundle.count)
            for demand in demands
            for bundle in demand.bundles_by_count
        ],
        autoscaled=True if status.stats.autoscaler_version != "0" else autoscaled,
        starting=starting,
        failed=[
            f"{one.ray_node_type_name} could not be started: {one.details}"
            for one in status.failed_launches
        ],
    )


def _first_autoscaler() -> tuple[Counter[str], bool | None]:
    """What version 1 of the autoscaler starts, and whether it may; None: it has not reported yet.

    It runs on every head; without types of nodes it calls each node's type by the node.
    """
    from ray._private import ray_constants
    from ray.autoscaler._private.util import format_readonly_node_type
    from ray.experimental import internal_kv

    text = internal_kv._internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS)
    report = json.loads(text or "{}").get("autoscaler_report") or {}
    starting = Counter(report.get("pending_launches") or {})
    starting.update(kind for _, kind, _ in report.get("pending_nodes") or [])
    kinds = (report.get("node_type_mapping") or {}).items()
    own = [kind != format_readonly_node_type(node) for node, kind in kinds]
    return starting, any(own) if own else None


def _node(found: Any) -> Node:
    usage = found.resource_usage.usage
    kind = found.ray_node_type_name or ""
    return Node(
        kind="" if kind == f"node_{found.node_id}" else kind,
        total={one.resource_name: one.total for one in usage},
        free={one.resource_name: one.total - one.used for one in usage},
    )
