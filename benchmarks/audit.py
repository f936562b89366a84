"""Time of `eagleray audit` on a large CSV file, and of `eagleray check` on the same file.

The million rows of 20 columns of `benchmarks/check.py`, and the same with a leak, duplicates and
wrong labels planted, which must be found. Each contestant is a fresh process.

Run: python -m benchmarks.audit [--rows 1000000]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from benchmarks import check

TARGET_S = 30
PLANTED = {"target copy", "duplicate rows", "rows across parts"}


def planted(rows: pa.Table) -> pa.Table:
    """The same rows with a copy of the target in place of a column, and a tenth of them twice."""
    count = len(rows)
    twice = np.arange(count)
    twice[: count // 10] += count // 2
    place = rows.column_names.index("kind_0")
    return rows.set_column(place, "kind_0", rows["sold"]).take(pa.array(twice))


def audited(folder: Path, name: str, rows: pa.Table) -> tuple[float, dict[str, Any]]:
    """Seconds of `eagleray audit` in a fresh process, and what it printed."""
    pyarrow.csv.write_csv(rows, folder / f"{name}.csv")
    file = folder / f"{name}.yaml"
    file.write_text(f"name: {name}\ndata: {{source: {name}.csv, target: sold}}\n")
    began = perf_counter()
    command = [sys.executable, "-m", "eagleray", "audit", str(file), "--json"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return perf_counter() - began, json.loads(told)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), check.table(count)
        clean_s, clean = audited(folder, "clean", rows)
        faulty_s, faulty = audited(folder, "faulty", planted(rows))
        checked = check.spent("-m", "eagleray", "check", str(folder / "clean.yaml"))
    found = PLANTED & {one["check"] for one in faulty["findings"]}
    print(f"  clean {clean_s:.1f} s, {clean['errors']} errors", file=sys.stderr)
    print(f"  planted {faulty_s:.1f} s, found {', '.join(sorted(found))}", file=sys.stderr)
    ours = max(clean_s, faulty_s)
    claim = f"seconds of eagleray audit of {count:,} rows of 20 columns, the longer of two tables"
    figures = {"ours": round(ours, 1), "peer": round(checked.seconds, 1)}
    holds = ours < TARGET_S and found == PLANTED and not clean["errors"]
    print(
        json.dumps(
            {
                "claim": f"{claim}; the peer is eagleray check",
                **figures,
                "ratio": round(ours / checked.seconds, 2),
                "target": TARGET_S,
                "holds": holds,
            }
        )
    )


if __name__ == "__main__":
    main()
