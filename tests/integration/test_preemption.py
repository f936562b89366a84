"""A node that is told to end, as Kubernetes tells a pod: its trial goes on elsewhere."""

import contextlib
import io
import os
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich import console

from eagleray import spec
from ray_jobs import cluster, pipeline
from tests import ray_nodes
from tests.integration.searches.test_search_goes_on import own_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
VARIABLES = {"RAY_AUTH_MODE": "disabled"}
EPOCHS, BATCHES = 6, 11


@contextlib.contextmanager
def nodes() -> Iterator[tuple[str, list[int]]]:
    """A head without CPUs and two nodes of one; its address, and the processes of the two."""
    folder, port = Path(tempfile.mkdtemp(prefix="ray-")), ray_nodes.free_port()
    first, second = ray_nodes.HOSTS
    head = ["--head", f"--port={port}", f"--node-ip-address={first}", "--num-cpus=0"]
    head += ["--include-dashboard=false", f"--temp-dir={folder}"]
    head += [f"--ray-client-server-port={ray_nodes.free_port()}"]
    joins = [f"--address={first}:{port}", f"--node-ip-address={second}"]
    started = [ray_nodes.start(head, folder, VARIABLES)]
    try:
        ray_nodes.wait(folder / "node-0.log")
        for number in (1, 2):
            started.append(ray_nodes.start(joins, folder, VARIABLES))
            ray_nodes.wait(folder / f"node-{number}.log")
        yield f"{first}:{port}", [one.pid for one in started[1:]]
    finally:
        for node in reversed(started):
            ray_nodes.end(node)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_trial_leaves_a_node_that_is_drained_and_repeats_no_batch(tmp_path: Path) -> None:
    log, told = tmp_path / "batches", threading.Event()
    slow = f"    with open({str(log)!r}, 'a') as log:\n        print(os.getpid(), file=log)\n"
    slow += "    time.sleep(0.3)\n"
    settings = {"train.epochs": EPOCHS, "train.batch_size": 10, "tune.trials": 1}
    chosen: spec.Experiment = own_model(
        tmp_path, slow, **settings, **{"train.lr": 0.01, "compute.cpus": 1}
    )

    def tell(processes: list[int]) -> None:
        """Send SIGTERM to the `ray start` of the node on which the trial trains, to it alone."""
        while not told.wait(0.05):
            workers = log.read_text().split() if log.exists() else []
            if len(workers) > BATCHES:
                node = os.getsid(int(workers[-1]))
                assert node in processes
                os.kill(node, signal.SIGTERM)
                told.set()

    with nodes() as (address, processes), cluster.connected(address):
        telling = threading.Thread(target=tell, args=(processes,))
        telling.start()
        ended = pipeline.run(chosen, console.Console(file=io.StringIO(), width=200))
        told.set()
        telling.join()
    lives = Counter(log.read_text().split())
    assert len(lives) == 2
    assert sum(lives.values()) == EPOCHS * BATCHES
    assert (ended.winner.status, ended.winner.epoch) == ("finished", EPOCHS)
