"""A search on a Ray cluster that begins without workers, and shrinks after it has grown."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pytest
import ray
from rich import console

from eagleray import errors, spec
from eagleray.client import screen
from ray_jobs import cluster, pipeline, search
from tests import autoscaled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WORKERS = 4
SLOW = (
    "import time\n"
    "import torch\n"
    "def loss(outputs, targets):\n"
    "    time.sleep(0.2)\n"
    "    return torch.nn.functional.cross_entropy(outputs, targets)\n"
)
FILE = """
name: wine
data: {source: 'dataset:wine', target: target}
train: {lr: {loguniform: [1.0e-3, 1.0e-1]}, epochs: 10, batch_size: 32, loss: 'own:loss'}
tune: {trials: 10, pack: 1, metric: log_loss, scheduler: none}
"""


class Watch:
    """Counts, every now and then, the nodes with a CPU and the trials that run on them."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            free = ray.available_resources().get("CPU", 0.0)
            self.seen.append((workers(), workers() - int(free)))


def workers() -> int:
    """Nodes with a CPU."""
    return sum(node["Alive"] and "CPU" in node["Resources"] for node in ray.nodes())


def test_trials_run_at_once_as_workers_come_and_leave_none_behind(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SLOW)
    (tmp_path / "storage").mkdir()
    file = tmp_path / "wine.yaml"
    file.write_text(f"{FILE}storage: file://{tmp_path}/storage\n")
    with autoscaled.cluster(WORKERS, idle_s=5) as address, cluster.connected(address):
        assert workers() == 0
        assert cluster.grows()
        with Watch() as watch:
            ended = pipeline.run(spec.load(file), console.Console(file=io.StringIO()))
        assert [one.status for one in ended.trials] == ["finished"] * 10
        assert max(busy for _, busy in watch.seen) == WORKERS, watch.seen
        assert watch.seen[0][0] == 0
        until = time.monotonic() + 120
        while workers() and time.monotonic() < until:
            time.sleep(1)
        assert workers() == 0
        assert_explained(file)


def assert_explained(file: Path) -> None:
    """A trial of a GPU, which no type of node has, is noted, and waits until the budget ends."""
    own = {"train.seed": "1", "compute.gpus": "1", "tune.budget": "{minutes: 0.3}"}
    chosen = spec.load(file, own)
    out, seen = io.StringIO(), set[str]()
    records = search.Search(chosen).records

    def look() -> None:
        if (view := records.view()) is not None:
            seen.update(one.why for one in view.waiting)

    with screen.beating(0.5, look), pytest.raises(errors.SearchError, match="no trial has run"):
        pipeline.run(chosen, console.Console(file=out, width=200))
    assert "note: compute: a worker must fit on a node, at most 0 CPU and 0 GPU" in out.getvalue()
    assert (
        "1 CPU and 1 GPU; no node has that, at most 0 CPU and 0 GPU; the autoscaler starts no node"
        in seen
    )
