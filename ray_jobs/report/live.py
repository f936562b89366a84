"""A search as it runs: a table with progress bars on a terminal, a line a trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box, console, live, progress_bar, table

from eagleray import spec
from ray_jobs import records
from ray_jobs.report import tables

ROWS = 12
"""How many trials the table shows: those that run, then the best."""


class Board:
    """What is known of the trials so far."""

    def __init__(self, experiment: spec.Experiment, metric: str, epochs: int) -> None:
        self.total, self.metric, self.epochs = experiment.tune.trials, metric, epochs
        self._sign = -1 if spec.METRICS[metric].mode == "max" else 1
        self._began = time.monotonic()
        self._trials: dict[int, records.Record] = {}
        self.ended = 0

    def update(self, record: records.Record) -> None:
        self._trials[record.number] = record
        self.ended = sum(one.status != "running" for one in self._trials.values())

    @property
    def best(self) -> records.Record | None:
        """The trial with the best score so far."""
        scored = [one for one in list(self._trials.values()) if one.score is not None]
        return min(scored, key=self._rank, default=None)

    def rows(self) -> list[records.Record]:
        """The trials to show: those that run first, then the best ones."""
        known = list(self._trials.values())  # a copy: the screen draws in a thread of its own
        running = [one for one in known if one.status == "running"]
        ended = [one for one in known if one.score is not None and one not in running]
        return (running + sorted(ended, key=self._rank))[:ROWS]

    def headline(self) -> str:
        """Trials done, best score, time gone and time left, in one line."""
        gone = time.monotonic() - self._began
        if not self._trials:
            return f"workers start, {_clock(gone)} gone"
        parts = [f"{self.ended}/{self.total} trials"]
        if self.best is not None:
            parts.append(f"best {self.metric} {self.best.score:.4f} (trial {self.best.number})")
        parts.append(f"{_clock(gone)} gone")
        if 0 < self.ended < self.total:
            parts.append(f"about {_clock(gone / self.ended * (self.total - self.ended))} left")
        return ", ".join(parts)

    def _rank(self, record: records.Record) -> float:
        return self._sign * (record.score or 0.0)


class Lines:
    """A line when a trial has ended."""

    def __init__(self, board: Board, say: Callable[[str], None]) -> None:
        self._board, self._say = board, say

    def reported(self, record: records.Record) -> None:
        self._board.update(record)

    def ended(self, record: records.Record) -> None:
        self._board.update(record)
        score = "" if record.score is None else f" {self._board.metric} {record.score:.4f}"
        why = f": {record.failure}" if record.failure else ""
        trial = f"trial {record.number} {record.status} after {record.epoch} epochs{score}{why}"
        self._say(f"{trial}  [{self._board.headline()}]")


class Table:
    """Keeps the board that the screen draws, a few times a second."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def reported(self, record: records.Record) -> None:
        self._board.update(record)

    def ended(self, record: records.Record) -> None:
        self._board.update(record)


@contextmanager
def watch(
    experiment: spec.Experiment, metric: str, epochs: int, out: console.Console
) -> Iterator[Lines | Table]:
    """A watcher that suits the console: a table on a terminal, lines where it is none."""
    board = Board(experiment, metric, epochs)
    if not out.is_terminal:
        yield Lines(board, lambda line: out.print(line, highlight=False, soft_wrap=True))
        return
    with live.Live(console=out, refresh_per_second=4, get_renderable=lambda: _draw(board)):
        yield Table(board)


def _draw(board: Board) -> table.Table:
    drawn = table.Table(title=board.headline(), box=box.SIMPLE, title_justify="left")
    for heading in ("trial", "epochs", "", board.metric, "values"):
        drawn.add_column(heading, overflow="ellipsis", no_wrap=True)
    for record in board.rows():
        bar = progress_bar.ProgressBar(total=board.epochs, completed=record.epoch, width=20)
        score = "" if record.score is None else f"{record.score:.4f}"
        mark = " *" if record is board.best else ""
        epochs = f"{record.epoch}/{board.epochs}"
        drawn.add_row(f"{record.number}{mark}", epochs, bar, score, tables.values(record.values))
    return drawn


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
