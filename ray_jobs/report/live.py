"""A search as it runs: a table with progress bars on a terminal, a line a trial elsewhere.

The driver also puts what its screen shows into storage, every few seconds, so that a terminal
elsewhere draws the same table (`eagleray/client/screen.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich import console, live

from eagleray.client import screen
from eagleray.state.searches import Record, Row, View
from ray_jobs import search

ROWS = 12
"""How many trials the table shows: those that run, then the best."""
PUBLISH_S = 2.0
"""How often the driver puts its view into storage."""


class Board:
    """The trials of a search so far; begins with those of earlier runs."""

    def __init__(self, searched: search.Search, known: list[Record]) -> None:
        self._searched, self._began = searched, time.monotonic()
        self._epochs, _ = search.rungs(searched.experiment)
        self._before = sum(not one.unfinished for one in known)
        self._trials: dict[int, Record] = {}
        for one in known:
            self.update(one.model_copy(update={"status": "running"} if one.unfinished else {}))

    def update(self, record: Record) -> None:
        self._trials[record.number] = record

    def view(self) -> View:
        """What a screen shows: the trials that run first, then the best of those that ended."""
        known = list(self._trials.values())  # a copy: other threads draw it
        running = [one for one in known if one.status == "running"]
        sign = -1 if self._searched.mode == "max" else 1
        scored = [one for one in known if one.score is not None]
        scored.sort(key=lambda one: sign * (one.score or 0.0))
        rows = [*running, *(one for one in scored if one not in running)][:ROWS]
        return View(
            at=time.time(),
            gone=time.monotonic() - self._began,
            metric=self._searched.metric,
            epochs=self._epochs,
            total=max(self._searched.experiment.trials, len(known)),
            started=len(known),
            ended=len(known) - len(running),
            before=self._before,
            best=_row(scored[0]) if scored else None,
            rows=[_row(one) for one in rows],
        )


@contextmanager
def watch(
    searched: search.Search, known: list[Record], out: console.Console
) -> Iterator[Callable[[Record], None]]:
    """Show a search while it runs: a table on a terminal, a line for each ended trial elsewhere.

    Publishes the view every few seconds; a storage that fails meanwhile ends no search.

    Yields:
        What is to be called with the record of each trial that has changed.
    """
    board = Board(searched, known)

    def say(line: str) -> None:
        out.print(line, highlight=False, soft_wrap=True)

    def update(record: Record) -> None:
        board.update(record)
        if record.status != "running" and not out.is_terminal:
            say(screen.line(record, board.view()))

    if known:
        view = board.view()
        best = f", best {view.best.score:.4g}" if view.best else ""
        say(f"resuming: {view.ended} of {view.total} trials done{best}")
    table = live.Live(
        console=out, refresh_per_second=4, get_renderable=lambda: screen.draw(board.view())
    )
    shown = table if out.is_terminal else nullcontext()
    with screen.beating(PUBLISH_S, lambda: searched.records.show(board.view())), shown:
        yield update


def _row(record: Record) -> Row:
    return Row(**record.model_dump(include=set(Row.model_fields)))
