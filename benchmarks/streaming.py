"""Time of an epoch of shuffled, streamed batches, against Ray Data's own iteration.

The same rows by the same transforms, encoded once into Ray's object store, of which a part is
spilled to disk; batches of tensors, as one training takes them:

    Ray Data  `read_parquet`, `map_batches` and `materialize`; an epoch is `iter_torch_batches` with
              a shuffle buffer of a window's rows
    eagleray  the blocks of a streamed experiment; an epoch is `ray_jobs.data.reading.Stream`
    arrays    the same experiment held in memory, as it is below `data.memory`: `reading.Whole`

Epochs take turns; the ratio is the median over turns of the seconds that a row takes. What both
passes over the files cost is printed too, in rows a second, as is Ray Data's one.

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
from eagleray.learn import arrays, features
from eagleray.tabular import delimited, load
from ray_jobs import search
from ray_jobs.data import encoded, passes, reading, streamed
from ray_jobs.data.blocks import Blocks

TARGET, WIDTH, FILES = 1.0, 16, 8
FILE = """
name: bench-streaming
data: {{source: rows, target: y, memory: {memory}}}
model: {{type: mlp, hidden: [16]}}
storage: file:///tmp/unused
"""
Epoch = Callable[[], int]
"""Reads an epoch's batches, and returns the rows."""


def write(folder: Path, rows: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(FILES):
        numbers = random.normal(size=(WIDTH, rows // FILES)).astype(np.float32)
        table = pa.table({f"x{place}": column for place, column in enumerate(numbers)})
        table = table.append_column("y", pa.array(np.where(numbers[0] > 0, "high", "low")))
        pyarrow.parquet.write_table(table, folder / f"{number}.parquet")


def prepare(folder: Path, memory: str) -> tuple[search.Search, encoded.Encoded]:
    """The experiment with this `data.memory`, read and encoded; prints what that took."""
    file, began = folder / f"{memory}.yaml", time.perf_counter()
    file.write_text(FILE.format(memory=memory))
    searched = search.Search(spec.load(file))
    total, read = sum(searched.dataset.counts.values()), time.perf_counter()
    data = searched.dataset.encode(searched.transforms(searched.experiment.default()))
    speeds = total / (read - began), total / (time.perf_counter() - read)
    print("{}: read {:,.0f}, encoded {:,.0f} rows a second".format(memory, *speeds), flush=True)
    return searched, data


def eagleray_epoch(data: encoded.Encoded, batch_size: int) -> Epoch:
    reader = data.train.reader(_tensors)
    return lambda: sum(one.rows for one in reader.shuffled(batch_size, torch.Generator()))


def ray_data_epoch(searched: search.Search, data: encoded.Encoded, batch_size: int) -> Epoch:
    """An epoch by Ray Data, whose shuffle buffer is as large as our window of blocks."""
    made, train = searched.dataset, data.train
    assert isinstance(made, streamed.Dataset)
    assert isinstance(train, Blocks)
    encoding = passes.Encoding(made.job, made.schema, made.label, data.transforms)

    def encode(table: pa.Table) -> dict[str, np.ndarray]:
        part = encoding.part(load.table(delimited.frame(table)))
        return {**part.inputs, "target": part.targets}

    began, paths = time.perf_counter(), [file.name for file in made.job.size.files]
    rows = ray.data.read_parquet(paths).map_batches(encode, batch_format="pyarrow").materialize()
    speed = made.total / (time.perf_counter() - began)
    print(f"Ray Data: read and encoded {speed:,.0f} rows a second", flush=True)
    window = reading.WINDOW * max(train.sizes)

    def epoch() -> int:
        batches = rows.iter_torch_batches(batch_size=batch_size, local_shuffle_buffer_size=window)
        return sum(len(batch["target"]) for batch in batches)

    return epoch


def measure(epochs: dict[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Seconds of a row in each epoch, by name; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):
        turns = list(epochs.items())
        for name, epoch in turns if number % 2 else reversed(turns):
            began = time.perf_counter()
            rows = epoch()
            seconds[name].append((time.perf_counter() - began) / rows)
    return {name: found[1:] for name, found in seconds.items()}


def report(seconds: dict[str, list[float]]) -> None:
    for name, each in seconds.items():
        print(f"{name}: {1 / statistics.median(each):,.0f} rows a second")
    pairs = zip(seconds["eagleray"], seconds["Ray Data"], strict=True)
    ratio = statistics.median(own / other for own, other in pairs)
    found = {
        "claim": "seconds of a row in an epoch's shuffled batches, beside Ray Data's iteration",
        "ours": statistics.median(seconds["eagleray"]),
        "peer": statistics.median(seconds["Ray Data"]),
        "ratio": ratio,
        "target": TARGET,
        "holds": ratio <= TARGET,
    }
    print(json.dumps(found), flush=True)


def _tensors(inputs: features.Inputs, targets: np.ndarray) -> reading.Batch:
    tensors = {name: arrays.tensor(value) for name, value in inputs.items()}
    return reading.Batch(tensors, arrays.tensor(targets))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--store-mb", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    store = given.store_mb << 20
    with (
        tempfile.TemporaryDirectory() as name,
        ray_compat.connected(None, object_store_memory=store),
    ):
        folder = Path(name)
        write(folder / "rows", given.rows)
        searched, data = prepare(folder, "32MB")
        epochs = {
            "Ray Data": ray_data_epoch(searched, data, given.batch_size),
            "eagleray": eagleray_epoch(data, given.batch_size),
            "arrays": eagleray_epoch(prepare(folder, "64GB")[1], given.batch_size),
        }
        report(measure(epochs, given.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
