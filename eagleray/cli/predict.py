"""`eagleray predict`: rows of a file, without a server."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray import names
from eagleray.cli import options
from eagleray.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def predict(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or JSON Lines; - is standard input.")],
    reference: Annotated[
        str, typer.Option("--version", help="An alias, a number, or latest.")
    ] = "champion",
    repeated: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="COLUMN", help="Repeat this column of the file, such as an id."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail, and print nothing, if a row is faulty.")
    ] = False,
    storage: options.Storage = options.EMBEDDED,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a row.")] = False,
) -> None:
    """Predict rows of a file; print a line for each, in its order, as CSV or with --json as JSON.

    For a row that the model cannot take, `error` has its number, from 1, and what is wrong.
    """
    from eagleray.api import models

    model, frame = models.models(storage)[name], _read(file)
    try:
        answers = model.answers(frame, reference, repeated=repeated or ())
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    summary = f"{len(answers.faults)} of {len(answers.rows)} rows cannot be predicted"
    if answers.faults and strict:
        raise DataError(f"{file}: {summary}; the first is {answers.faults[0]}")
    if as_json:
        for document in answers.documents():
            typer.echo(json.dumps(document, ensure_ascii=False))
    else:
        answers.table().to_csv(sys.stdout, index=False, lineterminator="\n")
    if answers.faults:
        typer.echo(f"{summary}; the column error says why", err=True)


def _read(file: Path) -> pd.DataFrame:
    """Read a table; standard input is CSV, JSON Lines or Parquet by its first bytes."""
    from eagleray.tabular import load

    if str(file) != "-":
        if not file.is_file():
            beside = [path.name for path in file.parent.glob("*")]
            raise DataError(
                f"{file}: a file is needed, but got none{names.near(file.name, beside)}"
            )
        return load.file(file, file.parent)
    data = sys.stdin.buffer.read()
    suffix = ".jsonl" if data.lstrip()[:1] == b"{" else ".csv"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stdin").with_suffix(".parquet" if data[:4] == b"PAR1" else suffix)
        path.write_bytes(data)
        return load.file(path, Path.cwd(), shown="-")
