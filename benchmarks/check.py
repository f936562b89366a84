"""`eagleray check` on a large CSV file, beside pandas that reads it and types its columns.

A million rows of 20 columns: numbers with and without gaps, whole numbers, categories, booleans,
days, times and the target. Each contestant is a fresh process, so its peak of memory is its own.
Unlike pandas, `check` splits the rows too, and fingerprints all values. The times of one run
compare; those of a busy machine are long for both.

Run: python benchmarks/check.py [--rows 1000000]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

TARGET_S, TARGET_MB = 10, 1000
PEER = """
import sys, pandas as pd
frame = pd.read_csv(sys.argv[1])
for name in frame.columns:
    column = frame[name]
    if not pd.api.types.is_numeric_dtype(column):
        try:
            frame[name] = pd.to_datetime(column, format="ISO8601")
        except ValueError:
            frame[name] = column.astype("category")
frame.info()
print(frame.describe(include="all"))
"""


class Spent(NamedTuple):
    """What a process took of wall clock, of all cores, and of memory at its peak."""

    seconds: float
    cpu_s: float
    peak_mb: float


def table(rows: int) -> pa.Table:
    """Twenty columns of every common kind."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for place in range(8):
        values = np.round(rng.normal(50, 20, rows), 2 + place % 4)
        gaps = rng.random(rows) < 0.05 * (place < 2)
        columns[f"measure_{place}"] = pa.array(values, mask=gaps)
    for place, most in enumerate((10, 100, 10_000, 10**9)):
        columns[f"count_{place}"] = rng.integers(0, most, rows)
    for place, most in enumerate((4, 40, 400, 4000)):
        names = pa.array([f"kind {number}" for number in range(most)])
        columns[f"kind_{place}"] = names.take(pa.array(rng.zipf(1.3, rows) % most))
    columns["member"] = pa.array(["no", "yes"]).take(pa.array(rng.integers(0, 2, rows)))
    times = np.datetime64("2015-01-01", "s") + rng.integers(0, 10**8, rows)
    columns["born"] = pa.array(times.astype("datetime64[D]"))
    columns["seen"] = pa.array(times)
    columns["sold"] = pa.array(["no", "yes"]).take(pa.array((rng.random(rows) < 0.2).astype(int)))
    return pa.table(columns)


def spent(*command: str) -> Spent:
    """What a fresh Python takes for this."""
    began = perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Spent(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def claim(text: str, ours: float, peer: float, target: float) -> None:
    figures = {"ours": round(ours, 1), "peer": round(peer, 1), "ratio": round(ours / peer, 2)}
    print(json.dumps({"claim": text, **figures, "target": target, "holds": ours < target}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pyarrow.csv.write_csv(table(rows), folder / "rows.csv")
        (folder / "peer.py").write_text(PEER)
        file = folder / "check.yaml"
        file.write_text("name: check\ndata: {source: rows.csv, target: sold}\n")
        peer = spent(str(folder / "peer.py"), str(folder / "rows.csv"))
        ours = spent("-m", "eagleray", "check", str(file))
    for label, one in (("eagleray check", ours), ("pandas", peer)):
        figures = f"{one.seconds:6.1f} s {one.cpu_s:6.1f} s of CPU {one.peak_mb:6.0f} MB"
        print(f"  {label:16}{figures}", file=sys.stderr)
    of = f"eagleray check of {rows:,} rows of 20 columns; the peer is pandas"
    claim(f"MB at the peak of {of}", ours.peak_mb, peer.peak_mb, TARGET_MB)
    claim(f"seconds of {of}; the target is in seconds", ours.seconds, peer.seconds, TARGET_S)


if __name__ == "__main__":
    main()
