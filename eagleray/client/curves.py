"""The curves of a search's trials: one Parquet table, and event files for TensorBoard."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet

from eagleray import errors
from eagleray.state import watches
from eagleray.state.searches import Record

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


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


def write_events(
    trials: Sequence[Record],
    folder: Path,
    layers: Callable[[int], Sequence[watches.Row]] = lambda _: (),
) -> None:
    """Write a run of TensorBoard for each trial, with its values as hyperparameters.

    `layers` gives what was watched of a trial, by its number.

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
            for row in layers(one.number):
                _write_layer(writer, row)
            best = {f"best/{name}": value for name, value in one.best.items()}
            writer.add_hparams(_hyperparameters(one.values), best, name="values")


def _write_layer(writer: SummaryWriter, row: watches.Row) -> None:
    for name in ("gradient", "weight", "update", "dead"):
        if (value := getattr(row, name)) is not None:
            writer.add_scalar(f"{name}/{row.layer}", value, row.epoch)
    edges = watches.edges()
    for name, counts in (("weights", row.weights), ("updates", row.updates)):
        writer.add_histogram_raw(
            f"{name}/{row.layer}",
            min=0.0,
            max=edges[-1],
            num=sum(counts),
            sum=0.0,  # unknown
            sum_squares=0.0,
            bucket_limits=[*edges, sys.float_info.max],
            bucket_counts=counts,
            global_step=row.epoch,
        )


def _hyperparameters(values: dict[str, Any]) -> dict[str, str | float | bool]:
    """Values as TensorBoard takes them: lists, mappings and null as JSON."""
    return {
        key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
        for key, value in values.items()
    }
