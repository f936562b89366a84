"""A search on a Ray cluster that begins without workers, and shrinks after it has grown."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import ray
from rich import console

import eagleray
from eagleray import errors, process, spec, storage
from eagleray.state import batches
from eagleray.state.models import Registry
from ray_jobs import cluster, pipeline, search
from tests import autoscaled, bundles
from tests.conftest import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
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
model: {type: mlp}
train: {lr: {loguniform: [1.0e-3, 1.0e-1]}, epochs: 10, batch_size: 32, loss: 'own:loss'}
tune: {trials: TRIALS, pack: 1, metric: log_loss, scheduler: none}
"""


class Watch:
    """Counts, every now and then, the nodes with a CPU and the CPUs in use."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []
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
            self.seen.append((nodes(), nodes() - free))


def nodes() -> int:
    """Nodes with a CPU."""
    return sum(node["Alive"] and "CPU" in node["Resources"] for node in ray.nodes())


@pytest.mark.parametrize(
    ("most", "compute", "gpus", "sharing"),
    [
        pytest.param(4, "{cpus: 1}", 0, 1, id="a trial a node"),
        pytest.param(2, "{cpus: 0.5, gpus: 0.5}", 1, 2, id="two trials a GPU"),
    ],
)
def test_trials_run_at_once_as_nodes_come_and_leave_none_behind(
    tmp_path: Path, most: int, compute: str, gpus: int, sharing: int
) -> None:
    (tmp_path / "own.py").write_text(SLOW)
    (tmp_path / "storage").mkdir()
    file, trials = tmp_path / "wine.yaml", 10 * sharing
    text = FILE.replace("TRIALS", str(trials))
    file.write_text(f"{text}compute: {compute}\nstorage: file://{tmp_path}/storage\n")
    with (
        autoscaled.cluster(most, idle_s=5, gpus=gpus) as address,
        cluster.connected(address),
    ):
        assert nodes() == 0
        assert cluster.grows()
        with Watch() as watch:
            ended = pipeline.run(spec.load(file), console.Console(file=io.StringIO()))
        assert [one.status for one in ended.trials] == ["finished"] * trials
        assert watch.seen[0][0] == 0
        assert {count for count, _ in watch.seen} >= {1, most}, watch.seen
        # as many trials as nodes have room for, which have all been there
        assert max(used * sharing for _, used in watch.seen) == most * sharing, watch.seen
        assert any(count == 1 and used == 1 for count, used in watch.seen), watch.seen
        until = time.monotonic() + 120
        while nodes() and time.monotonic() < until:
            time.sleep(1)
        assert nodes() == 0
        if not gpus:
            assert_explained(file)


def test_a_batch_makes_a_cluster_without_workers_grow(s3: Bucket) -> None:
    uri = f"{s3.uri}/grown"
    registry, store = Registry(storage.open(uri)), storage.open(uri)
    registry.promote("left", registry.register("left", bundles.files(), {}).number)
    for number in range(4):
        rows = pd.DataFrame(bundles.rows(2000, seed=number))
        store.put(f"in/{number}.csv", rows.to_csv(index=False).encode())
    with autoscaled.cluster(2, idle_s=60) as address, cluster.connected(address), Watch() as watch:
        result = eagleray.models(uri)["left"].predict_files(
            f"{uri}/in", f"{uri}/out", options=batches.Options(rows_per_part=5)
        )
    assert (result.rows, len(result.parts)) == (8000, 1600)
    assert watch.seen[0][0] == 0
    assert max(used for _, used in watch.seen) == 2, watch.seen


def test_local_files_on_a_head_without_a_cpu_are_refused(s3: Bucket, tmp_path: Path) -> None:
    uri = f"{s3.uri}/grown-local"
    registry = Registry(storage.open(uri))
    registry.promote("left", registry.register("left", bundles.files(), {}).number)
    pd.DataFrame(bundles.rows(10)).to_csv(tmp_path / "rows.csv")
    with (
        autoscaled.cluster(1, idle_s=60) as address,
        cluster.connected(address),
        pytest.raises(errors.UserError, match="this machine must be a node with a CPU, or"),
    ):
        eagleray.models(uri)["left"].predict_files(str(tmp_path), f"{uri}/out")


def assert_explained(file: Path) -> None:
    """A trial of a GPU, which no type of node has, is noted, and waits until the budget ends."""
    own = {"train.seed": "1", "compute.gpus": "1", "tune.budget": "{minutes: 0.3}"}
    chosen = spec.load(file, own)
    out, seen = io.StringIO(), set[str]()
    records = search.Search(chosen).records

    def look() -> None:
        if (view := records.view()) is not None:
            seen.update(one.why for one in view.waiting)

    with process.beating(0.5, look), pytest.raises(errors.SearchError, match="no trial has run"):
        pipeline.run(chosen, console.Console(file=out, width=200))
    assert "note: compute: a worker must fit on a node, at most 0 CPU and 0 GPU" in out.getvalue()
    assert (
        "1 CPU and 1 GPU; no node has that, at most 0 CPU and 0 GPU; the autoscaler starts no node"
        in seen
    )
