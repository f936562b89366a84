"""Columns of picture files: paths are replaced by what the files hold, once, when data is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from eagleray import errors

SUFFIXES = (".png", ".jpg", ".jpeg")


def opened(frame: pd.DataFrame, base: Path) -> pd.DataFrame:
    """The frame with bytes for paths, in columns whose first value names a picture that exists.

    Args:
        frame: the table.
        base: the experiment file's folder; paths start here or in the working directory.

    Raises:
        DataError: a later path of such a column names no file.
    """
    for name in frame.columns:
        if _holds_paths(frame[name], base):
            contents = [_content(str(name), value, base) for value in frame[name]]
            frame[name] = pd.Series(contents, dtype=object)
    return frame


def _holds_paths(series: pd.Series[Any], base: Path) -> bool:
    first = next((value for value in series if isinstance(value, str) and value.strip()), "")
    return first.lower().endswith(SUFFIXES) and _path(first, base) is not None


def _content(column: str, value: object, base: Path) -> bytes | None:
    if not isinstance(value, str) or not value.strip():
        return None
    path = _path(value.strip(), base)
    if path is None:
        raise errors.DataError(f"{column}: a picture's file is needed, but there is no {value!r}")
    return path.read_bytes()


def _path(value: str, base: Path) -> Path | None:
    return next((path for path in (base / value, Path(value)) if path.is_file()), None)
