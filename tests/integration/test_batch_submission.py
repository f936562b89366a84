"""Batches that are submitted to a real Ray cluster of two nodes: left, killed, and finished."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eagleray import storage
from eagleray.state import batches
from eagleray.state.models import Registry
from tests import bundles, ray_nodes
from tests.conftest import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FILES, ROWS, SIZE = 4, 2000, 20
PATIENCE_S = 180.0
JOBS = """
import json, sys
from ray import job_submission
jobs = job_submission.JobSubmissionClient(sys.argv[1]).list_jobs()
print(json.dumps({one.submission_id: one.driver_info and one.driver_info.pid for one in jobs}))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ray_nodes.Cluster]:
    with ray_nodes.running() as running:
        yield running


@pytest.fixture
def uri(cluster: ray_nodes.Cluster, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix with a model and files; the cluster's token is in the environment."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    uri = f"{s3.uri}/sent-batch"
    registry, store = Registry(storage.open(uri)), storage.open(uri)
    registry.promote("left", registry.register("left", bundles.files(), {}).number)
    for number in range(FILES):
        frame = pd.DataFrame({"id": np.arange(ROWS), **bundles.rows(ROWS, seed=number)})
        frame.to_parquet(sink := io.BytesIO(), row_group_size=100)
        store.put(f"in/{number}.parquet", sink.getvalue())
    return uri


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "eagleray", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait(what: str, met: Callable[[], Any]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < until, f"{what}: not so after {PATIENCE_S:g} s"
        time.sleep(0.1)


def drivers(address: str) -> dict[str, int]:
    """The processes of drivers, by their attempt."""
    found = subprocess.check_output([sys.executable, "-c", JOBS, address], text=True)
    return {name: int(pid) for name, pid in json.loads(found.splitlines()[-1]).items()}


def test_a_batch_goes_on_when_its_client_leaves_and_when_its_driver_is_killed(
    cluster: ray_nodes.Cluster, uri: str
) -> None:
    output, there = f"{uri}/out", ["--address", cluster.address]
    command = ["predict", "left", "--version", "1", "--input", f"{uri}/in", "--output", output]
    command += ["--rows-per-part", str(SIZE), "--storage", uri, *there]
    batch = batches.Batch(storage.open(output))
    client = start(*command)
    wait("parts are finished", lambda: batch.parts() or client.poll() is not None)
    ((attempt, driver),) = drivers(cluster.address).items()
    os.kill(driver, signal.SIGSTOP)  # so that no part but those under way is finished until it ends
    client.send_signal(signal.SIGINT)
    said = client.communicate(timeout=60)[1]
    assert client.returncode == 130, said
    assert (
        "detached: the run goes on; attach again with: eagleray runs attach predict-left-" in said
    )
    assert attempt.endswith("-1")
    assert f"run {attempt}: " in said
    assert f"# {attempt}: running already" in call(*command, "--dry-run")[1]

    os.kill(driver, signal.SIGKILL)
    status = ["runs", "status", attempt, *there]
    wait("the attempt has failed", lambda: f"{attempt}: failed" in call(*status)[1])
    assert batch.result() is None
    kept = {one.key: (one.etag, one.modified) for one in batch.store.list("part-")}
    assert 0 < len(kept) < FILES * ROWS // SIZE

    code, out, err = call(*command, "--json")
    assert code == 0, err
    assert f"run {attempt[:-1]}2: " in err
    assert "going on after " in err
    assert json.loads(out)["rows"] == FILES * ROWS
    after = {one.key: (one.etag, one.modified) for one in batch.store.list("part-")}
    assert {key: after[key] for key in kept} == kept
    tables = [pd.read_parquet(io.BytesIO(batch.store.get(key))) for key in sorted(after)]
    assert pd.concat(tables)["id"].tolist() == list(range(ROWS)) * FILES

    code, out, err = call(*command)
    assert (code, "finished already" in err) == (0, True), err
    assert f"8,000 rows in 400 parts in {output}" in out
    strict = call(*command, "--max-errors", "x")
    assert (strict[0], "--max-errors: must be" in strict[2]) == (2, True)


def test_a_run_whose_rows_are_at_fault_ends_with_2_and_local_files_are_refused(
    cluster: ray_nodes.Cluster, uri: str, tmp_path: Path
) -> None:
    store, there = storage.open(uri), ["--storage", uri, "--address", cluster.address]
    frame = pd.DataFrame({**bundles.rows(10), "age": ["old"] * 10})
    store.put("bad/0.csv", frame.to_csv(index=False).encode())
    bad = ["predict", "left", "--input", f"{uri}/bad", "--output", f"{uri}/bad-out", *there]
    code, out, err = call(*bad)
    assert (code, out) == (2, ""), err
    assert "--max-errors: at most 0.1 of the rows may be impossible to predict, but 10 of" in err
    assert "-1: failed" in err.splitlines()[-1]
    frame.to_csv(tmp_path / "rows.csv")
    local = ["predict", "left", "--input", str(tmp_path), "--output", f"{uri}/local-out", *there]
    code, _, err = call(*local)
    law = f"--input: must be s3://… to be predicted with --address {cluster.address}, but got"
    assert (code, law in err) == (2, True), err
    assert list(store.list("local-out/")) == []
