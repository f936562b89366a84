"""The driver of 1,000 trials: what one of the last costs against one of the first.

Trials train almost nothing, so what is measured is the driver's own: suggestions, Ray Tune's loop,
records in storage, lines on the screen. Time is CPU time of the driver's process, which does not
depend on what else runs on the machine. Both are compared between the second fifth and the last.

Run: python benchmarks/driver.py [--trials 1000] [--search tpe]
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from rich import console

from eagleray import spec
from ray_jobs import cluster, pipeline

FILE = """
name: bench-driver
data: {{source: "dataset:wine", target: target}}
model: {{hidden: [4], dropout: {{uniform: [0.0, 0.5]}}}}
train:
  lr: {{loguniform: [1.0e-3, 1.0e-1]}}
  weight_decay: {{loguniform: [1.0e-6, 1.0e-2]}}
  epochs: 1
tune: {{trials: {trials}, search: {search}, pack: 1}}
storage: file://{folder}
"""


class Screen(io.StringIO):
    """Notes the driver's CPU seconds and memory (KB) whenever a trial has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[float, float]] = []

    def write(self, text: str) -> int:
        if text.startswith("trial ") and " after " in text:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.notes.append((time.process_time(), pages * os.sysconf("SC_PAGE_SIZE") / 1024))
        return len(text)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--search", choices=["tpe", "random"], default="tpe")
    options = parser.parse_args()
    screen = Screen()
    with tempfile.TemporaryDirectory() as name, cluster.connected():
        folder = Path(name)
        (folder / "storage").mkdir()
        file = folder / "bench.yaml"
        file.write_text(FILE.format(folder=folder / "storage", **vars(options)))
        pipeline.run(spec.load(file), console.Console(file=screen, width=200))
    fifth = len(screen.notes) // 5
    for start in range(0, 5 * fifth, fifth):
        seconds, memory = _per_trial(screen.notes[start : start + fifth])
        print(f"  from {start:4}: {seconds * 1e3:6.1f} ms, {memory:6.1f} KB", file=sys.stderr)
    early, late = screen.notes[fifth : 2 * fifth], screen.notes[-fifth:]
    for text, place, target in (
        ("the driver's CPU seconds a trial, last fifth over second", 0, 1.2),
        ("the driver's KB a trial, last fifth over second", 1, 1.2),
    ):
        ours, peer = _per_trial(late)[place], _per_trial(early)[place]
        figures = {"ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 2)}
        holds = {"target": target, "holds": ours <= target * peer}
        print(json.dumps({"claim": text, **figures, **holds}), flush=True)


def _per_trial(notes: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean CPU seconds and KB of a trial."""
    (first, least), (last, most) = notes[0], notes[-1]
    return (last - first) / (len(notes) - 1), (most - least) / (len(notes) - 1)


if __name__ == "__main__":
    main()
