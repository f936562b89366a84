"""The view of a running search: a table on a terminal, elsewhere a line for each ended trial.

The driver also stores its view, so that other terminals show it (`eagleray/client/screen.py`).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

from rich import console, live

from eagleray import process
from eagleray.client import screen
from eagleray.state.searches import Record, Row, View, Waiting
from ray_jobs import search

ROWS = 12
"""Trials in the table: the running ones, then the best."""
PUBLISH_S = 2.0
"""Interval at which the driver stores its view."""


@contextmanager
def watch(
    searched: search.Search,
    trials: Mapping[int, Record],
    out: console.Console,
    waits: Callable[[], list[Waiting]] = list,
) -> Iterator[Callable[[Record], None]]:
    """Show and store the view of a search; yields a function to call with each ended trial.

    `waits` gives the trials that wait for resources.
    """
    began, resumed = time.monotonic(), {one.number for one in trials.values() if one.unfinished}
    before, earlier = len(trials) - len(resumed), searched.seconds()

    def current() -> View:
        known = list(trials.values())  # a copy: other threads call it
        running = [one for one in known if one.status == "running" or one.number in resumed]
        now = view(searched, known, running, seconds=time.monotonic() - began, before=before)
        return now.model_copy(update={"earlier": earlier, "waiting": waits()})

    def print_line(line: str) -> None:
        out.print(line, highlight=False, markup=False, soft_wrap=True)

    def ended(record: Record) -> None:
        resumed.discard(record.number)
        if not out.is_terminal:
            print_line(screen.line(record, current()))

    if trials:
        now = current()
        best = f", best {now.best.score:.4g}" if now.best else ""
        print_line(f"resuming: {now.ended} of {now.total} trials done{best}")
    table = live.Live(console=out, get_renderable=lambda: screen.draw(current()))
    shown = table if out.is_terminal else nullcontext()
    with process.beating(PUBLISH_S, lambda: searched.records.save(current())), shown:
        yield ended


def view(
    searched: search.Search,
    trials: list[Record],
    running: list[Record],
    *,
    seconds: float,
    before: int,
) -> View:
    """The view of a search that began `seconds` ago, when `before` trials had ended already."""
    scored = searched.scored(trials)
    shown = {one.number for one in running}
    rows = [*running, *(one for one in scored if one.number not in shown)][:ROWS]
    return View(
        at=time.time(),
        gone=seconds,
        metric=searched.metric,
        epochs=search.length(searched.experiment),
        folds=searched.experiment.tune.folds,
        total=max(searched.experiment.trials, len(trials)),
        started=len(trials),
        ended=len(trials) - len(running),
        before=before,
        best=_row(scored[0]) if scored else None,
        rows=[_row(one) for one in rows],
    )


def _row(record: Record) -> Row:
    return Row(**record.model_dump(include=set(Row.model_fields)))
