"""Streamed data whose bucket goes away, or whose objects change, in the middle of a pass."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich import console

from eagleray import errors, ray_compat, spec, storage
from eagleray.storage import server
from ray_jobs import pipeline, search
from tests import proxy
from tests.conftest import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FILES, ROWS, WIDTH = 4, 40_000, 16
FILE = """
name: away
data: {{source: '{source}', target: y, memory: 1MB}}
model: {{hidden: [8]}}
train: {{epochs: 1, batch_size: 1024, lr: 0.01}}
tune: {{trials: 1, scheduler: none}}
storage: file://{folder}
"""


@dataclass(frozen=True)
class Away:
    """A bucket behind a network that can be broken, and its objects on the near side of it."""

    network: proxy.Proxy
    store: storage.Storage
    contents: dict[str, bytes]

    def plan(self, then: Callable[[], None]) -> None:
        """Call `then` in the middle of the second file of the next pass."""
        self.network.plan(sum(map(len, list(self.contents.values())[:2])) * 3 // 4, then)

    def restore(self) -> None:
        for key, content in self.contents.items():
            self.store.put(key, content)


@pytest.fixture(scope="module")
def away(bucket: Bucket) -> Iterator[Away]:
    """A Ray cluster of one CPU, whose processes reach the bucket by a proxy alone."""
    random, contents = np.random.default_rng(0), {}
    for number in range(FILES):
        table = pd.DataFrame(random.normal(size=(ROWS, WIDTH)).astype(np.float32))
        table.columns = [f"x{place}" for place in range(WIDTH)]
        table["y"] = np.where(table["x0"] > table["x1"], "high", "low")
        table.to_parquet(sink := io.BytesIO(), row_group_size=5000)
        contents[f"away/{number}.parquet"] = sink.getvalue()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        direct = storage.open(bucket.uri)
        network = proxy.Proxy(int(bucket.endpoint.rpartition(":")[2]))
        for name, value in bucket.environment.items():
            patch.setenv(name, value.replace(bucket.endpoint, f"http://127.0.0.1:{network.port}"))
        with ray_compat.connected(None, ray_compat.DEVICES, num_cpus=1):
            yield Away(network, direct, contents)
        network.close()


def experiment(folder: Path) -> spec.Experiment:
    (folder / "store").mkdir(exist_ok=True)
    file = folder / "e.yaml"
    source = f"s3://{server.BUCKET}/away/*.parquet"
    file.write_text(FILE.format(source=source, folder=folder / "store"))
    return spec.load(file)


def test_both_passes_go_on_when_their_bucket_comes_back(away: Away, tmp_path: Path) -> None:
    away.restore()
    whole = search.Search(experiment(tmp_path))
    away.plan(lambda: away.network.leave(refusals=5))
    searched = search.Search(experiment(tmp_path))
    assert away.network.refused == 5
    assert searched.id == whole.id
    configuration = searched.experiment.default()
    transforms = searched.transforms(configuration)
    away.plan(lambda: away.network.leave(refusals=5))
    data = searched.dataset.encode(transforms)
    assert away.network.refused == 5
    assert len(data.train) == whole.dataset.counts["train"]


def test_a_bucket_that_stays_away_ends_the_search_before_anything_is_written(
    away: Away, tmp_path: Path
) -> None:
    away.restore()
    away.plan(away.network.leave)
    with pytest.raises(errors.StorageUnavailableError, match=r"the connection .*after retries"):
        pipeline.run(experiment(tmp_path), console.Console(file=io.StringIO()))
    assert list(storage.open(f"file://{tmp_path}/store").list()) == []
    away.network.leave(refusals=0)
    assert search.Search(experiment(tmp_path)).dataset.counts["train"] > 0


@pytest.mark.parametrize("number", [1, 3], ids=["read at the time", "read later"])
@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_an_object_that_changes_in_the_middle_of_a_pass_is_named(
    away: Away, tmp_path: Path, number: int, change: str
) -> None:
    away.restore()
    key = f"away/{number}.parquet"

    def act() -> None:
        if change == "deleted":
            away.store.delete(key)
        else:
            away.store.put(key, away.contents["away/0.parquet"])

    searched = search.Search(experiment(tmp_path))
    away.plan(act)
    with pytest.raises(errors.DataError, match=f"{number}.parquet.*(changed|gone|no such object)"):
        searched.dataset.encode(searched.transforms(searched.experiment.default()))
