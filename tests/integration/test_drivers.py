"""Two drivers of one search, in processes of their own: one searches, one watches."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eagleray import spec, storage
from eagleray.state import searches
from eagleray.state.models import Registry
from tests import records

pytestmark = pytest.mark.slow
FILE = """
name: wine
data: {source: 'dataset:wine', target: target}
model: {hidden: [16]}
train: {lr: {loguniform: [1.0e-3, 1.0e-1]}, epochs: 160, batch_size: 8}
tune: {trials: 8, pack: 1, metric: log_loss, scheduler: none}
"""
DRIVE = """
import sys, time
from eagleray import cli
from eagleray.state import leases

leases.TTL_S = 4.0
now = time.time
time.time = lambda: now() + float(sys.argv[2])
sys.exit(cli.main(["run", sys.argv[1], "--json"]))
"""


Drive = Callable[[spec.Experiment, str, int], subprocess.Popen[bytes]]


@pytest.fixture
def drive() -> Iterator[Drive]:
    """Starts drivers whose words go to files beside the experiment.

    Their clocks are so many seconds ahead.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(chosen: spec.Experiment, name: str, ahead_s: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", DRIVE, str(chosen.path), str(ahead_s)]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        streams = [path(chosen, name, stream).open("wb") for stream in ("out", "err")]
        started.append(
            subprocess.Popen(command, env=environment, stdout=streams[0], stderr=streams[1])
        )
        for stream in streams:
            stream.close()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_who_comes_second_watches_and_takes_over_from_who_is_killed(
    tmp_path: Path, drive: Drive
) -> None:
    """Their clocks differ by an hour and by two: none is compared with another one."""
    chosen = experiment(tmp_path)
    first = drive(chosen, "first", 0)
    wait_for_words(chosen, "first", "starting Ray")
    second = drive(chosen, "second", 3600)
    wait_for_words(chosen, "second", "runs this search; Ctrl-C")
    wait_for_trials(chosen, 2)
    first.kill()
    wait_for_words(chosen, "second", "starting Ray")
    before = ended(chosen)
    third = drive(chosen, "third", -3600)
    assert (second.wait(120), third.wait(120)) == (0, 0), said(chosen, "second", "err")
    after = ended(chosen)
    assert sorted(after) == list(range(1, 9))
    assert records.unchanged(before, after)
    assert said(chosen, "third", "out") == said(chosen, "second", "out")
    assert json.loads(said(chosen, "third", "out"))["why"].startswith("it is the champion")
    assert "starting Ray" not in said(chosen, "third", "err")
    assert [version.number for version in registry(chosen).versions("wine")] == [1]


def experiment(folder: Path) -> spec.Experiment:
    (folder / "storage").mkdir()
    file = folder / "wine.yaml"
    file.write_text(FILE + f"storage: file://{folder}/storage\n")
    return spec.load(file, {})


def path(chosen: spec.Experiment, name: str, stream: str) -> Path:
    return chosen.path.with_name(f"{name}.{stream}")


def said(chosen: spec.Experiment, name: str, stream: str) -> str:
    return path(chosen, name, stream).read_text()


def registry(chosen: spec.Experiment) -> Registry:
    return Registry(storage.open(chosen.storage))


def ended(chosen: spec.Experiment) -> dict[int, searches.Record]:
    store = storage.open(chosen.storage)
    runs = {entry.key.split("/")[2] for entry in store.list("searches/wine/")}
    found = [one for run in runs for one in searches.Records(store, "wine", run).trials()]
    return {one.number: one for one in found if one.status == "finished"}


def wait_for_trials(chosen: spec.Experiment, count: int) -> None:
    until = time.monotonic() + 120
    while len(ended(chosen)) < count:
        assert time.monotonic() < until, f"no {count} trials were finished in 120 s"
        time.sleep(0.05)


def wait_for_words(chosen: spec.Experiment, name: str, words: str) -> None:
    until = time.monotonic() + 120
    while words not in said(chosen, name, "err"):
        if time.monotonic() > until:
            pytest.fail(f"{name} did not say {words!r} in 120 s, but {said(chosen, name, 'err')}")
        time.sleep(0.05)
