"""A search as it runs: a table with progress bars on a terminal, a line a trial elsewhere.

The driver also puts what its screen would show into storage, every few seconds, so that a terminal
far from it draws the same table (`eagleray/client/screen.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import console, live

from eagleray import spec
from eagleray.client import screen
from eagleray.learn import metrics
from eagleray.state import searches
from eagleray.state.searches import Row, View

ROWS = 12
"""How many trials the table shows: those that run, then the best."""
PUBLISH_S = 2.0
"""How often the driver puts its view into storage."""


class Board:
    """What is known of the trials so far."""

    def __init__(self, experiment: spec.Experiment, metric: str, epochs: int) -> None:
        self._total, self._metric, self._epochs = experiment.trials, metric, epochs
        self._sign = -1 if metrics.REGISTRY[metric].mode == "max" else 1
        self._began = time.monotonic()
        self._trials: dict[int, searches.Record] = {}
        self._before = 0

    def resume(self, known: list[searches.Record]) -> str:
        """Begin with the trials of earlier runs; give a line that says how far they came."""
        for record in known:
            update = {"status": "running"} if record.unfinished else {}
            self.update(record.model_copy(update=update))
        view = self.view()
        self._before = view.ended
        best = f", best {view.best.score:.4g}" if view.best else ""
        return f"resuming: {view.ended} of {view.total} trials done{best}"

    def update(self, record: searches.Record) -> None:
        self._trials[record.number] = record

    def view(self) -> View:
        """What a screen shows: the trials that run first, then the best of those that ended."""
        known = list(self._trials.values())  # a copy: screens look from threads of their own
        running = [one for one in known if one.status == "running"]
        scored = sorted((one for one in known if one.score is not None), key=self._rank)
        rows = [*running, *(one for one in scored if one not in running)][:ROWS]
        return View(
            at=time.time(),
            gone=time.monotonic() - self._began,
            metric=self._metric,
            epochs=self._epochs,
            total=max(self._total, len(known)),
            started=len(known),
            ended=len(known) - len(running),
            before=self._before,
            best=_row(scored[0]) if scored else None,
            rows=[_row(one) for one in rows],
        )

    def _rank(self, record: searches.Record) -> float:
        return self._sign * (record.score or 0.0)


class Lines:
    """A line when a trial has ended."""

    def __init__(self, board: Board, say: Callable[[str], None]) -> None:
        self._board, self._say = board, say

    def resumed(self, known: list[searches.Record]) -> None:
        self._say(self._board.resume(known))

    def reported(self, record: searches.Record) -> None:
        self._board.update(record)

    def ended(self, record: searches.Record) -> None:
        self._board.update(record)
        self._say(screen.line(record, self._board.view()))


class Table:
    """Keeps the board that the screen draws, a few times a second; what is said stands above it."""

    def __init__(self, board: Board, say: Callable[[str], None]) -> None:
        self._board, self._say = board, say

    def resumed(self, known: list[searches.Record]) -> None:
        self._say(self._board.resume(known))

    def reported(self, record: searches.Record) -> None:
        self._board.update(record)

    def ended(self, record: searches.Record) -> None:
        self._board.update(record)


@contextmanager
def watch(
    experiment: spec.Experiment,
    metric: str,
    epochs: int,
    out: console.Console,
    *,
    publish: Callable[[View], None],
) -> Iterator[Lines | Table]:
    """A watcher that suits the console: a table on a terminal, lines where it is none.

    Args:
        experiment: what is searched.
        metric: what selects.
        epochs: the most that a trial trains.
        out: the console.
        publish: gets the view every few seconds; what storage does to it ends no search.
    """
    board = Board(experiment, metric, epochs)

    def say(line: str) -> None:
        out.print(line, highlight=False, soft_wrap=True)

    with screen.beating(PUBLISH_S, lambda: publish(board.view())):
        if not out.is_terminal:
            yield Lines(board, say)
            return
        with live.Live(
            console=out, refresh_per_second=4, get_renderable=lambda: screen.draw(board.view())
        ):
            yield Table(board, say)


def _row(record: searches.Record) -> Row:
    return Row(**record.model_dump(include=set(Row.model_fields)))
