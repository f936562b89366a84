"""`eagleray audit`: what is wrong with an experiment's data, before compute is spent."""

import json
from pathlib import Path
from typing import Annotated

import typer

from eagleray.cli import options


def audit(
    file: Annotated[Path, typer.Argument(help="The experiment file.")],
    assignments: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Audit the data: leaks, duplicates, wrong labels and more, each with the line that mends it.

    Ends with 1 when a finding reaches `audit.fail_on`.
    """
    from eagleray.api import experiments

    found = experiments.read(file, options.overrides(assignments)).audit()
    print(json.dumps(found.summary(), indent=2, ensure_ascii=False) if as_json else found)
    if found.reached:
        raise typer.Exit(1)
