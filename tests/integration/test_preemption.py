"""Nodes that are told to end, as Kubernetes tells a pod: their trials go on elsewhere."""

import io
import threading
from collections import Counter
from pathlib import Path

import pytest
from rich import console

from ray_jobs import cluster, pipeline
from tests import ray_nodes
from tests.integration.searches import test_distributed as distributed
from tests.integration.searches.test_search_goes_on import own_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EPOCHS, BATCHES = 6, 11
SETTINGS = {
    "train.epochs": EPOCHS,
    "train.batch_size": 10,
    "train.lr": 0.01,
    "tune.trials": 1,
    "compute.cpus": 1,
}


class Drain(threading.Thread):
    """Drains a node, once a log has enough lines: that on which the last one was written.

    With a `title` it is the node of the process of this title, a part of that of Ray Tune's actor.
    """

    def __init__(self, nodes: ray_nodes.Nodes, log: Path, title: str = "") -> None:
        super().__init__(daemon=True)
        self._nodes, self._log, self._title = nodes, log, title
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            lines = self._log.read_text().splitlines() if self._log.exists() else []
            if len(lines) > BATCHES:
                last = int(lines[-1].split()[0])
                self._nodes.drain(self._nodes.find(self._title) if self._title else last)
                return

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


def test_a_trial_leaves_a_node_that_is_drained_and_repeats_no_batch(tmp_path: Path) -> None:
    log = tmp_path / "batches"
    slow = f"    with open({str(log)!r}, 'a') as log:\n        print(os.getpid(), file=log)\n"
    chosen = own_model(tmp_path, slow + "    time.sleep(0.3)\n", **SETTINGS)
    with ray_nodes.joining(2) as nodes, cluster.connected(nodes.address), Drain(nodes, log):
        ended = pipeline.run(chosen, console.Console(file=io.StringIO(), width=200))
    lives = Counter(log.read_text().split())
    assert len(lives) == 2
    assert sum(lives.values()) == EPOCHS * BATCHES
    assert (ended.winner.status, ended.winner.epoch) == ("finished", EPOCHS)


@pytest.mark.parametrize("title", ["", "ray::ResourceTrainable"], ids=["a worker", "the trial"])
def test_a_group_leaves_a_node_that_is_drained_and_repeats_no_batch(
    tmp_path: Path, title: str
) -> None:
    log = tmp_path / "batches"
    slow = distributed.TRAINS.format(log=str(log)) + "    time.sleep(0.2)\n"
    chosen = distributed.grouped(tmp_path, slow, **SETTINGS)
    with ray_nodes.joining(3) as nodes, cluster.connected(nodes.address), Drain(nodes, log, title):
        ended = pipeline.run(chosen, console.Console(file=io.StringIO(), width=200))
        (record,) = ended.trials
        losses = distributed.curve(chosen, record.values, EPOCHS)
    for rank in range(distributed.WORKERS):
        lives = Counter(pid for pid, one in distributed.passes(log) if one == rank)
        assert len(lives) == 2
        assert sum(lives.values()) == EPOCHS * BATCHES
    assert (record.status, record.epoch) == ("finished", EPOCHS)
    assert [epoch["train_loss"] for epoch in record.history] == pytest.approx(losses, rel=1e-5)
