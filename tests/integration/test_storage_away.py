"""A storage that goes away at the end of a search, or is away at its start: nothing is lost."""

import io
import os
import re
from pathlib import Path

import pytest
from rich import console

from eagleray import errors, spec, storage
from eagleray.state.models import Registry
from eagleray.storage import server
from ray_jobs import pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
OWN = """
import os, signal, torch
class Net(torch.nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(shape.numeric, outputs)
    def forward(self, inputs):
        judged = os.getpid() == {driver} and len(inputs['numeric']) == {rows}
        if judged and not self.training and os.path.exists({s3!r}):
            os.kill(int(open({s3!r}).read()), signal.SIGKILL)
            os.unlink({s3!r})
        return self.layer(inputs['numeric'])
"""
"""Kills the server when the driver judges the winner, which is on the rows of the test part."""
FILE = """
name: wine
data: {source: 'dataset:wine', target: target}
model: {type: 'own:Net'}
train: {lr: 0.01, epochs: 2}
tune: {trials: 1, metric: log_loss, scheduler: none}
storage: s3://eagleray
"""


def test_a_winner_that_cannot_be_registered_is_kept_and_the_same_command_registers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = server.up(tmp_path / "s3")
    for name, value in server.environment(running).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pid").write_text(str(running.pid))
    (tmp_path / "own.py").write_text(
        OWN.format(driver=os.getpid(), rows=36, s3=str(tmp_path / "pid"))
    )
    file = tmp_path / "wine.yaml"
    file.write_text(FILE)
    with pytest.raises(errors.StorageUnavailableError, match=r"eagleray run .*wine.yaml") as away:
        run(file)
    kept = re.search(r"kept in (file://\S+)", str(away.value))
    assert kept
    local = Registry(storage.open(kept[1])).versions("wine")
    assert [one.number for one in local] == [1]
    with pytest.raises(errors.StorageUnavailableError):
        run(file, said := io.StringIO())
    assert "starting Ray" not in said.getvalue(), "storage is asked before anything is started"
    server.up(tmp_path / "s3")
    try:
        ended = run(file)
        (version,) = Registry(storage.open("s3://eagleray")).versions("wine")
    finally:
        server.down(tmp_path / "s3")
    assert ended.result.version == version.number == 1
    assert version.manifest["lineage"] == local[0].manifest["lineage"]
    assert [one.status for one in ended.trials] == ["finished"]


def run(file: Path, said: io.StringIO | None = None) -> pipeline.Outcome:
    return pipeline.run(spec.load(file), console.Console(file=said or io.StringIO(), width=200))
