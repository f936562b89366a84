"""Batches on Ray and SeaweedFS: killed drivers, bad objects, runs that go on."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import eagleray
from eagleray import errors, ray_compat, storage
from eagleray.api.models import Model
from eagleray.state import batches
from eagleray.state.models import Registry
from tests import bundles, proxy
from tests.conftest import Bucket

pytestmark = pytest.mark.timeout(600)
FILES, ROWS, SIZE = 3, 1000, 100
EACH = batches.Options(rows_per_part=SIZE)


@pytest.fixture(scope="module")
def served(bucket: Bucket) -> Iterator[proxy.Proxy]:
    """Ray, a model in a bucket, three Parquet files, and the network between them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        registry = Registry(storage.open(f"{bucket.uri}/batch"))
        registry.promote("left", registry.register("left", bundles.files(), {}).number)
        store = storage.open(bucket.uri)
        for number in range(FILES):
            store.put(f"batch-in/{number}.parquet", parquet(number))
        network = proxy.Proxy(int(bucket.endpoint.rpartition(":")[2]))
        for name, value in bucket.environment.items():
            patch.setenv(name, value.replace(bucket.endpoint, f"http://127.0.0.1:{network.port}"))
        with ray_compat.connected(None, ray_compat.DEVICES, num_cpus=2):
            yield network
        network.close()


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


def test_a_run_that_ended_goes_on_with_what_is_left_and_then_is_done(
    served: proxy.Proxy, bucket: Bucket
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


def test_no_object_and_a_corrupt_one_are_named(served: proxy.Proxy, bucket: Bucket) -> None:
    with pytest.raises(errors.DataError, match="--input: an object is needed, but there is no"):
        model(bucket).predict_files(f"{bucket.uri}/nothing", f"{bucket.uri}/batch-out/none")
    content = bytearray(parquet(0))
    content[200:4000] = bytes(3800)  # its footer is sound
    storage.open(bucket.uri).put("batch-corrupt/0.parquet", bytes(content))
    output = f"{bucket.uri}/batch-out/corrupt"
    with pytest.raises(errors.DataError, match=r"batch-corrupt/0\.parquet: a readable table"):
        model(bucket).predict_files(f"{bucket.uri}/batch-corrupt", output, options=EACH)
    assert batches.Batch(storage.open(output)).result() is None


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_what_is_finished_and_the_next_one_goes_on(
    served: proxy.Proxy, bucket: Bucket, tmp_path: Path
) -> None:
    output = f"{bucket.uri}/batch-out/killed"
    command = [
        *(sys.executable, "-m", "eagleray", "predict", "left", "--version", "champion"),
        *("--input", f"{bucket.uri}/batch-in", "--output", output),
        *("--rows-per-part", str(SIZE), "--storage", f"{bucket.uri}/batch"),
    ]
    batch = batches.Batch(storage.open(output))
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ})
        while len(batch.parts()) < 3 and driver.poll() is None:
            time.sleep(0.05)
        driver.kill()
        driver.wait()
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
