"""`eagleray split`: the parts of an experiment's data as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eagleray.cli import overrides
from eagleray.cli.output import emit


def split(
    file: Annotated[Path, typer.Argument(help="The experiment file.")],
    to: Annotated[Path | None, typer.Option(help="A new folder; NAME-parts by default.")] = None,
    assignments: overrides.Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the training, validation and test rows of a search, and how they were parted.

    The rows of the test file are those of `eagleray models pull --predictions`, in the same order.
    """
    from eagleray import spec
    from ray_jobs.data import parts

    experiment = spec.load(file, overrides.parse(assignments))
    folder = to or Path(f"{experiment.name}-parts")
    described = parts.export(experiment, folder)
    rows = [(folder / part["file"], part["rows"]) for part in described["parts"].values()]
    table = [("FILE", "ROWS"), *rows, (folder / "split.json", "-")]
    emit({"folder": str(folder), **described}, as_json, table=table)
