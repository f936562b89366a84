"""The parts of an experiment's data as files, so that other models can be compared on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import eagleray
from eagleray import errors, spec
from eagleray.storage import files
from eagleray.tabular import load
from ray_jobs.data import extent, prepare


def export(experiment: spec.Experiment, folder: Path) -> dict[str, Any]:
    """Write the parts and `split.json`, a description of the split, which is returned.

    Rows are those of the source, in its order and with every column. Files are CSV, or Parquet if
    the data has pictures or lists.

    Raises:
        UserError: the folder is not empty; see also `prepare.dataset`.
        DataError: the rows are more than `data.memory` holds.
    """
    size = extent.measure(experiment)
    if size is not None and size.streamed:
        law = "parts are written of rows that are held in memory"
        raise errors.DataError(f"data.memory: {law}, but {size}")
    data, frame = experiment.data, load.read(experiment.data, experiment.path.parent)
    dataset = prepare.dataset(experiment, frame)
    suffix = "csv" if all(map(_is_flat, (frame[name] for name in frame))) else "parquet"
    parts = vars(dataset.split)
    described = {
        "experiment": experiment.name,
        "source": data.source,
        "target": data.target,
        "split": data.split.model_dump(mode="json"),
        "seed": data.seed,
        "rows": {"source": len(frame), "left_out": len(frame) - len(dataset.rows)},
        "parts": {
            name: {"file": f"{name}.{suffix}", "rows": len(rows)} for name, rows in parts.items()
        },
        "notes": dataset.notes,
        "data": dataset.fingerprint,
        "eagleray": eagleray.__version__,
    }
    with files.creating(folder) as unfinished:
        for name, rows in parts.items():
            _write(frame.iloc[dataset.rows[rows] - 1], unfinished / f"{name}.{suffix}")
        (unfinished / "split.json").write_text(json.dumps(described, indent=2) + "\n")
    return described


def _is_flat(column: pd.Series[Any]) -> bool:
    """Whether CSV can hold each value."""
    return column.dtype != object or not any(
        isinstance(value, bytes | list | np.ndarray) for value in column
    )


def _write(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False, lineterminator="\n")
        return
    nested = frame.map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)
    nested.to_parquet(path, index=False)
