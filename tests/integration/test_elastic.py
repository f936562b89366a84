"""A trial with `workers: {min: 1, max: 2}` on a cluster that a node joins and a node leaves."""

import io
import threading
from pathlib import Path

import pytest
from rich import console

from ray_jobs import cluster, pipeline
from tests import ray_nodes
from tests.integration.searches import test_distributed as distributed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EPOCHS, TRIALS, PASSES = 150, 2, 20
TRAINS = """
    import torch.distributed as group
    if group.is_initialized():
        with open({log!r}, 'a') as file:
            file.write(f'{{os.getpid()}} {{group.get_rank()}} {{group.get_world_size()}}\\n')
        if not os.path.exists({hurry!r}):
            time.sleep(0.3)
"""
"""Each pass leaves the process, its rank and the size of its group; slow until it is to hurry."""


class Story(threading.Thread):
    """Once the trial trains: a node joins, and when the group has grown, that of a worker dies."""

    def __init__(self, nodes: ray_nodes.Nodes, folder: Path) -> None:
        super().__init__(daemon=True)
        self._nodes, self._ended = nodes, threading.Event()
        self.log, self.hurry = folder / "log", folder / "hurry"

    def run(self) -> None:
        if self._has(1, PASSES):
            self._nodes.join()
        if self._has(2, 2 * PASSES):
            self._nodes.kill(next(pid for pid, rank in reversed(self.passes(2)) if rank == 1))
            self._has(1, len(self.passes(1)) + PASSES)
        self.hurry.touch()

    def passes(self, size: int) -> list[tuple[int, int]]:
        """Process and rank of each pass of a worker in a group of this size."""
        return [(pid, rank) for pid, rank, of in self.all() if of == size]

    def all(self) -> list[tuple[int, int, int]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(int(pid), int(rank), int(size)) for pid, rank, size in map(str.split, lines)]

    def _has(self, size: int, passes: int) -> bool:
        """Wait for so many passes of groups of this size; False if the search has ended."""
        while len(self.passes(size)) < passes:
            if self._ended.wait(0.1):
                return False
        return True

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def test_a_group_grows_with_its_cluster_and_shrinks_with_it_and_its_loss_stays(
    tmp_path: Path,
) -> None:
    with ray_nodes.joining(1) as nodes, cluster.connected(nodes.address):
        story = Story(nodes, tmp_path)
        chosen = distributed.grouped(
            tmp_path,
            TRAINS.format(log=str(story.log), hurry=str(story.hurry)),
            **{"compute.workers": "{min: 1, max: 2}", "compute.cpus": 1},
            **{"train.epochs": EPOCHS, "train.batch_size": 32, "tune.trials": TRIALS},
        )
        with story:
            ended = pipeline.run(chosen, console.Console(file=io.StringIO(), width=200))
        curves = [distributed.curve(chosen, one.values, EPOCHS) for one in ended.trials]
    leaders = dict.fromkeys((pid, size) for pid, rank, size in story.all() if rank == 0)
    assert [size for _, size in leaders] == [1, 2, 1]
    assert [one.status for one in ended.trials] == ["finished"] * TRIALS
    for record, curve in zip(ended.trials, curves, strict=True):
        losses = [epoch["train_loss"] for epoch in record.history]
        assert losses == pytest.approx(curve, rel=1e-5)
