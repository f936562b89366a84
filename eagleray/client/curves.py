"""The curves of a search's trials: one Parquet table, and event files for TensorBoard."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from eagleray import errors
from eagleray.state.searches import Record


def parquet(trials: Sequence[Record]) -> bytes:
    """A row for each epoch: `trial`, `epoch`, `values` as JSON, and each metric (null: none)."""
    rows = [
        {"trial": one.number, "epoch": epoch, "values": json.dumps(one.values), **metrics}
        for one in trials
        for epoch, metrics in enumerate(one.history, 1)
    ]
    names = sorted({name for row in rows for name in row} - {"trial", "epoch", "values"})
    fields = [("trial", pa.int64()), ("epoch", pa.int64()), ("values", pa.string())]
    schema = pa.schema([*fields, *((name, pa.float64()) for name in names)])
    packed = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema), packed)
    return packed.getvalue()


def write_events(trials: Sequence[Record], folder: Path) -> None:
    """Write a run of TensorBoard for each trial, with its values as hyperparameters.

    UserError if the folder is not empty: TensorBoard would draw both curves as one.
    """
    from tensorboardX import SummaryWriter

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise errors.UserError(f"--out must be a new or an empty folder, but got {folder}")
    for one in trials:
        with SummaryWriter(str(folder / f"trial-{one.number:05}")) as writer:
            for epoch, metrics in enumerate(one.history, 1):
                for name, value in metrics.items():
                    writer.add_scalar(name, value, epoch)
            best = {f"best/{name}": value for name, value in one.best.items()}
            writer.add_hparams(_plain(one.values), best, name="values")


def _plain(values: dict[str, Any]) -> dict[str, str | float | bool]:
    """Values as TensorBoard takes them: lists, mappings and null as JSON."""
    return {
        key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
        for key, value in values.items()
    }
