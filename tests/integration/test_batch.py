"""Batches on Ray and SeaweedFS: killed drivers, bad objects, storage that is away."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from rich import console

import eagleray
from eagleray import errors, ray_compat, storage
from eagleray.api import batch as batch_api
from eagleray.api.models import Model
from eagleray.state import batches
from eagleray.state.models import Registry
from eagleray.storage import server
from ray_jobs.batch import driver, parts
from tests import bundles
from tests.conftest import Bucket

pytestmark = pytest.mark.timeout(600)
FILES, ROWS, SIZE = 3, 1000, 100
EACH = batches.Options(rows_per_part=SIZE)
MANY = batches.Options(rows_per_part=5)
"""So many parts that what is to happen in the middle does."""


@pytest.fixture(scope="module")
def served(bucket: Bucket) -> Iterator[None]:
    """Ray, a model in a bucket, and three Parquet files."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        registry = Registry(storage.open(f"{bucket.uri}/batch"))
        registry.promote("left", registry.register("left", bundles.files(), {}).number)
        store = storage.open(bucket.uri)
        for number in range(FILES):
            store.put(f"batch-in/{number}.parquet", parquet(number))
        with ray_compat.connected(None, ray_compat.DEVICES, num_cpus=2):
            yield


def parquet(number: int, **more: object) -> bytes:
    ids = np.arange(ROWS) + number * ROWS
    frame = pd.DataFrame({"id": ids, **bundles.rows(ROWS, seed=number), **more})
    frame.to_parquet(sink := io.BytesIO(), row_group_size=128)
    return sink.getvalue()


def model(bucket: Bucket) -> Model:
    return eagleray.models(f"{bucket.uri}/batch")["left"]


def written(uri: str) -> dict[str, tuple[str, object]]:
    """ETag and time of each part."""
    return {one.key: (one.etag, one.modified) for one in storage.open(uri).list("part-")}


def rows(uri: str) -> pd.DataFrame:
    store = storage.open(uri)
    parts = [pd.read_parquet(io.BytesIO(store.get(key))) for key in sorted(written(uri))]
    return pd.concat(parts, ignore_index=True)


def at_once(bucket: Bucket, prefix: str = "batch-in") -> pd.DataFrame:
    store = storage.open(bucket.uri)
    files = [store.get(f"{prefix}/{number}.parquet") for number in range(FILES)]
    frame = pd.concat([pd.read_parquet(io.BytesIO(one)) for one in files], ignore_index=True)
    return model(bucket).predict(frame, repeated=["id"])


def check_all(bucket: Bucket, output: str) -> None:
    """The rows of all parts are those of one prediction of all rows."""
    found, expected = rows(output), at_once(bucket)
    assert found["id"].tolist() == expected["id"].tolist() == list(range(FILES * ROWS))
    assert found["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(
        found["probability of yes"], expected["probability of yes"], rtol=1e-5
    )


@pytest.mark.slow
def test_a_run_that_ended_goes_on_with_what_is_left_and_then_is_done(
    served: None, bucket: Bucket
) -> None:
    source, output = f"{bucket.uri}/batch-bad", f"{bucket.uri}/batch-out/limit"
    ages = ["30"] * (ROWS - 50) + ["old"] * 50
    for number in range(FILES):
        content = parquet(number, **({"age": ages} if number == 1 else {}))
        storage.open(bucket.uri).put(f"batch-bad/{number}.parquet", content)
    strict = batches.Options(rows_per_part=SIZE, max_errors="0")
    with pytest.raises(errors.DataError, match=r"at most 0 rows .* needed, but got 'old'"):
        model(bucket).predict_files(source, output, options=strict)
    before, recorded = written(output), batches.Batch(storage.open(output)).parts()
    assert len(recorded) > 0
    assert batches.Batch(storage.open(output)).result() is None
    result = model(bucket).predict_files(source, output, options=EACH)
    after = written(output)
    assert (result.rows, result.errors, len(result.parts)) == (FILES * ROWS, 50, 30)
    assert {key: after[key] for key in before} == before
    found = rows(output)
    assert found["error"].notna().sum() == 50
    assert found["error"].dropna().iloc[0] == "row 951: age: a number is needed, but got 'old'"
    assert model(bucket).predict_files(source, output, options=EACH) == result
    assert written(output) == after
    storage.open(bucket.uri).put("batch-bad/2.parquet", parquet(7))
    with pytest.raises(errors.ConflictError, match=r"2\.parquet has changed"):
        model(bucket).predict_files(source, output, options=EACH)


def test_no_object_and_a_corrupt_one_are_named(served: None, bucket: Bucket) -> None:
    with pytest.raises(errors.DataError, match="--input: an object is needed, but there is no"):
        model(bucket).predict_files(f"{bucket.uri}/nothing", f"{bucket.uri}/batch-out/none")
    content = bytearray(parquet(0))
    content[200:4000] = bytes(3800)  # its footer is sound
    storage.open(bucket.uri).put("batch-corrupt/0.parquet", bytes(content))
    output = f"{bucket.uri}/batch-out/corrupt"
    law = r"^s3://eagleray/batch-corrupt/0\.parquet: a readable table is needed, but .*data\.$"
    with pytest.raises(errors.DataError, match=law):
        model(bucket).predict_files(f"{bucket.uri}/batch-corrupt", output, options=EACH)
    assert batches.Batch(storage.open(output)).result() is None


def test_an_object_that_vanishes_is_named_with_the_option(
    served: None, bucket: Bucket, tmp_path: Path
) -> None:
    uri = f"{bucket.uri}/batch-gone/0.parquet"
    storage.open(bucket.uri).put("batch-gone/0.parquet", parquet(0))
    places = batch_api.Places(f"{bucket.uri}/batch", uri, f"{bucket.uri}/batch-out/gone")
    made = batch_api.make(model(bucket).version(), places, EACH)
    storage.open(bucket.uri).delete("batch-gone/0.parquet")
    with pytest.raises(errors.DataError, match=r"^--input: an object is needed, but .*no such"):
        next(parts.read(made, 0, ()))


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_what_is_finished_and_the_next_one_goes_on(
    served: None, bucket: Bucket, tmp_path: Path
) -> None:
    output = f"{bucket.uri}/batch-out/killed"
    batch = batches.Batch(storage.open(output))
    killed = start(bucket, output, SIZE, tmp_path / "log")
    wait(lambda: len(batch.parts()) >= 3 or killed.poll() is not None)
    killed.kill()
    killed.wait()
    finished = batch.parts()
    before = written(output)
    assert 3 <= len(finished) < FILES * ROWS // SIZE, (tmp_path / "log").read_text()
    assert batch.result() is None
    result = model(bucket).predict_files(f"{bucket.uri}/batch-in", output, options=EACH)
    after = written(output)
    assert {key: after[key] for key in before} == before
    assert {one["key"]: one["etag"] for one in result.parts} == {
        key: etag for key, (etag, _) in after.items()
    }
    check_all(bucket, output)


@pytest.mark.slow
def test_a_second_driver_waits_for_the_first_and_reads_no_file(
    served: None, bucket: Bucket, tmp_path: Path
) -> None:
    output, log, said = f"{bucket.uri}/batch-out/waits", tmp_path / "first", io.StringIO()
    batch = batches.Batch(storage.open(output))
    first = start(bucket, output, MANY.rows_per_part, log)
    wait(lambda: len(batch.parts()) >= 3 or first.poll() is not None)
    result = predict(bucket, output, said)
    assert first.wait(180) == 0, log.read_text()
    lines = said.getvalue().splitlines()
    assert " predicts these; Ctrl-C stops only the waiting" in lines[0]
    assert lines[1:] == ["these predictions are finished already"]
    assert result == batch.result()


@pytest.mark.slow
def test_two_drivers_of_one_output_write_each_part_once(
    served: None, bucket: Bucket, tmp_path: Path
) -> None:
    """The first one sleeps until the second one has taken over, and predicts what is left."""
    output, logs = f"{bucket.uri}/batch-out/two", [tmp_path / "first", tmp_path / "second"]
    batch = batches.Batch(storage.open(output))
    first = start(bucket, output, MANY.rows_per_part, logs[0])
    wait(lambda: len(batch.parts()) >= 3 or first.poll() is not None)
    first.send_signal(signal.SIGSTOP)
    second = start(bucket, output, MANY.rows_per_part, logs[1])
    wait(lambda: "going on after" in logs[1].read_text() or second.poll() is not None)
    before = written(output)
    first.send_signal(signal.SIGCONT)
    assert [first.wait(180), second.wait(180)] == [0, 0], [log.read_text() for log in logs]
    assert "finished already" not in logs[0].read_text() + logs[1].read_text()
    after = written(output)
    assert {key: after[key] for key in before} == before
    ended = batch.result()
    assert ended is not None
    assert {one["key"]: one["etag"] for one in ended.parts} == {
        key: etag for key, (etag, _) in after.items()
    }
    check_all(bucket, output)


@pytest.mark.slow
def test_storage_that_goes_away_and_comes_back_is_waited_for(
    served: None, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, said, begin = f"{bucket.uri}/batch-out/back", io.StringIO(), driver._written

    def written_by_free_actors(*given: Any) -> Any:
        wait(lambda: ray.available_resources().get("CPU") == 2, 30)
        return begin(*given)

    monkeypatch.setattr(driver, "_written", written_by_free_actors)
    with stopped(bucket, output, lambda: "storage is away: " in said.getvalue()) as kept:
        result = predict(bucket, output, said)
    law = f"storage is away: {bucket.endpoint}: .*: the connection failed.*; next try in 2 s"
    assert any(re.fullmatch(law, line) for line in said.getvalue().splitlines()), said.getvalue()
    assert 3 <= len(kept) < len(result.parts) == 600
    after = written(output)
    assert {key: after[key] for key in kept} == kept
    check_all(bucket, output)


@pytest.mark.slow
def test_storage_that_stays_away_ends_a_batch_and_the_same_call_finishes_it(
    served: None, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, said = f"{bucket.uri}/batch-out/away", io.StringIO()
    monkeypatch.setattr(driver, "PAUSES_S", (0.1,))
    ended = threading.Event()
    with stopped(bucket, output, ended.is_set) as kept:
        try:
            law = (
                r"the connection failed.*; [0-9]+ parts with [0-9,]+ rows are finished and kept;"
                " run the same command to go on when storage answers again"
            )
            with pytest.raises(errors.StorageUnavailableError, match=law):
                predict(bucket, output, said)
            assert "storage is away: " in said.getvalue()
            said.truncate(0)
            with pytest.raises(errors.StorageUnavailableError, match="the connection failed"):
                predict(bucket, output, said)
            assert said.getvalue() == "", "nothing is begun"
        finally:
            ended.set()
    assert batches.Batch(storage.open(output)).result() is None
    result = predict(bucket, output, said)
    assert "going on after " in said.getvalue()
    after = written(output)
    assert 3 <= len(kept) < len(result.parts) == 600
    assert {key: after[key] for key in kept} == kept
    check_all(bucket, output)


def predict(bucket: Bucket, output: str, said: io.StringIO) -> batches.Result:
    return model(bucket).predict_files(
        f"{bucket.uri}/batch-in", output, options=MANY, out=console.Console(file=said, width=999)
    )


@contextlib.contextmanager
def stopped(
    bucket: Bucket, output: str, met: Callable[[], bool]
) -> Iterator[dict[str, tuple[str, object]]]:
    """Stop the server once the batch of the block has three parts, and start it when `met` is so.

    Yields:
        The parts that are there when the server stops, as `written` gives them.
    """
    folder, batch = Path(bucket.environment["EAGLERAY_HOME"]), batches.Batch(storage.open(output))
    kept: dict[str, tuple[str, object]] = {}

    def act() -> None:
        wait(lambda: len(batch.parts()) >= 3)
        kept.update(written(output))
        server.down(folder)
        try:
            wait(met)
        finally:
            server.up(folder)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield kept
    finally:
        thread.join()


def start(
    bucket: Bucket, output: str, rows_per_part: int | None, log: Path
) -> subprocess.Popen[bytes]:
    """A driver in a process of its own, on a Ray of its own."""
    command = [
        *(sys.executable, "-m", "eagleray", "predict", "left", "--version", "champion"),
        *("--input", f"{bucket.uri}/batch-in", "--output", output),
        *("--rows-per-part", str(rows_per_part), "--storage", f"{bucket.uri}/batch"),
    ]
    with log.open("wb") as words:
        return subprocess.Popen(command, stdout=words, stderr=words, env={**os.environ})


def wait(met: Callable[[], bool], most_s: float = 240) -> None:
    until = time.monotonic() + most_s
    while not met():
        assert time.monotonic() < until, f"not so after {most_s} s"
        time.sleep(0.05)
