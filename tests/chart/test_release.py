"""A release on an emulated cluster, by Helm itself: what upgrades find and uninstalls wait for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest

from tests import helm_cluster, kube_api
from tests.chart import apply, chart

TUNING = chart.merged(chart.MINIMAL, {"tuning": {"enabled": True}})
REDIS = chart.merged(
    chart.MINIMAL,
    {"ray": {"faultTolerance": {"redisAddress": "redis:6379"}}, "objectStore": {"embedded": True}},
)
CLUSTER = ("ray.io/v1/rayclusters", "ml", "demo-tuning")
GROUPS = ".workerGroupSpecs"


@pytest.fixture
def server() -> Iterator[helm_cluster.Server]:
    emulated = helm_cluster.Server()
    yield emulated
    emulated.stop()


@pytest.fixture
def helm(server: helm_cluster.Server, tmp_path: Path) -> Iterator[helm_python.Config]:
    file = str(kube_api.kubeconfig(server, tmp_path))
    with helm_python.Config(namespace="ml", kubeconfig_path=file) as config:
        yield config


def scale(server: helm_cluster.Server, *, replicas: int, going: list[str]) -> apply.Live:
    """Leave the tuning cluster as Ray's autoscaler does, by its patches of the groups."""
    thing = server.mock.objects[CLUSTER].raw
    live = apply.Live(apply.schema("RayCluster"))
    assert live.apply("helm", thing["spec"]) == []
    spec = apply.written(apply.defaulted(thing["spec"], live.of), live.of)
    spec["workerGroupSpecs"][0]["replicas"] = replicas
    spec["workerGroupSpecs"][0]["scaleStrategy"] = {"workersToDelete": going} if going else {}
    assert live.update("python-requests", spec) == [GROUPS]
    server.mock.objects[CLUSTER] = {**thing, "spec": spec}
    return live


def upgraded(server: helm_cluster.Server, helm: helm_python.Config, changes: Any) -> Any:
    """What Helm then applies to the tuning cluster."""
    helm.upgrade(chart.FOLDER, "demo", chart.merged(TUNING, changes))
    return server.mock.objects[CLUSTER].raw["spec"]


@pytest.mark.parametrize("told", ["1.6", "1.7"])
def test_an_upgrade_that_leaves_a_scaled_cluster_as_it_is_conflicts_with_nothing(
    server: helm_cluster.Server, helm: helm_python.Config, told: str
) -> None:
    """The operator is 1.7, whatever the values say."""
    values = chart.merged(TUNING, {"kuberay": {"version": told}})
    helm.install(chart.FOLDER, "demo", values, namespace="ml")
    first = server.mock.objects[CLUSTER].raw["spec"]
    live = scale(server, replicas=3, going=["a", "b"])
    second = upgraded(server, helm, {"kuberay": {"version": told}, "serving": {"pollSeconds": 2}})
    assert live.apply("helm", first) == [GROUPS]  # what a chart would get that does not look
    assert live.apply("helm", second) == []
    assert live.parts[GROUPS][0]["replicas"] == 3


def test_an_upgrade_that_changes_a_scaled_cluster_needs_force_and_keeps_its_workers(
    server: helm_cluster.Server, helm: helm_python.Config
) -> None:
    helm.install(chart.FOLDER, "demo", TUNING, namespace="ml")
    live = scale(server, replicas=3, going=[])
    second = upgraded(server, helm, {"image": {"tag": "0.2.0"}})
    assert live.apply("helm", second) == [GROUPS]
    assert live.apply("helm", second, force=True) == []
    assert live.parts[GROUPS][0]["replicas"] == 3


@pytest.mark.parametrize(("most", "kept"), [(2, 2), (8, 3)])
def test_the_workers_that_are_kept_are_as_many_as_the_values_allow(
    server: helm_cluster.Server, helm: helm_python.Config, most: int, kept: int
) -> None:
    helm.install(chart.FOLDER, "demo", TUNING, namespace="ml")
    scale(server, replicas=3, going=[])
    group = {"name": "cpu", "min": 0, "max": most, "cpus": 4, "memory": "8Gi"}
    second = upgraded(server, helm, {"tuning": {"workers": [group, group | {"name": "new"}]}})
    assert [each["replicas"] for each in second["workerGroupSpecs"]] == [kept, 0]


def test_an_uninstall_takes_nothing_away_before_the_clean_up_of_redis_has_ended(
    server: helm_cluster.Server, helm: helm_python.Config
) -> None:
    helm.install(chart.FOLDER, "demo", REDIS, namespace="ml")
    before = {key for key, one in server.mock.objects.items() if not one.deleted}
    server.mock.operator.statuses["Job"] = ended("Failed")
    with pytest.raises(helm_python.HelmError, match="demo-uninstall"):
        helm.uninstall("demo")
    assert before <= {key for key, one in server.mock.objects.items() if not one.deleted}
    server.mock.operator.statuses["Job"] = ended("Complete")
    helm.uninstall("demo")
    left = [key[1:] for key, one in server.mock.objects.items() if not one.deleted]
    assert left == [("ml", "demo-store")]  # the keys, which objectStore.keepData keeps


def ended(how: str) -> dict[str, Any]:
    counts = {"succeeded": int(how == "Complete"), "failed": int(how == "Failed")}
    return {**counts, "conditions": [{"type": how, "status": "True"}]}
