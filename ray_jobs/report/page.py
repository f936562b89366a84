"""What came of an experiment, as people read it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from eagleray.client import screen
from ray_jobs.report import tables

if TYPE_CHECKING:
    from ray_jobs import pipeline

WIDTH = 100


def show(outcome: pipeline.Outcome, out: Console) -> None:
    """Print leaderboard, metrics, confusion, warnings, and the commands one would want next."""
    experiment, result = outcome.search.experiment, outcome.result
    classes = outcome.search.dataset.schema.target.classes
    out.print(tables.leaderboard(outcome.trials, outcome.search.metric, out.width))
    if outcome.winner.values:
        values = screen.values(outcome.winner.values)
        out.print(f"trial {outcome.winner.number}: {values}", soft_wrap=True)
    out.print(tables.scores(outcome.winner.best, result.test))
    if result.confusion or result.confused:
        out.print(tables.confusion(result, classes, out.width))
    version = f"{experiment.name} version {result.version}"
    out.print(f"registered {version} in {experiment.storage}: {outcome.why}", soft_wrap=True)
    for warning in result.warnings:
        out.print(f"WARNING: {version} {warning}", soft_wrap=True, style="bold red", markup=False)
    for command in outcome.next_steps():
        out.print(f"  {command}", soft_wrap=True)


def text(outcome: pipeline.Outcome) -> str:
    """The same without colours, `WIDTH` letters wide."""
    written = io.StringIO()
    show(outcome, Console(file=written, width=WIDTH, highlight=False))
    return written.getvalue().rstrip()
