"""The parts of an experiment's data as files: what a model of another kind can be compared on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import eagleray
from eagleray import spec
from eagleray.storage import files
from eagleray.tabular import load
from ray_jobs.data import prepare

NAMES = {"training": "train", "validation": "validation", "test": "test"}
"""What the file of a part is called."""


def export(experiment: spec.Experiment, folder: Path) -> dict[str, Any]:
    """Write train, validation and test, and `split.json`, which says how they were parted.

    Rows are as the source has them, every column and the source's order included. Files are CSV;
    of data with pictures or lists they are Parquet.

    Returns:
        What `split.json` holds.

    Raises:
        UserError: the folder is not empty, or see `prepare.dataset`.
    """
    frame = load.read(experiment.data, experiment.path.parent)
    dataset = prepare.dataset(experiment, frame)
    suffix = "csv" if all(map(_is_flat, (frame[name] for name in frame))) else "parquet"
    described = _described(experiment, dataset, len(frame), suffix)
    with files.creating(folder) as unfinished:
        for part, rows in dataset.split.parts().items():
            taken = frame.iloc[dataset.rows[rows] - 1]
            _write(taken, unfinished / f"{NAMES[part]}.{suffix}")
        (unfinished / "split.json").write_text(json.dumps(described, indent=2) + "\n")
    return described


def _described(
    experiment: spec.Experiment, dataset: prepare.Dataset, count: int, suffix: str
) -> dict[str, Any]:
    data = experiment.data
    return {
        "experiment": experiment.name,
        "source": data.source,
        "target": data.target,
        "split": data.split.model_dump(mode="json"),
        "seed": data.seed,
        "rows": {"source": count, "left_out": count - len(dataset.rows)},
        "parts": {
            NAMES[part]: {"file": f"{NAMES[part]}.{suffix}", "rows": len(rows)}
            for part, rows in dataset.split.parts().items()
        },
        "notes": list(dataset.notes),
        "data": dataset.fingerprint,
        "eagleray": eagleray.__version__,
    }


def _is_flat(column: pd.Series[Any]) -> bool:
    """Whether a line of text can hold each value."""
    return column.dtype != object or not any(
        isinstance(value, bytes | list | np.ndarray) for value in column
    )


def _write(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False, lineterminator="\n")
        return
    nested = frame.map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)
    nested.to_parquet(path, index=False)
