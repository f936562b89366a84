"""`eagleray check`, `schema` and `split`: an experiment file and its data, before a search."""

import json
from pathlib import Path
from typing import Annotated

import typer

from eagleray.cli import options
from eagleray.cli.output import emit
from eagleray.errors import SpecError

File = Annotated[Path, typer.Argument(help="The experiment file.")]


def check(file: File, assignments: options.Set = None, as_json: options.Json = False) -> None:
    """Check an experiment file and its data, and print all that follows from them.

    What is printed can stand as an experiment file itself.
    """
    from eagleray.api import checks

    found = checks.examine(file, options.overrides(assignments))
    if as_json:
        print(json.dumps({**found.facts, "problems": found.problems}, indent=2))
    if found.problems:
        raise SpecError(*found.problems)
    if not as_json:
        print(found)


def schema(
    tables: Annotated[bool, typer.Option("--tables", help="Print Markdown tables.")] = False,
) -> None:
    """Print the JSON Schema of experiment files, for editors."""
    from eagleray.spec import reference

    print(reference.tables() if tables else json.dumps(reference.json_schema(), indent=2))


def split(
    file: File,
    to: Annotated[Path | None, typer.Option(help="A new folder; NAME-parts by default.")] = None,
    assignments: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Write the training, validation and test rows of a search, and how they are split.

    The rows of the test file are those of `eagleray models pull --predictions`, in the same order.
    """
    from eagleray.api import experiments

    experiment = experiments.read(file, options.overrides(assignments))
    folder = to or Path(f"{experiment.name}-parts")
    written = experiment.split(folder)
    rows = [(folder / part["file"], part["rows"]) for part in written["parts"].values()]
    table = [("FILE", "ROWS"), *rows, (folder / "split.json", "-")]
    emit({"folder": str(folder), **written}, as_json, table=table)
