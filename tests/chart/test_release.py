"""The chart by Helm itself, in process: what an upgrade finds, and what an uninstall waits for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
from helm_python import _native  # its `upgrade` does not pass Helm's --force-conflicts

from tests import kube_api, kuberay
from tests.chart import chart
from tests.fields import defaulted

TUNING = chart.merged(chart.MINIMAL, {"tuning": {"enabled": True}})
REDIS = chart.merged(
    chart.MINIMAL,
    {"ray": {"faultTolerance": {"redisAddress": "redis:6379"}}, "objectStore": {"embedded": True}},
)
CLUSTERS, CLUSTER = "ray.io/v1/rayclusters", "demo-tuning"


@pytest.fixture
def server() -> Iterator[kube_api.Server]:
    emulated = kube_api.Server()
    yield emulated
    emulated.stop()


@pytest.fixture
def helm(server: kube_api.Server, tmp_path: Path) -> Iterator[helm_python.Config]:
    file = str(kube_api.kubeconfig(server, tmp_path))
    with helm_python.Config(namespace="ml", kubeconfig_path=file) as config:
        yield config


def groups(server: kube_api.Server) -> Any:
    """The worker groups of the tuning cluster."""
    return server.mock.objects[CLUSTERS, "ml", CLUSTER].raw["spec"]["workerGroupSpecs"]


def scale(server: kube_api.Server, *, replicas: int, going: list[str]) -> None:
    """Change the tuning cluster as Ray's autoscaler does, by patches of all groups."""
    known = kuberay.schema("RayCluster")["properties"]["workerGroupSpecs"]
    new = kuberay.written(defaulted(groups(server), known), known)
    new[0] |= {"replicas": replicas, "scaleStrategy": {"workersToDelete": going} if going else {}}
    server.updates(CLUSTERS, CLUSTER, "python-requests", {"spec": {"workerGroupSpecs": new}})


def force(helm: helm_python.Config, changes: Any) -> None:
    """Upgrade the release of the tuning cluster, and take over what others own."""
    values, options = json.dumps(chart.merged(TUNING, changes)), '{"force_conflicts": true}'
    context, folder = helm._context_arg(None), str(chart.FOLDER)
    none = _native.HANDLE(0)
    _native.call_string("helm_upgrade", helm._raw(), context, none, folder, "demo", values, options)


@pytest.mark.parametrize("version", ["1.6", "1.7"])
def test_an_upgrade_that_leaves_a_scaled_cluster_as_it_is_conflicts_with_nothing(
    server: kube_api.Server, helm: helm_python.Config, version: str
) -> None:
    """The operator is 1.7, whatever the values say."""
    values = chart.merged(TUNING, {"kuberay": {"version": version}})
    helm.install(chart.FOLDER, "demo", values, namespace="ml")
    scale(server, replicas=3, going=["a", "b"])
    helm.upgrade(chart.FOLDER, "demo", chart.merged(values, {"serving": {"pollSeconds": 2}}))
    assert groups(server)[0]["replicas"] == 3


def test_an_upgrade_that_changes_a_scaled_cluster_needs_force_and_keeps_its_workers(
    server: kube_api.Server, helm: helm_python.Config
) -> None:
    helm.install(chart.FOLDER, "demo", TUNING, namespace="ml")
    scale(server, replicas=3, going=[])
    changes = {"image": {"tag": "0.2.0"}}
    conflict = r'conflict with "python-requests" using ray.io/v1: .spec.workerGroupSpecs'
    with pytest.raises(helm_python.HelmError, match=conflict):
        helm.upgrade(chart.FOLDER, "demo", chart.merged(TUNING, changes))
    force(helm, changes)
    assert groups(server)[0]["replicas"] == 3


@pytest.mark.parametrize(("most", "kept"), [(2, 2), (8, 3)])
def test_the_workers_that_are_kept_are_as_many_as_the_values_allow(
    server: kube_api.Server, helm: helm_python.Config, most: int, kept: int
) -> None:
    helm.install(chart.FOLDER, "demo", TUNING, namespace="ml")
    scale(server, replicas=3, going=[])
    group = {"name": "cpu", "min": 0, "max": most, "cpus": 4, "memory": "8Gi"}
    force(helm, {"tuning": {"workers": [group, group | {"name": "new"}]}})
    assert [each["replicas"] for each in groups(server)] == [kept, 0]


def test_an_uninstall_takes_nothing_away_before_the_clean_up_of_redis_has_ended(
    server: kube_api.Server, helm: helm_python.Config
) -> None:
    helm.install(chart.FOLDER, "demo", REDIS, namespace="ml")
    before = server.names()
    server.mock.statuses["Job"] = ended("Failed")
    with pytest.raises(helm_python.HelmError, match="demo-uninstall"):
        helm.uninstall("demo")
    assert before <= server.names()
    server.mock.statuses["Job"] = ended("Complete")
    helm.uninstall("demo")
    assert server.names() == {"demo-store"}  # the keys, which objectStore.keepData keeps


def ended(how: str) -> dict[str, Any]:
    counts = {"succeeded": int(how == "Complete"), "failed": int(how == "Failed")}
    return {**counts, "conditions": [{"type": how, "status": "True"}]}
