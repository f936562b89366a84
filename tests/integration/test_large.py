"""A version that does not fit into a replica, on real Ray Serve behind HAProxy."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
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

    def start(self) -> None:
        self.cluster.head()
        self.url = self.cluster.worker().url()
        self.cluster.apply(self.application)
        self.cluster.until("it runs", lambda: self.cluster.running(NAME))
        self.cluster.until("it answers", lambda: pods.predict(self.url, BODY)[0] == 200)

    def register(self, files: dict[str, bytes]) -> int:
        return self.registry.register(NAME, files, {}).number

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
        made = Endpoint(cluster, tmp_path_factory.mktemp("models"))
        made.start()
        yield made


def test_large_versions_are_rolled_out_beside_the_endpoint_and_no_request_fails(
    endpoint: Endpoint,
) -> None:
    until, first = endpoint.cluster.until, endpoint.registry.aliases(NAME).values["champion"]
    assert endpoint.large() == [], "there is no replica until a version needs one"
    with pods.load(endpoint.url, BODY, 3, pause_s=0.02) as asked:
        number = endpoint.register(bundles.behaving("assert not (age > 3).any()"))
        endpoint.rollouts.start(NAME, number, plan=PLAN)
        bad = endpoint.end()
        why = bad.decisions[-1].why
        assert (bad.status, why.partition(":")[0]) == ("stopped", "errors"), why

        number = endpoint.register(bundles.behaving())
        lenient = PLAN.model_copy(update={"bake_s": 8, "more_errors": 0.99})
        endpoint.rollouts.start(NAME, number, plan=lenient)
        until("it is asked", lambda: endpoint.candidate_requests() > 0)
        (process,) = endpoint.large()
        os.kill(process, signal.SIGKILL)
        endpoint.cluster.apply(endpoint.application)  # as KubeRay does when it restarts
        good = endpoint.end()
        assert good.status == "promoted", good.decisions[-1]
        until("no replica is left", lambda: endpoint.large() == [])
        until("the champion serves", lambda: version(asked[-1]) == number)
    assert len(asked) > 500
    assert not [text for status, text in asked if status != 200]
    assert {version(one) for one in asked} == {first, number}


def test_a_version_that_never_fits_is_served_by_its_own_deployment_and_keeps_deadlines(
    endpoint: Endpoint,
) -> None:
    until, first = endpoint.cluster.until, endpoint.registry.aliases(NAME).values["champion"]
    padded = bundles.behaving("sum(range(3_000_000))") | {"predictions.parquet": bytes(1 << 20)}
    with pods.load(endpoint.url, BODY, 2, pause_s=0.05) as asked:
        until("it answers", lambda: len(asked) > 0)
        number = endpoint.register(padded)
        endpoint.registry.promote(NAME, number)
        until("the large one answers", lambda: version(asked[-1]) == number)
        with httpx.Client(base_url=endpoint.url) as client:
            headers = {"content-type": "application/json", "x-request-id": "mine"}
            late = client.post("", content=BODY, headers=headers | {"x-request-timeout-ms": "5"})
            assert (late.status_code, late.json()["error"]["type"]) == (504, "deadline")
            found = client.post("", content=BODY, headers=headers, timeout=60)
            assert (found.status_code, found.json()["version"]) == (200, number)
            assert found.headers["x-request-id"] == "mine"
        endpoint.registry.rollback(NAME)
        until("the former one answers", lambda: version(asked[-1]) == first)
        until("no replica is left", lambda: endpoint.large() == [])
    assert not [text for status, text in asked if status != 200]
