"""A node that is lost with blocks of encoded rows, while a trial trains on them."""

import io
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from ray import experimental
from rich import console

from eagleray import spec, storage
from eagleray.storage import server
from ray_jobs import cluster, pipeline, search, training
from ray_jobs.data import passes
from tests import ray_nodes
from tests.conftest import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FILES, ROWS, WIDTH, EPOCHS = 4, 70_000, 16, 2
FILE = """
name: lost
data: {{source: '{source}', target: y, memory: 1MB}}
model: {{type: 'own:Net'}}
train: {{epochs: {epochs}, batch_size: 1024, lr: 0.01}}
tune: {{trials: 1, scheduler: none}}
storage: file://{folder}
"""
OWN = """
import os, pathlib, ray, time, torch
class Net(torch.nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(shape.numeric, outputs)
    def forward(self, inputs):
        if self.training and os.getpid() != {driver}:
            place = ray.get_runtime_context().get_node_id()
            pathlib.Path({begun!r}).write_text(f'{{os.getpid()}} {{place}}')
            while not os.path.exists({goes_on!r}):
                time.sleep(0.1)
        return self.layer(inputs['numeric'])
"""
"""A trial waits in its first batch, when two windows have been read, until it is to go on."""


class Loss(threading.Thread):
    """Once the trial waits: the node that does not train is lost, with the blocks that it has."""

    def __init__(self, nodes: ray_nodes.Nodes, folder: Path) -> None:
        super().__init__(daemon=True)
        self._nodes, self._ended = nodes, threading.Event()
        self.begun, self.goes_on = folder / "begun", folder / "goes_on"
        self.places: Sequence[Any] = ()  # of the blocks
        self.lost: list[int] = []  # blocks that were on that node alone

    def run(self) -> None:
        if not self._wait(lambda: self.begun.exists() and " " in self.begun.read_text()):
            return
        process, own = self.begun.read_text().split()
        (name,) = (
            one["NodeID"]
            for one in ray.nodes()
            if "CPU" in one["Resources"]
            if one["NodeID"] != own
        )
        held = experimental.get_object_locations(list(self.places))
        self.lost = [n for n, at in enumerate(self.places) if held[at]["node_ids"] == [name]]
        self._nodes.kill(self._nodes.other(int(process)))
        self._wait(lambda: name not in cluster.nodes())
        self.goes_on.touch()

    def _wait(self, until: Callable[[], bool]) -> bool:
        """False if the search has ended before."""
        while not until():
            if self._ended.wait(0.1):
                return False
        return True

    def __enter__(self) -> "Loss":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.goes_on.touch()
        self.join()


def test_blocks_of_a_lost_node_are_made_anew_and_the_result_is_the_same(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, store = np.random.default_rng(0), storage.open(s3.uri)
    for number in range(FILES):
        table = pd.DataFrame(random.normal(size=(ROWS, WIDTH)).astype(np.float32))
        table.columns = [f"x{place}" for place in range(WIDTH)]
        table["y"] = np.where(table["x0"] > table["x1"], "high", "low")
        table.to_parquet(sink := io.BytesIO(), row_group_size=5000)
        store.put(f"lost/{number}.parquet", sink.getvalue())
    source, kept = f"s3://{server.BUCKET}/lost/*.parquet", tmp_path / "store"
    kept.mkdir()
    file = tmp_path / "e.yaml"
    file.write_text(FILE.format(source=source, folder=kept, epochs=EPOCHS))
    encode = passes.encode
    with (
        ray_nodes.joining(2, s3.environment) as nodes,
        cluster.connected(nodes.address),
        Loss(nodes, tmp_path) as loss,
    ):
        text = {"driver": os.getpid(), "begun": str(loss.begun), "goes_on": str(loss.goes_on)}
        (tmp_path / "own.py").write_text(OWN.format(**text))

        def kept_in_view(encoding: passes.Encoding) -> list[tuple[Any, int]]:
            made = encode(encoding)
            loss.places = [place for place, _ in made]
            return made

        monkeypatch.setattr(passes, "encode", kept_in_view)
        ended = pipeline.run(spec.load(file), console.Console(file=io.StringIO(), width=200))
        monkeypatch.setattr(passes, "encode", encode)
        searched = search.Search(spec.load(file))
        chosen = searched.experiment.default()
        data = searched.dataset.encode(searched.transforms(chosen))
        alone = training.Trainer(chosen, data, metric=searched.metric, custom=searched.custom)
        losses = [alone.epoch()["train_loss"] for _ in range(EPOCHS)]
    (record,) = ended.trials
    assert len(loss.lost) > 0
    assert record.status == "finished"
    assert [epoch["train_loss"] for epoch in record.history] == pytest.approx(losses, rel=1e-6)
