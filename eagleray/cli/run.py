"""`eagleray run`: from an experiment file to a registered version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ray_jobs import finish


def run(
    file: Annotated[Path, typer.Argument(help="The experiment file.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set tune.trials=4")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster to run on; else one on this machine.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Search hyperparameters, judge the winner on the test part, and register it.

    Run again, the same file and data go on where an interrupted search was, or give the result.
    """
    from rich.console import Console

    from eagleray import spec
    from eagleray.cli import overrides
    from ray_jobs import finish

    experiment = spec.load(file, overrides.parse(assignments))
    out = Console(stderr=as_json, highlight=False)
    ended = finish.experiment(experiment, out, address)
    if as_json:
        typer.echo(json.dumps(ended.summary(), indent=2))
    else:
        _print(ended, out)


def _print(ended: finish.Ended, out: Console) -> None:
    from ray_jobs.report import tables

    outcome, result = ended.outcome, ended.result
    experiment, classes = outcome.experiment, outcome.dataset.schema.target.classes
    out.print(tables.leaderboard(outcome.trials, outcome.metric))
    out.print(tables.scores(outcome.winner.best, result.test))
    if result.confusion is not None:
        out.print(tables.confusion(result.confusion, classes))
    version = f"{experiment.name} version {result.version}"
    out.print(f"registered {version} in {experiment.storage}: {ended.why}", soft_wrap=True)
    for command in ended.next_steps():
        out.print(f"  {command}", soft_wrap=True)
