"""Runs submitted to a real Ray cluster of two nodes, its dashboard and its token on."""

import contextlib
import io
import json
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray import job_submission

from eagleray import cli, errors
from eagleray.client import ray_jobs
from eagleray.state import searches
from eagleray.state.runs import Run
from tests import ray_nodes, records
from tests.conftest import Bucket

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
PATIENCE_S = 180.0
LOSS = (
    "import time, torch\n"
    "def loss(outputs, targets):\n"
    "    time.sleep(0.02)\n"  # a trial lasts for some seconds, however fast the machine is
    "    return torch.nn.functional.cross_entropy(outputs, targets)\n"
)
FILE = """
name: sent
data: {source: data/rows.csv, target: kind}
model: {type: mlp}
train: {lr: {loguniform: [1.0e-3, 1.0e-1]}, epochs: 24, batch_size: 16, loss: 'own:loss'}
tune: {trials: 10, pack: 1, metric: log_loss, scheduler: none}
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[ray_nodes.Cluster]:
    with ray_nodes.running() as cluster:
        yield cluster


@pytest.fixture
def cluster(
    nodes: ray_nodes.Cluster, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> ray_nodes.Cluster:
    """The cluster, its token in the environment of this process and of those it starts."""
    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    return nodes


@pytest.fixture
def file(tmp_path: Path, s3: Bucket) -> Path:
    """An experiment with a table and a loss of its own; nothing of it is on the cluster."""
    (tmp_path / "data").mkdir()
    lines = [f"{n % 7 + n % 3},{n % 5},{'ab'[n % 7 > n % 3]}" for n in range(300)]
    (tmp_path / "data" / "rows.csv").write_text("\n".join(["x,y,kind", *lines]) + "\n")
    (tmp_path / "own.py").write_text(LOSS)
    path = tmp_path / "sent.yaml"
    path.write_text(f"{FILE}storage: {s3.uri}/sent\n")
    return path


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def worker(cluster: ray_nodes.Cluster) -> Iterator[futures.Executor]:
    """A process that has the token from its start, which is when Ray looks for it."""
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def eagleray(worker: futures.Executor) -> Command:
    """The command line, in one process for all commands: Ray takes seconds to import."""
    return lambda *arguments: worker.submit(call, [str(one) for one in arguments]).result(300)


def call(arguments: list[str]) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(arguments)
    return Done(code, out.getvalue(), err.getvalue())


def jobs(address: str) -> dict[str, tuple[str, int]]:
    """Entrypoint and process id of each driver, by its attempt's id."""
    known = job_submission.JobSubmissionClient(address).list_jobs()
    return {
        str(job.submission_id): (job.entrypoint, int(job.driver_info.pid if job.driver_info else 0))
        for job in known
    }


def start_twice(address: str, run: Run) -> None:
    backend = ray_jobs.RayJobs(address)
    backend.start(run, 1)
    backend.start(run, 1)


def process(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "eagleray", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def on_terminal(*arguments: object) -> tuple[subprocess.Popen[bytes], list[str]]:
    """A command whose output is a terminal, and what it has shown there so far."""
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "eagleray", *map(str, arguments)]
    started = subprocess.Popen(command, stdout=its, stderr=its, env=os.environ | {"COLUMNS": "120"})
    os.close(its)
    shown: list[str] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 4096):
                shown.append(piece.decode(errors="replace"))

    threading.Thread(target=read, daemon=True).start()
    return started, shown


def finished(uri: str, name: str) -> dict[int, searches.Record]:
    """The records of trials that have finished, by number."""
    return {one.number: one for one in records.of(uri, name) if one.status == "finished"}


def wait(what: str, met: Callable[[], Any]) -> None:
    until, seen = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < until:
        seen = met()
        if seen is True:
            return
        time.sleep(0.3)
    pytest.fail(f"{what}: not so after {PATIENCE_S:g} s, but {seen}")


def test_a_run_is_left_attached_to_stopped_killed_and_goes_on_each_time(
    cluster: ray_nodes.Cluster, file: Path, s3: Bucket, eagleray: Command, worker: futures.Executor
) -> None:
    there, uri = ["--address", cluster.address], f"{s3.uri}/sent"
    submit = ["run", file, *there]

    def state(run: str) -> object:
        return json.loads(eagleray("runs", "status", run, *there, "--json").out)["state"]

    first, screen = on_terminal(*submit)
    eagleray("runs", "list", *there)  # Ray is imported while the driver starts
    wait("a trial has finished", lambda: bool(finished(uri, "sent")) or first.poll() is not None)
    wait("the table is drawn", lambda: "/10 trials, best log_loss" in "".join(screen) or screen)
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130, "".join(screen)
    again_with = "detached: the run goes on; attach again with: eagleray runs attach sent-"
    wait("it is told how to attach", lambda: again_with in "".join(screen) or screen)

    again = eagleray(*submit, "--detach")
    assert again.code == 0, again.err
    run = again.out.split()[1].removesuffix("-1:")
    assert f"run {run}-1: running" in again.out, again.err
    assert f"{run}-1: running already" in eagleray(*submit, "--dry-run").out
    lacks = "1 CPU; none free now: 2 of 2 CPU used on 2 nodes"
    wait(
        "one more trial waits", lambda: lacks in (why := eagleray("why", "sent", *there).out) or why
    )
    assert eagleray("runs", "stop", "sent", *there).out == f"{run}-1: stopped\n"
    assert state("sent") == "stopped"
    attached = eagleray("runs", "attach", "sent", *there)
    assert attached.code == 1
    assert f"{run}-1: stopped" in attached.err

    before = finished(uri, "sent")
    assert 1 <= len(before) < 10
    planned = eagleray(*submit, "--dry-run").out
    assert f"submission_id: {run}-2" in planned
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in planned
    assert f"run {run}-2: " in eagleray(*submit, "--detach").out
    wait("the second driver goes on", lambda: len(finished(uri, "sent")) > len(before))
    os.kill(worker.submit(jobs, cluster.address).result()[f"{run}-2"][1], signal.SIGKILL)
    wait("the second attempt has failed", lambda: state(f"{run}-2") == "failed")

    kept = finished(uri, "sent")
    last = eagleray(*submit)
    assert last.code == 0, last.out + last.err
    assert f"run {run}-3: " in last.out
    assert "registered sent version 1" in last.out
    after = finished(uri, "sent")
    assert sorted(after) == list(range(1, 11))
    assert records.unchanged(before | kept, after)

    shown = eagleray(*submit, "--json")
    assert "has already ended" in shown.err
    assert json.loads(shown.out)["version"] == 1
    listed = json.loads(eagleray("runs", "list", *there, "--json").out)
    assert [one["state"] for one in listed] == ["stopped", "failed", "succeeded"]
    assert "registered sent version 1" in eagleray("runs", "logs", "sent", *there).out
    assert "succeeded: version 1" in eagleray("runs", "status", "sent", "--storage", uri).out
    assert eagleray("runs", "logs", "sent", "--storage", uri).out.count(" finished after ") == 10
    entrypoints = str(worker.submit(jobs, cluster.address).result())
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in entrypoints


def test_what_only_the_driver_can_see_is_still_the_users_mistake(
    cluster: ray_nodes.Cluster, tmp_path: Path, s3: Bucket, eagleray: Command
) -> None:
    (tmp_path / "rows.py").write_text(
        "import os, pandas\n"
        "def rows():\n"
        "    assert not os.environ.get('RAY_ADDRESS'), 'no table'\n"
        "    return pandas.DataFrame({'x': range(60), 'y': [n % 2 for n in range(60)]})\n"
    )
    file = tmp_path / "mistaken.yaml"
    file.write_text(
        f"name: mistaken\ndata: {{source: 'rows:rows', target: y}}\nstorage: {s3.uri}/sent\n"
    )
    done = eagleray("run", file, "--address", cluster.address)
    assert done.code == 2
    assert "rows:rows: must give a frame, but raised AssertionError: no table" in done.out
    (line,) = done.err.splitlines()
    assert line.startswith("mistaken-")
    assert "-1: failed" in line


def test_storage_of_this_machine_alone_is_refused_for_a_cluster_elsewhere(s3: Bucket) -> None:
    run = Run("sent", "0" * 12, s3.uri)
    with pytest.raises(errors.UserError, match=r"storage: must be reachable from http://head:8265"):
        ray_jobs.environment("http://head:8265", run)
    passed = ray_jobs.environment("http://127.0.0.1:8265", run)
    assert passed["AWS_SECRET_ACCESS_KEY"] == s3.environment["AWS_SECRET_ACCESS_KEY"]
    assert "EAGLERAY_HOME" not in passed


def test_an_attempt_is_taken_once(cluster: ray_nodes.Cluster, worker: futures.Executor) -> None:
    run = Run("absent", "0" * 12, "file:///nowhere")
    with pytest.raises(errors.ConflictError, match="absent-000000000000-1: exists already"):
        worker.submit(start_twice, cluster.address, run).result(60)


def test_a_wrong_token_and_a_wrong_address_are_told_in_one_line(
    cluster: ray_nodes.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = f"http://127.0.0.1:{ray_nodes.free_port()}"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    refused = process("runs", "list", "--address", cluster.address)
    absent = process("runs", "list", "--address", nobody)
    monkeypatch.delenv("RAY_AUTH_MODE")
    asked = process("runs", "list", "--address", cluster.address)
    said = [one.communicate(timeout=120)[1] for one in (refused, absent, asked)]
    assert [one.returncode for one in (refused, absent, asked)] == [2, 2, 2]
    assert "does not accept this token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or" in said[0]
    assert f"--address {nobody}: must be a Ray dashboard that answers" in said[1]
    assert "asks for a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or" in said[2]
    assert all(text.count("\n") == 1 for text in said)
