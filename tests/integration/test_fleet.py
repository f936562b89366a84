"""Ray Serve with HAProxy on several nodes: who gets traffic when, and what a loss costs."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eagleray import storage
from eagleray.state.models import Registry
from tests import bundles, pods, serve_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAME = "left"
BODY = msgspec.json.encode({"instances": bundles.instances(bundles.rows(5, seed=11))})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with one promoted model."""
    folder = tmp_path_factory.mktemp("models").as_uri()
    found = Registry(storage.open(folder))
    found.register(NAME, bundles.files(seed=1), {})
    found.promote(NAME, 1)
    return folder


def application(models: str, **arguments: object) -> dict[str, Any]:
    """What the chart gives to Ray Serve."""
    args = {"name": NAME, "storage": models, "poll_s": 0.2, "max_replicas": 2, **arguments}
    known = {"name": NAME, "route_prefix": "/", "import_path": "serving.app:build"}
    return known | {"args": args}


def answers(node: serve_nodes.Node) -> bool:
    return pods.predict(node.url(), BODY)[0] == 200


@contextmanager
def kubelet(node: serve_nodes.Node, period_s: float = 1.0) -> Iterator[list[float]]:
    """Probes a node's readiness once a period; gives the times at which it was ready."""
    found: list[float] = []
    ended = threading.Event()

    def probe() -> None:
        while not ended.wait(period_s):
            with suppress(OSError):
                url = f"http://127.0.0.1:{node.metrics_port}/readyz"
                urllib.request.urlopen(url, timeout=5).close()
                found.append(time.monotonic())

    thread = threading.Thread(target=probe)
    thread.start()
    yield found
    ended.set()
    thread.join()


def test_the_application_runs_after_its_only_worker_has_been_found_ready(
    models: str,
) -> None:
    with serve_nodes.nodes() as cluster:
        cluster.head()
        worker = cluster.worker()
        with kubelet(worker) as ready:
            ports = {"http_port": worker.port, "metrics_port": worker.metrics_port}
            cluster.apply(application(models, announce_s=60, max_replicas=1, **ports))
            cluster.until("it runs", lambda: cluster.running(NAME))
            running = time.monotonic()
        assert ready
        assert ready[0] < running


def test_a_lost_head_that_comes_back_finds_its_replicas_and_no_request_fails(
    models: str, tmp_path: Path
) -> None:
    kept = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path)}
    with serve_nodes.nodes() as cluster:
        head, workers = cluster.head(kept), [cluster.worker(number) for number in (1, 2)]
        run(cluster, models, workers)
        replicas = cluster.replicas(NAME)
        with ExitStack() as stack:
            asked = [stack.enter_context(loaded(each)) for each in workers]
            head.kill()
            time.sleep(5)
            cluster.head(kept)
            cluster.until("it runs again", lambda: cluster.running(NAME))
            time.sleep(5)
        assert len(replicas) == 2
        assert cluster.replicas(NAME) == replicas
        assert all(worker.process.poll() is None for worker in workers)
    assert all(len(each) > 100 for each in asked)
    assert not [text for each in asked for status, text in each if status != 200]


def test_a_lost_worker_costs_at_most_what_it_was_answering(models: str) -> None:
    with serve_nodes.nodes() as cluster:
        cluster.head()
        stays, lost = cluster.worker(1), cluster.worker(2)
        run(cluster, models, [stays, lost])
        with pods.load(stays.url(), BODY, 8) as asked:
            time.sleep(3)
            lost.kill()
            time.sleep(10)
    failed = [text for status, text in asked if status != 200]
    assert len(asked) > 100
    assert len(failed) <= 8, failed[:3]  # at most what it was answering


def run(cluster: serve_nodes.Nodes, models: str, workers: list[serve_nodes.Node]) -> None:
    """Start a replica on each of two workers, and wait until both answer."""
    cluster.apply(application(models, min_replicas=2))
    cluster.until("it runs", lambda: cluster.running(NAME))
    cluster.until("both answer", lambda: all(map(answers, workers)))


def loaded(worker: serve_nodes.Node) -> AbstractContextManager[list[tuple[int, Any]]]:
    """A load that leaves this machine room to start a head, for which Ray allows 30 s."""
    return pods.load(worker.url(), BODY, 2, pause_s=0.05)
