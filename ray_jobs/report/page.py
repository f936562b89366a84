"""What came of an experiment, as people read it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from ray_jobs.report import tables

if TYPE_CHECKING:
    from ray_jobs import finish

WIDTH = 100


def show(ended: finish.Ended, out: Console) -> None:
    """Print leaderboard, metrics, confusion, warnings, and the commands one would want next."""
    outcome, result = ended.outcome, ended.result
    experiment, classes = outcome.experiment, outcome.dataset.schema.target.classes
    out.print(tables.leaderboard(outcome.trials, outcome.metric, out.width))
    if outcome.winner.values:
        values = tables.values(outcome.winner.values)
        out.print(f"trial {outcome.winner.number}: {values}", soft_wrap=True)
    out.print(tables.scores(outcome.winner.best, result.test))
    if result.confusion or result.confused:
        out.print(tables.confusion(result, classes, out.width))
    version = f"{experiment.name} version {result.version}"
    out.print(f"registered {version} in {experiment.storage}: {ended.why}", soft_wrap=True)
    for warning in result.warnings:
        out.print(f"WARNING: {version} {warning}", soft_wrap=True, style="bold red", markup=False)
    for command in ended.next_steps():
        out.print(f"  {command}", soft_wrap=True)


def text(ended: finish.Ended) -> str:
    """The same without colours, `WIDTH` letters wide."""
    written = io.StringIO()
    show(ended, Console(file=written, width=WIDTH, highlight=False))
    return written.getvalue().rstrip()
