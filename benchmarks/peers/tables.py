"""Libraries for tables beside which `quality.py` sets ours: the same parts, the same minutes.

A peer is a file here, started by `python -m benchmarks.peers.with_NAME FOLDER`, and a line of
`PEERS`. The folder holds the parts as Parquet files and what is asked of them.

Legend: B rows, C classes.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PEERS = {"lightgbm": "", "flaml": "flaml", "autogluon": "autogluon"}
"""The environment of each, see `benchmarks.peers`."""
PARTS = ("train", "validation", "test")


def ask(peer: str, parts: dict[str, pd.DataFrame], folder: Path, **asked: Any) -> np.ndarray:
    """The probabilities (B, C), or numbers (B), for the part `test`.

    Args:
        peer: one of `PEERS`.
        parts: a table for each of `PARTS`, with the target.
        folder: an empty one.
        asked: see `Asked`.

    Raises:
        subprocess.CalledProcessError: the peer failed; its trace is on stderr.
    """
    from benchmarks import peers

    (folder / "asked.json").write_text(json.dumps(asked))
    for name in PARTS:
        parts[name].to_parquet(folder / f"{name}.parquet")
    module = f"benchmarks.peers.with_{peer}"
    words = [peers.python(PEERS[peer]), "-m", module, str(folder)]
    subprocess.run(words, cwd=peers.ROOT, check=True)
    return np.asarray(np.load(folder / "outputs.npy"))


@dataclass(frozen=True)
class Asked:
    """What a peer is asked for.

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
    def read(cls, folder: Path) -> "Asked":
        return cls(folder=folder, **json.loads((folder / "asked.json").read_text()))

    def parts(self, *, categories: bool) -> list[pd.DataFrame]:
        """The tables of `PARTS`, with texts and booleans as categories of pandas or as they are."""
        tables = [pd.read_parquet(self.folder / f"{name}.parquet") for name in PARTS]
        for table in tables if categories else ():
            words = table.select_dtypes(["object", "string", "bool"]).columns
            table[words] = table[words].astype("category")
        return tables

    def answer(self, outputs: Any) -> None:
        np.save(self.folder / "outputs.npy", np.asarray(outputs))
