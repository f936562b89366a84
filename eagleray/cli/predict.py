"""`eagleray predict`: rows of a file, without a server."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def predict(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    file: Annotated[
        Path, typer.Argument(help="CSV, Parquet or JSON Lines.", exists=True, dir_okay=False)
    ],
    reference: Annotated[
        str, typer.Option("--version", help="An alias, a number, or latest.")
    ] = "champion",
    storage_uri: Annotated[
        str, typer.Option("--storage", envvar="EAGLERAY_STORAGE", help="Where the model is.")
    ] = "s3://eagleray",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON a row.")] = False,
) -> None:
    """Predict rows of a file and print a line for each, in its order: CSV, or JSON with --json."""
    from eagleray import bundle, registry, storage
    from ray_jobs.data import files, load, pictures
    from serving import protocol

    models = registry.Registry(storage.open(storage_uri))
    made = bundle.load(models, models.resolve(name, reference))
    raw = load.table(pictures.opened(files.read(file), file.parent))
    answers = protocol.Codec(made.schema).answers(made.predict(raw))
    if as_json:
        for answer in answers:
            typer.echo(json.dumps(answer))
    else:
        _write_csv(answers)


def _write_csv(answers: list[dict[str, Any]]) -> None:
    """One column for each class's probability; warnings last, joined."""
    flat = [_flat(answer) for answer in answers]
    columns = dict.fromkeys(name for row in flat for name in row)
    writer = csv.DictWriter(sys.stdout, list(columns), restval="")
    writer.writeheader()
    writer.writerows(flat)


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: answer[name] for name in ("label", "probability", "value") if name in answer
    }
    row |= {f"probability of {name}": p for name, p in answer.get("probabilities", {}).items()}
    if "warnings" in answer:
        row["warnings"] = "; ".join(answer["warnings"])
    return row
