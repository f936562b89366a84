"""What a batch predicts, checked before anything is computed."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

from eagleray import errors, predictions, storage
from eagleray.learn import schema
from eagleray.state import batches
from eagleray.state.models import Version
from eagleray.tabular import headers, sources

ROWS, BYTES = 50_000, 64 << 20
"""Rows of a part, and bytes that they have in the input at most, about."""
_LOCAL = "file://"
_READERS = 16


def make(
    known: schema.Schema, version: Version, source: str, output: str, options: batches.Options
) -> batches.Plan:
    """The plan of a batch; `output` is what `place` gave.

    Raises:
        UserError: the output lies in the input.
        DataError: the input has no files, or one of them cannot be predicted.
        StorageError: a bucket cannot be read.
    """
    _check_outside(source, output, options.format)
    found = _find(source)
    _check_inside(found, output)
    with ThreadPoolExecutor(_READERS) as pool:
        heads = list(pool.map(headers.read, found))
    keep = heads[0].columns if options.keep is None else list(dict.fromkeys(options.keep))
    needed = [*(column.name for column in known.columns), *keep]
    for file, head in zip(found, heads, strict=True):
        _check_columns(file.name, head.columns, needed)
    widest = max(head.row_bytes for head in heads)
    return batches.Plan(
        model=version.name,
        version=version.number,
        digest=_digest(version),
        inputs=tuple(
            batches.Input(name=one.name, size=one.size, version=one.version) for one in found
        ),
        keep=tuple(keep),
        output_format=options.format,
        rows_per_part=options.rows_per_part or max(1, min(ROWS, int(BYTES / max(1.0, widest)))),
    )


def place(output: str) -> str:
    """The URI of an output; UserError where it is none."""
    if not output.startswith(sources.SCHEME):
        return _local(output).as_uri()
    storage.open(output)
    return output.rstrip("/")


def make_folder(place: str) -> None:
    """Make an output's folder, if it is on this machine; UserError where that fails."""
    if place.startswith(sources.SCHEME):
        return
    try:
        _local(place).mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        law = "must be s3://bucket/prefix or a folder that can be written to"
        raise errors.UserError(f"--output: {law}, but {cause}") from cause


def _find(source: str) -> list[sources.File]:
    """The files of an input: one, all below a folder or prefix, or those of a pattern."""
    if not source.startswith(sources.SCHEME):
        return sources.find(str(_local(source)), Path.cwd(), key="--input")
    try:
        return sources.find(source, Path.cwd(), key="--input")
    except errors.DataError:
        if sources.is_several(source):
            raise
        return sources.find(f"{source}/", Path.cwd(), key="--input")


def _local(path: str) -> Path:
    if path.startswith(_LOCAL):
        path = unquote(path.removeprefix(_LOCAL))
    return Path(path).expanduser().absolute()


def _check_outside(source: str, output: str, suffix: batches.Format) -> None:
    """UserError if the input would name a part of the output once it is written."""
    there = _path(output)
    asked = source.rstrip("/") if source.startswith(sources.SCHEME) else str(_local(source))
    part = f"{there}/part.{suffix}"
    deep = "**" in asked or part.count("/") == asked.count("/")
    if part.startswith(f"{asked}/") or (deep and fnmatch.fnmatchcase(part, asked)):
        law = "must lie outside the input"
        raise errors.UserError(f"--output: {law}, but {output} is in {source}")


def _check_inside(found: Sequence[sources.File], output: str) -> None:
    """UserError if a file of the input lies in the output."""
    inside = next((one.name for one in found if one.name.startswith(f"{_path(output)}/")), None)
    if inside is not None:
        raise errors.UserError(f"--output: must not hold the input, but {inside} is in {output}")


def _path(output: str) -> str:
    """An output as files are named."""
    return output if output.startswith(sources.SCHEME) else str(_local(output))


def _check_columns(file: str, known: Sequence[str], needed: Sequence[str]) -> None:
    repeated = next((name for name in known if known.count(name) > 1), None)
    if repeated is not None:
        law = "column names must be different"
        raise errors.DataError(f"{file}: {law}, but got {repeated!r} twice")
    try:
        predictions.check_names(known, needed)
    except errors.DataError as cause:
        raise errors.DataError(f"{file}: {cause}") from cause


def _digest(version: Version) -> str:
    files = {path: blob.sha256 for path, blob in version.files.items()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
