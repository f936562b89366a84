"""A Ray cluster on this machine whose autoscaler (v2) starts and ends nodes.

Ray has `ray.cluster_utils.AutoscalingCluster` for this, but that ends every Ray process of the
machine when it starts, and reads a file that is not in the wheel. Here is the same head with the
same provider of nodes, on loopback and on ports of its own.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from ray._private import services
from ray.autoscaler._private.fake_multi_node import node_provider

from tests import ray_nodes

HOST = "127.0.0.2"
HEAD = node_provider.FAKE_HEAD_NODE_ID
VARIABLES = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
    "RAY_AUTH_MODE": "disabled",  # else Ray asks for a token where a file of the user holds one
    "RAY_CLOUD_INSTANCE_ID": HEAD,
    "RAY_FAKE_CLUSTER": "1",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    "RAY_enable_autoscaler_v2": "1",
}
"""Those that `AutoscalingCluster` sets, and the way to `Provider`."""
STEPS = (
    "cluster_synced_files",
    "head_setup_commands",
    "head_start_ray_commands",
    "initialization_commands",
    "setup_commands",
    "worker_setup_commands",
    "worker_start_ray_commands",
)
"""What Ray wants to be told to leave out."""


class Provider(node_provider.FakeMultiNodeProvider):
    """Starts nodes as processes of the autoscaler's, on loopback."""

    def _create_node_with_resources_and_labels(self, *given: Any) -> None:
        with mock.patch.object(services, "get_node_ip_address", return_value=HOST):
            super()._create_node_with_resources_and_labels(*given)


@contextlib.contextmanager
def cluster(workers: int, *, idle_s: float, gpus: int = 0) -> Iterator[str]:
    """Start a head without CPUs; end it, and all nodes that it has then, at the end.

    Args:
        workers: the most nodes of one CPU that the autoscaler starts; it begins with none.
        gpus: what each node says it has; no program uses them.
        idle_s: how long an idle node stays.

    Yields:
        The address for `ray.init`.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    port = ray_nodes.free_port()
    config = folder / "autoscaler.json"
    config.write_text(json.dumps(_config(f"{HOST}:{port}", workers, idle_s, gpus)))
    options = ["--head", f"--port={port}", f"--node-ip-address={HOST}", "--num-cpus=0"]
    options += ["--include-dashboard=false", f"--temp-dir={folder}"]
    options += [f"--ray-client-server-port={ray_nodes.free_port()}"]
    options += [f"--autoscaling-config={config}"]
    try:
        head = ray_nodes.started(options, folder, VARIABLES)
        try:
            yield f"{HOST}:{port}"
        finally:
            ray_nodes.end(head)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _config(address: str, workers: int, idle_s: float, gpus: int) -> dict[str, object]:
    def node_type(cpus: int, most: int) -> dict[str, object]:
        resources = {"CPU": cpus, "object_store_memory": 100_000_000}
        if cpus and gpus:
            resources["GPU"] = gpus
        return {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}

    return {
        **{step: [] for step in STEPS},
        "auth": {},
        "file_mounts": {},
        "cluster_name": "autoscaled",
        "max_workers": workers,
        "idle_timeout_minutes": idle_s / 60,
        "provider": {
            "type": "external",
            "module": f"{__name__}.{Provider.__name__}",
            "gcs_address": address,
            "head_node_id": HEAD,
            "launch_multiple": True,
        },
        "head_node_type": node_provider.FAKE_HEAD_NODE_TYPE,
        "available_node_types": {
            node_provider.FAKE_HEAD_NODE_TYPE: node_type(0, 0),
            "worker": node_type(1, workers),
        },
    }
