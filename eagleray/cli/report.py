"""`eagleray report` and `eagleray compare`: how good versions are."""

import json
from pathlib import Path
from typing import Annotated

import typer

from eagleray.api import reports
from eagleray.cli.options import EMBEDDED, Json, Storage
from eagleray.cli.output import emit

What = Annotated[
    str,
    typer.Argument(
        metavar="NAME[/VERSION]",
        help="A model, NAME/VERSION by number or alias, or the id of a search.",
    ),
]


def report(
    what: What,
    out: Annotated[
        Path | None, typer.Option(help="The file; NAME-VERSION-report.html by default.")
    ] = None,
    storage: Storage = EMBEDDED,
    as_json: Json = False,
) -> None:
    """Write how good a version is, and where it fails, as one HTML file; opens offline."""
    found = reports.report(what, storage)
    if as_json:
        typer.echo(json.dumps(found.json(), indent=2, ensure_ascii=False))
        return
    file = found.save(out or Path(found.file_name))
    for line in [*found.lines(), f"report: {file}"]:
        typer.echo(line)


def compare(left: What, right: What, storage: Storage = EMBEDDED, as_json: Json = False) -> None:
    """Set two versions side by side: which is better on the same rows, and every metric."""
    found = reports.compare(left, right, storage)
    heading = ("METRIC", found.left.title, found.right.title)
    if not as_json:
        typer.echo(found.verdict)
    emit(found.json(), as_json, table=[heading, *found.sides])
