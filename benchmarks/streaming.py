"""What an epoch's batches cost that are read of blocks, beside Ray Data's own iteration of them.

The same encoded blocks in Ray's object store, of which a part is spilled to disk:

    Ray Data  `iter_batches` with a local shuffle buffer of a window's rows, batches of Arrow
    eagleray  `ray_jobs.data.reading.Stream`, batches of tensors

Epochs of the two take turns; the ratio is the median over turns. What both passes over the files
cost is printed too, in rows a second.

Run: python benchmarks/streaming.py [--rows 2000000] [--batch-size 1024] [--store-mb 80]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import ray.data
import torch

from eagleray import ray_compat, spec
from ray_jobs import search, training
from ray_jobs.data import reading
from ray_jobs.data.blocks import Blocks

TARGET, WIDTH, FILES = 1.0, 16, 8
FILE = """
name: bench-streaming
data: {{source: rows, target: y, memory: 32MB}}
model: {{type: mlp, hidden: [16]}}
train: {{batch_size: {batch_size}}}
storage: file:///tmp/unused
"""


def write(folder: Path, rows: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(FILES):
        numbers = random.normal(size=(WIDTH, rows // FILES)).astype(np.float32)
        table = pa.table({f"x{place}": column for place, column in enumerate(numbers)})
        table = table.append_column("y", pa.array(np.where(numbers[0] > 0, "high", "low")))
        pyarrow.parquet.write_table(table, folder / f"{number}.parquet")


def timed(read: Callable[[], int]) -> tuple[float, int]:
    began = time.perf_counter()
    rows = read()
    return time.perf_counter() - began, rows


def measure(folder: Path, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each epoch by name."""
    (folder / "e.yaml").write_text(FILE.format(batch_size=batch_size))
    began = time.perf_counter()
    searched = search.Search(spec.load(folder / "e.yaml"))
    total = sum(searched.dataset.counts.values())
    print(f"first pass: {total / (time.perf_counter() - began):,.0f} rows a second")
    configuration, began = searched.experiment.default(), time.perf_counter()
    data = searched.dataset.encode(searched.transforms(configuration))
    print(f"second pass: {total / (time.perf_counter() - began):,.0f} rows a second")
    train = data.train
    assert isinstance(train, Blocks)
    load = training.Trainer(configuration, data, metric=searched.metric)._load
    window = reading.WINDOW * max(train.sizes)
    peer = ray.data.from_arrow_refs(list(train.places))

    def ours() -> int:
        batches = train.reader(load).shuffled(batch_size, torch.Generator())
        return sum(batch.rows for batch in batches)

    def theirs() -> int:
        batches = peer.iter_batches(
            batch_size=batch_size, batch_format="pyarrow", local_shuffle_buffer_size=window
        )
        return sum(map(len, batches))

    seconds: dict[str, list[float]] = {"Ray Data": [], "eagleray": []}
    for number in range(rounds):
        turns = [("Ray Data", theirs), ("eagleray", ours)]
        for name, read in turns if number % 2 else reversed(turns):
            took, rows = timed(read)
            assert rows == len(train), (name, rows)
            seconds[name].append(took)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--store-mb", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        ray_compat.connected(None, object_store_memory=given.store_mb << 20),
    ):
        write(Path(name, "rows"), given.rows)
        seconds = measure(Path(name), given.batch_size, given.rounds)
    pairs = zip(seconds["eagleray"], seconds["Ray Data"], strict=True)
    ratio = statistics.median(own / other for own, other in pairs)
    found = {
        "claim": "an epoch's shuffled batches of spilled blocks, beside Ray Data's iteration",
        "ours": statistics.median(seconds["eagleray"]),
        "peer": statistics.median(seconds["Ray Data"]),
        "ratio": ratio,
        "target": TARGET,
        "holds": ratio <= TARGET,
    }
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
