"""Tables from all that `data.source` may name: files, objects, data sets, the user's functions."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from eagleray import code, errors, names, spec
from eagleray.learn import schema
from eagleray.learn.columns.arrow import Texts
from eagleray.tabular import delimited, files, sources
from eagleray.tabular.delimited import Source

BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
"""The data sets bundled with scikit-learn."""


def read(data: spec.Data, base: Path) -> pd.DataFrame:
    """The table of an experiment, rows in the source's order; `base` is the folder of its file.

    DataError if there is no such source, or it cannot be read or has no rows; CodeError if the
    user's function fails; StorageError if an object cannot be fetched.
    """
    frame = _checked(_read(data, base), data.source, base)
    if not len(frame):
        raise errors.DataError(f"{data.source}: at least one row is needed, but got none")
    return frame


def file(path: Path, base: Path, *, shown: str | None = None) -> pd.DataFrame:
    """The table in a file, named `shown` in messages; pictures' paths start at `base`."""
    source = Source(path, shown or str(path), settable=False)
    return _checked(files.read(source), source.name, base)


def joined(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of several files by name, in the columns' order of the first one.

    DataError if a file has other columns.
    """
    first, whole = next(iter(frames.items()))
    if len(frames) == 1:
        return whole
    needed = [str(column) for column in whole.columns]
    for name, frame in frames.items():
        sources.check_columns(name, [str(column) for column in frame.columns], first, needed)
    return pd.concat([frame[whole.columns] for frame in frames.values()], ignore_index=True)


def is_file(source: str) -> bool:
    """Whether a source is a file or several, and neither a bundled data set nor a function."""
    return source.startswith(sources.SCHEME) or not (
        source.startswith("dataset:") or code.is_name(source)
    )


def table(frame: pd.DataFrame) -> dict[str, schema.Raw]:
    """Raw values by column: arrays of numbers or times, `Texts`, or lists of Python values."""
    return {str(name): _raw(frame[name]) for name in frame.columns}


def _checked(frame: pd.DataFrame, source: str, base: Path) -> pd.DataFrame:
    header = [str(name) for name in frame.columns]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise errors.DataError(
            f"{source}: column names must be different, but got {min(repeated)!r} twice"
            f"{delimited.header_hint(header)}"
        )
    return files.read_pictures(frame.set_axis(header, axis=1).reset_index(drop=True), base)


def _read(data: spec.Data, base: Path) -> pd.DataFrame:
    source = data.source
    if is_file(source):
        return _files(data, base)
    for key in ("encoding", "delimiter"):
        if getattr(data, key) is not None:
            got = f"but data.source is {source!r}"
            raise errors.DataError(f"data.{key}: only a file has one, {got}")
    if source.startswith("dataset:"):
        return _bundled(source.removeprefix("dataset:"))
    return _called(source, base)


def _bundled(name: str) -> pd.DataFrame:
    from sklearn import datasets

    if name not in BUNDLED:
        raise errors.DataError(
            f"data.source: dataset: must be one of {', '.join(BUNDLED)},"
            f" but got {name!r}{names.near(name, BUNDLED)}"
        )
    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    frame: pd.DataFrame = bunch.data
    if name == "digits":
        frame = pd.DataFrame({"image": list(bunch.images)})
    classes = [str(label) for label in bunch.get("target_names", ())]
    target = [classes[index] for index in bunch.target] if classes else bunch.target
    return frame.assign(target=target)


def _files(data: spec.Data, base: Path) -> pd.DataFrame:
    if data.source.startswith(sources.SCHEME) and not sources.is_several(data.source):
        with tempfile.TemporaryDirectory() as folder:  # without a listing, which may be forbidden
            path = Path(folder, Path(data.source).name)
            sources.fetch(data.source, path)
            return files.read(Source(path, data.source, data.encoding, data.delimiter))
    frames = {}
    for file in sources.find(data.source, base):
        with file.opened() as path:
            source = Source(path, file.name, data.encoding, data.delimiter)
            frames[file.name] = files.read(source)
    return joined(frames)


def _called(source: str, base: Path) -> pd.DataFrame:
    own = code.read(source, base)
    with code.guard("must give a frame", own):
        frame = own.load()()
    if not isinstance(frame, pd.DataFrame):
        kind = type(frame).__name__
        raise errors.CodeError(f"{source}: must give a pandas.DataFrame, but gave {kind}")
    return frame


def _raw(series: pd.Series[Any]) -> schema.Raw:
    if getattr(series.dtype, "pyarrow_dtype", None) in (pa.string(), pa.large_string()):
        cells = pa.array(series)
        return Texts(cells if isinstance(cells, pa.ChunkedArray) else pa.chunked_array([cells]))
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if pd.api.types.is_timedelta64_dtype(series.dtype):
        series = series.dt.total_seconds()
    if isinstance(series.dtype, np.dtype):
        if series.dtype.kind in "iufb":
            return series.to_numpy()
        if series.dtype.kind == "M":
            return series.to_numpy().astype("datetime64[ms]")
    values = series.astype(object).tolist()
    gone = series.isna().tolist()
    return [None if missing else value for value, missing in zip(values, gone, strict=True)]
