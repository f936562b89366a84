"""Tables of a search that has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box, table, text

from ray_jobs import records

ROWS = 10


def leaderboard(trials: Sequence[records.Record], metric: str) -> table.Table:
    """The best trials, and how many stopped early or failed."""
    counts = Counter(one.status for one in trials)
    title = f"{len(trials)} trials, {counts['stopped']} stopped early, {counts['failed']} failed"
    drawn = table.Table(title=title, box=box.SIMPLE, title_justify="left")
    for heading in ("", "trial", metric, "best epoch", "seconds", "values"):
        drawn.add_column(heading, overflow="fold")
    scored = [one for one in trials if one.score is not None][:ROWS]
    for place, one in enumerate(scored, 1):
        shown = (place, one.number, f"{one.score:.4f}", one.best_epoch, f"{one.seconds:.1f}")
        drawn.add_row(*map(str, shown), values(one.values))
    return drawn


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> table.Table:
    """Rows: what is true; columns: what was predicted. The diagonal is what is right."""
    drawn = table.Table(title="confusion on the test part", box=box.SIMPLE, title_justify="left")
    drawn.add_column("true \\ predicted")
    for name in classes:
        drawn.add_column(name, justify="right")
    for index, row in enumerate(matrix):
        cells = [_cell(count, right=index == column) for column, count in enumerate(row)]
        drawn.add_row(classes[index], *cells)
    return drawn


def scores(validation: Mapping[str, float], test: Mapping[str, float]) -> table.Table:
    """Every metric of the winner, on the part that selected it and on the part that did not."""
    drawn = table.Table(title="winner", box=box.SIMPLE, title_justify="left")
    for heading in ("metric", "validation", "test"):
        drawn.add_column(heading, justify="left" if heading == "metric" else "right")
    for name, value in test.items():
        drawn.add_row(name, f"{validation.get(name, float('nan')):.4f}", f"{value:.4f}")
    return drawn


def values(suggested: Mapping[str, Any]) -> str:
    """What was suggested, in one line; a key's last part is enough to know it."""
    shown = (f"{key.split('.', 1)[-1]}={_short(value)}" for key, value in suggested.items())
    return " ".join(shown)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")


def _cell(count: int, *, right: bool) -> text.Text:
    style = "bold green" if right and count else "red" if count else "dim"
    return text.Text(str(count) if count else ".", style=style)
