"""A version that does not fit into a replica, on real Ray Serve behind HAProxy."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eagleray import storage
from eagleray.state.models import Registry
from eagleray.state.rollouts import Plan, Rollout, Rollouts
from tests import bundles, pods, serve_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAME, LARGE = "left", "left-large"
ROWS = bundles.instances(bundles.rows(5, seed=11))
BODY = msgspec.json.encode({"instances": [ROWS[0] | {"age": 120}, *ROWS[1:]]})
PLAN = Plan(steps=(0.5,), bake_s=30, least=20, more_slow=0.99, more_slower=0.99, apart=0.99)


class Endpoint:
    """One replica with room for one version, at version 1."""

    def __init__(self, cluster: serve_nodes.Nodes, folder: Path) -> None:
        self.cluster, store = cluster, storage.open(folder.as_uri())
        self.registry, self.rollouts = Registry(store), Rollouts(store)
        version = self.registry.register(NAME, bundles.behaving(), {})
        self.registry.promote(NAME, 1)
        size = sum(one.size for one in version.files.values()) / 2**20
        args: dict[str, Any] = {"name": NAME, "storage": folder.as_uri(), "poll_s": 0.2}
        args |= {"max_replicas": 1, "cpus": 0.4, "versions_mb": 1.5 * size}
        args |= {"large": {"unused_s": 15}}
        known = {"name": NAME, "route_prefix": "/", "import_path": "serving.app:build"}
        self.application = {**known, "args": args}

    def start(self) -> serve_nodes.Node:
        self.cluster.head()
        worker = self.cluster.worker()
        self.cluster.apply(self.application)
        self.cluster.until("it runs", lambda: self.cluster.running(NAME))
        self.cluster.until("it answers", lambda: pods.predict(worker.url(), BODY)[0] == 200)
        return worker

    def large(self) -> list[int]:
        """Processes of the replicas of the deployment for large versions."""
        found = (self.cluster.applications() or {})[NAME]["deployments"][LARGE]["replicas"]
        return [one["pid"] for one in found if one["state"] == "RUNNING"]

    def candidate_requests(self) -> int:
        return self.rollouts.current(NAME).seen.candidate.requests

    def end(self) -> Rollout:
        """Wait until the rollout has ended."""
        self.cluster.until("it ends", lambda: not self.rollouts.current(NAME).open)
        return self.rollouts.current(NAME)


def version(answer: tuple[int, str]) -> int:
    return int(json.loads(answer[1])["version"])


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with serve_nodes.nodes() as cluster:
        yield Endpoint(cluster, tmp_path_factory.mktemp("models"))


def test_large_versions_are_rolled_out_beside_the_endpoint_and_no_request_fails(
    endpoint: Endpoint,
) -> None:
    worker, until = endpoint.start(), endpoint.cluster.until
    assert endpoint.large() == [], "there is no replica until a version needs one"
    with pods.load(worker.url(), BODY, 3, pause_s=0.02) as asked:
        endpoint.registry.register(NAME, bundles.behaving("assert not (age > 3).any()"), {})
        endpoint.rollouts.start(NAME, 2, plan=PLAN)
        bad = endpoint.end()
        why = bad.decisions[-1].why
        assert (bad.status, why.partition(":")[0]) == ("stopped", "errors"), why

        endpoint.registry.register(NAME, bundles.behaving(), {})
        lenient = PLAN.model_copy(update={"bake_s": 8, "more_errors": 0.99})
        endpoint.rollouts.start(NAME, 3, plan=lenient)
        until("it is asked", lambda: endpoint.candidate_requests() > 0)
        (process,) = endpoint.large()
        os.kill(process, signal.SIGKILL)
        endpoint.cluster.apply(endpoint.application)  # as KubeRay does when it restarts
        good = endpoint.end()
        assert good.status == "promoted", good.decisions[-1]
        until("no replica is left", lambda: endpoint.large() == [])
        until("the champion serves", lambda: version(asked[-1]) == 3)
    assert len(asked) > 500
    assert not [text for status, text in asked if status != 200]
    assert {version(one) for one in asked} == {1, 3}
