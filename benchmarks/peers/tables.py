"""Libraries for tables beside which `quality.py` sets ours: the same parts, the same minutes.

A peer is a file here, started by `python -m benchmarks.peers.with_NAME FOLDER`, and a line of
`PEERS`. The folder holds the parts as Parquet files, and the problem.

Legend: B rows, C classes.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import peers

PEERS = {"lightgbm": "", "flaml": "flaml", "autogluon": "autogluon"}
"""The environment of each, see `benchmarks.peers`."""
PARTS = ("train", "validation", "test")


def predict(peer: str, parts: dict[str, pd.DataFrame], folder: Path, **problem: Any) -> np.ndarray:
    """Fit a peer; return its probabilities (B, C), or numbers (B), for the part `test`.

    Args:
        peer: one of `PEERS`.
        parts: a table for each of `PARTS`, with the target.
        folder: an empty one.
        problem: see `Problem`.

    Raises:
        subprocess.CalledProcessError: the peer failed; its trace is on stderr.
    """
    (folder / "problem.json").write_text(json.dumps(problem))
    for name in PARTS:
        parts[name].to_parquet(folder / f"{name}.parquet")
    module = f"benchmarks.peers.with_{peer}"
    words = [peers.interpreter(PEERS[peer]), "-m", module, str(folder)]
    subprocess.run(words, cwd=peers.ROOT, check=True)
    return np.asarray(np.load(folder / "outputs.npy"))


@dataclass(frozen=True)
class Problem:
    """What a peer predicts, by which metric, in how many minutes.

    Attributes:
        folder: where the parts are.
        target: the column of numbers, or of classes from 0; of two classes, 1 is the positive one.
        classes: how many there are; 0 for numbers.
        metric: what the search goes by: of classes `roc_auc`, `f1` or `accuracy`, else `rmse`.
        minutes: the budget.
    """

    folder: Path
    target: str
    classes: int
    metric: str
    minutes: float

    @classmethod
    def read(cls, folder: Path) -> "Problem":
        return cls(folder=folder, **json.loads((folder / "problem.json").read_text()))

    def load_parts(self, *, categories: bool) -> list[pd.DataFrame]:
        """Load the tables of `PARTS`; texts and booleans as pandas categories, or as they are."""
        tables = [pd.read_parquet(self.folder / f"{name}.parquet") for name in PARTS]
        for table in tables if categories else ():
            words = table.select_dtypes(["object", "string", "bool"]).columns
            table[words] = table[words].astype("category")
        return tables

    def save(self, outputs: Any) -> None:
        """Save the predictions for the part `test`."""
        np.save(self.folder / "outputs.npy", np.asarray(outputs))
