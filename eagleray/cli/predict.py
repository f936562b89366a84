"""`eagleray predict`: rows of a file, without a server."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eagleray import names
from eagleray.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from eagleray import bundle, schema

Row = dict[str, Any]


def predict(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or JSON Lines; - is standard input.")],
    reference: Annotated[
        str, typer.Option("--version", help="An alias, a number, or latest.")
    ] = "champion",
    kept: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="COLUMN", help="Repeat this column of the file, such as an id."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail, and print nothing, if a row is faulty.")
    ] = False,
    storage_uri: Annotated[
        str, typer.Option("--storage", envvar="EAGLERAY_STORAGE", help="Where the model is.")
    ] = "s3://eagleray",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a row.")] = False,
) -> None:
    """Predict rows of a file; print a line for each, in its order, as CSV or with --json as JSON.

    For a row that the model cannot take, `error` has its number, from 1, and what is wrong.
    """
    from eagleray import bundle, storage
    from eagleray.state.models import Registry
    from ray_jobs.data import load

    models = Registry(storage.open(storage_uri))
    made = bundle.load(models, models.resolve(name, reference))
    raw = load.table(_read(file))
    columns = list(dict.fromkeys(kept or []))
    _check_names(file, raw, [*(column.name for column in made.schema.columns), *columns])
    answers = _answers(made, raw)
    faults = [answer["error"] for answer in answers if answer["error"]]
    said = f"{len(faults)} of {len(answers)} rows cannot be predicted"
    if faults and strict:
        raise DataError(f"{file}: {said}; the first is {faults[0]}")
    if as_json:
        _write_json({column: raw[column] for column in columns}, answers)
    else:
        _write_csv({column: raw[column] for column in columns}, answers, made.schema.target)
    if faults:
        typer.echo(f"{said}; the column error says why", err=True)


def _read(file: Path) -> pd.DataFrame:
    """The table; standard input is CSV, JSON Lines or Parquet by how it begins."""
    from ray_jobs.data import files, pictures

    if str(file) != "-":
        if not file.is_file():
            beside = [path.name for path in file.parent.glob("*")]
            raise DataError(
                f"{file}: a file is needed, but got none{names.near(file.name, beside)}"
            )
        return pictures.opened(files.read(file), file.parent)
    data = sys.stdin.buffer.read()
    suffix = ".jsonl" if data.lstrip()[:1] == b"{" else ".csv"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stdin").with_suffix(".parquet" if data[:4] == b"PAR1" else suffix)
        path.write_bytes(data)
        return pictures.opened(files.read(path, shown="-"), Path.cwd())


def _check_names(file: Path, raw: Mapping[str, schema.Raw], needed: Sequence[str]) -> None:
    absent = [name for name in needed if name not in raw]
    if absent:
        listed = ", ".join(map(repr, absent))
        raise DataError(
            f"{file}: the model's columns, and those of --with, are needed,"
            f" but there is no {listed}{names.near(absent[0], list(raw))}"
        )


def _answers(made: bundle.Bundle, raw: Mapping[str, schema.Raw]) -> list[Row]:
    """The endpoint's answer for each row, with the same keys for all, `error` among them."""
    from eagleray import schema
    from serving import protocol

    columns, faults = schema.parse_rows(made.schema, raw)
    count = len(next(iter(raw.values())))
    found: Iterator[Row] = iter(())
    if len(faults) < count:
        found = iter(protocol.Codec(made.schema).answers(made.predict_columns(columns)))
    blank = dict.fromkeys(
        ("label", "probability", "probabilities") if made.schema.target.classes else ("value",)
    )
    return [
        {**blank, "warnings": [], "error": f"row {row + 1}: {faults[row]}"}
        if row in faults
        else {**blank, "warnings": [], **next(found), "error": None}
        for row in range(count)
    ]


def _write_json(repeated: Mapping[str, schema.Raw], answers: Sequence[Row]) -> None:
    for row, answer in enumerate(answers):
        kept = {_renamed(name, answer): _plain(repeated[name][row]) for name in repeated}
        typer.echo(json.dumps({**kept, **answer}, ensure_ascii=False))


def _write_csv(
    repeated: Mapping[str, schema.Raw], answers: Sequence[Row], target: schema.Target
) -> None:
    """The same columns whatever the rows are: one for each class's probability."""
    shares = [f"probability of {name}" for name in target.classes]
    heading = ["label", "probability", *shares] if target.classes else ["value"]
    heading += ["warnings", "error"]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*(_renamed(name, heading) for name in repeated), *heading])
    for row, answer in enumerate(answers):
        flat = {**answer, "warnings": "; ".join(answer["warnings"])}
        for name, share in (answer.get("probabilities") or {}).items():
            flat[f"probability of {name}"] = share
        kept = [_plain(column[row]) for column in repeated.values()]
        writer.writerow([*kept, *(flat.get(name) for name in heading)])


def _renamed(name: str, taken: Container[str]) -> str:
    """What a repeated column is called where the answer has one of its name."""
    return f"input.{name}" if name in taken else name


def _plain(value: Any) -> Any:
    """A value of the file as JSON and CSV may hold it."""
    value = getattr(value, "item", lambda: value)()  # of NumPy
    if value is None or value != value:
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)
