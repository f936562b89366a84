"""The outcome of an experiment: its winner, evaluated and registered."""

import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box, console, measure, table, text

from eagleray import messages
from eagleray.client import screen
from eagleray.learn import metrics
from eagleray.state import evaluations, searches
from ray_jobs import promotion, search

WIDTH = 100
"""Characters in a line of `Outcome.page`."""
ROWS = 10
"""Trials of the leaderboard."""
LEAST_VALUES = 20
"""Minimum width of the column of values, in characters."""

COSTS: dict[str, Callable[[float], str]] = {
    "latency": lambda seconds: f"{seconds * 1e6:.0f} µs",
    "size": lambda size: f"{size / 1e3:.1f} KB",
}
"""How a cost is written, by `tune.cost`."""
_KEPT = {
    *("test", "intervals", "confusion", "confused", "warnings", "cost", "front"),
    *("headline", "looks", "baselines", "unbeaten", "compared", "folds", "refit", "ensemble"),
    *("coverage", "fairness", "decision", "calibration", "latency", "learning_curve"),
}

_OF_TRIAL = {"number", "status", "score", "epoch", "failure", "values"}
_OF_FOLDS = {*_OF_TRIAL, "standard_error"}

Cells = dict[str, list[str]]
"""A table's columns by heading."""


@dataclass(frozen=True)
class Outcome:
    """An experiment whose winner is registered."""

    search: search.Search
    trials: list[searches.Record]  # all of them, the best first
    result: searches.Result
    place: promotion.Place
    audit: searches.Audit | None = None  # of the data; None for a search of an earlier release

    @property
    def winner(self) -> searches.Record:
        """The best trial, but where its weights were damaged before it was registered."""
        return next(one for one in self.trials if one.number == self.result.winner)

    @property
    def validation(self) -> Mapping[str, float]:
        """Metrics of what was registered, on the validation part."""
        ensemble = self.result.ensemble
        plain = ensemble.metrics if ensemble and ensemble.kept else self.winner.best
        return {**plain, **self.result.validation}

    def summary(self) -> dict[str, Any]:
        """The outcome as values for JSON."""
        best = self.winner
        return {
            "name": self.search.experiment.name,
            "search": self.search.id,
            "version": self.result.version,
            "champion": self.place.champion,
            "why": self.place.why,
            "metric": self.search.metric,
            "winner": {
                "trial": best.number,
                "values": best.values,
                "validation": dict(self.validation),
            },
            **self.result.model_dump(mode="json", include=_KEPT),
            "audit": self.audit.summary() if self.audit else None,
            "trials": [
                one.model_dump(include=_OF_TRIAL if one.folds == 1 else _OF_FOLDS)
                for one in self.trials
            ],
        }

    def page(self) -> str:
        """The outcome as text for people."""
        written = io.StringIO()
        self.show(console.Console(file=written, width=WIDTH, highlight=False, markup=False))
        return written.getvalue().rstrip()

    def show(self, out: console.Console) -> None:
        """Print the leaderboard, metrics, confusion, warnings and next steps."""
        experiment, result, winner = self.search.experiment, self.result, self.winner
        out.print(leaderboard(self.trials, self.search.metric, out.width))
        if winner.values:
            out.print(f"trial {winner.number}: {screen.values(winner.values)}", soft_wrap=True)
        out.print(scores(self.validation, result))
        if result.cost:
            out.print(front(result))
        if result.confusion or result.confused:
            classes = self.search.dataset.schema.target.classes
            out.print(confusion(result, classes, out.width))
        version = f"{experiment.name} version {result.version}"
        for sentence in said(result):
            out.print(f"{version} {sentence}", soft_wrap=True)
        out.print(f"registered {version} in {experiment.storage}: {self.place.why}", soft_wrap=True)
        for one in self.audit.findings if self.audit else ():
            if one.severity == "error":
                line = f"WARNING: the audit of the data: {one.message}"
                out.print(line, soft_wrap=True, style="bold red", markup=False)
        for warning in [*result.warnings, *result.unbeaten]:
            line = f"WARNING: {version} {warning}"
            out.print(line, soft_wrap=True, style="bold red", markup=False)
        for command in self.next_steps():
            out.print(f"  {command}", soft_wrap=True)

    def next_steps(self) -> list[str]:
        """Commands to read the report, to serve the champion, or to follow and promote this one."""
        name, version = self.search.experiment.name, self.result.version
        at = f"--storage {self.search.experiment.storage}"
        report = f"eagleray report {name}/{version} {at}"
        if self.place.champion == version:
            return [report, f"eagleray serve {name} {at}"]
        if self.place.rolls_out:
            return [report, f"eagleray rollout status {name} {at}"]
        return [
            report,
            f"eagleray models diff {name} {self.place.champion} {version} {at}",
            f"eagleray models promote {name} {version} {at}",
        ]


def leaderboard(trials: Sequence[searches.Record], metric: str, width: int) -> console.Group:
    """The best trials, and how many stopped early or failed.

    On a narrow screen it leaves out seconds, then the best epoch, then the end of the values. Of
    trials by folds the number of folds stands in place of the best epoch.
    """
    length = "folds" if any(one.folds > 1 for one in trials) else "best epoch"
    counts = Counter(one.status for one in trials)
    title = f"{len(trials)} trials, {counts['stopped']} stopped early, {counts['failed']} failed"
    scored = [one for one in trials if one.score is not None][:ROWS]
    cells: Cells = {
        "": [str(place) for place in range(1, len(scored) + 1)],
        "trial": [str(one.number) for one in scored],
        metric: [screen.scored(one) for one in scored],
        length: [str(one.best_epoch) for one in scored],
        "seconds": [f"{one.seconds:.1f}" for one in scored],
    }
    shown = [screen.values(one.values) for one in scored]
    wanted = max(map(len, ["values", *shown]))
    for heading in ("seconds", length):
        if _room(cells, width) < wanted:
            del cells[heading]
    room = _room(cells, width)
    whole = {**cells, "values": shown} if room >= min(wanted, LEAST_VALUES) else cells
    return console.Group(text.Text(title, style="italic"), _drawn(whole, {"values": room}))


def confusion(result: searches.Result, classes: Sequence[str], width: int) -> table.Table:
    """The confusion matrix of the test part; where it does not fit, the most frequent mistakes."""
    if (
        result.confusion is not None
        and _needed(drawn := _matrix(result.confusion, classes)) <= width
    ):
        return drawn
    cells: Cells = {
        "true": [pair.truth for pair in result.confused],
        "predicted": [pair.predicted for pair in result.confused],
        "rows": [str(pair.rows) for pair in result.confused],
    }
    half = _room({"rows": cells["rows"]}, width) // 2 - 1
    drawn = _drawn(cells, {"true": half, "predicted": half})
    drawn.title = "most confused on the test part"
    return drawn


def scores(validation: Mapping[str, float], result: searches.Result) -> table.Table:
    """The winner's metrics on the validation part, which selected it, and on the test part.

    Those of the test part have their 95 % intervals, and the best baseline's value beside them.
    """
    drawn, plain = _table("winner"), _best(result)
    seen = f"mean of {result.folds} folds" if result.folds > 1 else "validation"
    headings = ["metric", seen, "test", "95 % interval", *([plain.name] if plain else [])]
    for heading in headings:
        drawn.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, value in result.test.items():
        cells = [messages.number(one, ".4f") for one in (validation.get(name, math.nan), value)]
        cells.append(result.intervals[name].sides(".4f") if name in result.intervals else "")
        if plain is not None:
            known = plain.metrics.get(name)
            cells.append(messages.number(known.value, ".4f") if known else "")
        drawn.add_row(name, *cells)
    return drawn


def said(result: searches.Result) -> Iterator[str]:
    """Yield sentences on a version's results; the caller puts its name before them."""
    if result.headline:
        yield result.headline
    if result.decision is not None:
        yield f"decides: {result.decision}"
    if result.calibration is not None:
        yield f"is calibrated by {result.calibration}"
    for column in result.fairness:
        yield f"differs on the test part {column}"
    for one in result.coverage:
        yield f"on the test part: the {one}"
    if result.refit and not (result.ensemble and result.ensemble.kept):
        yield f"was trained anew on training and validation part together, {result.refit} epochs"
    if result.ensemble is not None:
        yield str(result.ensemble)
    yield from _advice(result)
    if result.compared is not None:
        other = f"version {result.compared.version}, the champion when it was judged"
        verdict = result.compared.verdict
        found = str(verdict) if verdict else result.compared.why
        yield f"beside {other}, on the same rows: {found}"
    if result.looks > 1:
        yield f"is look {result.looks} at this test part: each look makes it a less honest judge"


def _advice(result: searches.Result) -> Iterator[str]:
    """What may be done about the version."""
    if result.latency is not None and result.latency.over:
        yield str(result.latency)
    if result.learning_curve is not None:
        yield str(result.learning_curve)


def _best(result: searches.Result) -> evaluations.Baseline | None:
    """The baseline that is the hardest to beat."""
    able = [one for one in result.baselines if one.verdict is not None]
    sign = 1 if metrics.REGISTRY[result.metric].mode == "max" else -1
    return max(able, key=lambda one: sign * one.metrics[result.metric].value, default=None)


def front(result: searches.Result) -> table.Table:
    """The Pareto front: no trial has a better metric and costs no more; a star marks the winner."""
    drawn = _table(f"best {result.metric} for its {result.cost}")
    for heading in ("trial", result.metric, str(result.cost)):
        drawn.add_column(heading, justify="left" if heading == "trial" else "right")
    for point in result.front:
        mark = " *" if point.number == result.winner else ""
        drawn.add_row(
            f"{point.number}{mark}",
            messages.number(point.score, ".4f"),
            COSTS[result.cost or ""](point.cost),
        )
    return drawn


def _matrix(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> table.Table:
    drawn = _table("confusion on the test part")
    drawn.add_column("true \\ predicted", no_wrap=True)
    for name in classes:
        drawn.add_column(text.Text(name), justify="right", no_wrap=True)
    for index, row in enumerate(matrix):
        cells = [_cell(count, right=index == column) for column, count in enumerate(row)]
        drawn.add_row(text.Text(classes[index]), *cells)
    return drawn


def _drawn(cells: Cells, most: Mapping[str, int]) -> table.Table:
    """A table of these columns; `most` gives a column's maximum width in characters."""
    drawn = _table(None)
    for heading in cells:
        drawn.add_column(heading, overflow="ellipsis", no_wrap=True, max_width=most.get(heading))
    for row in zip(*cells.values(), strict=True):
        drawn.add_row(*map(text.Text, row))
    return drawn


def _table(title: str | None) -> table.Table:
    return table.Table(title=title, box=box.SIMPLE, title_justify="left")


def _room(cells: Cells, width: int) -> int:
    """Characters that are left for one more column."""
    padded = {**cells, "x": [""] * len(next(iter(cells.values())))}
    return width - _needed(_drawn(padded, {})) + 1


def _needed(drawn: table.Table) -> int:
    """Characters in a line of the table if nothing is cut."""
    wide = console.Console(width=100_000, markup=False)
    return measure.Measurement.get(wide, wide.options, drawn).maximum


def _cell(count: int, *, right: bool) -> text.Text:
    style = "bold green" if right and count else "red" if count else "dim"
    return text.Text(str(count) if count else ".", style=style)
