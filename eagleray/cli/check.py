"""`eagleray check` and `eagleray schema`: what an experiment file says, and what it may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from eagleray.cli import overrides
from eagleray.errors import SpecError


def check(
    file: Annotated[Path, typer.Argument(help="The experiment file.")],
    assignments: overrides.Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check an experiment file and its data, and print all that follows from them.

    What is printed can stand as an experiment file itself.
    """
    from eagleray.api import checks

    found = checks.examine(file, overrides.parse(assignments))
    if as_json:
        print(json.dumps({**found.facts, "problems": found.problems}, indent=2))
    if found.problems:
        raise SpecError(found.problems)
    if not as_json:
        print(found)


def schema(
    tables: Annotated[bool, typer.Option("--tables", help="Print Markdown tables.")] = False,
) -> None:
    """Print the JSON Schema of experiment files, for editors."""
    from eagleray.spec import reference

    print(reference.tables() if tables else json.dumps(reference.json_schema(), indent=2))
