"""A run that goes on elsewhere, on the screen here: its log, and below it its search as a table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich import console, live, text

from eagleray import errors, storage
from eagleray.client.runs import Attempt
from eagleray.state import runs, searches
from ray_jobs.report import live as near

POLL_S = 2.0
Write = Callable[[str], None]


@contextlib.contextmanager
def screen(attempt: Attempt, out: console.Console) -> Iterator[Write]:
    """Where to write the log of an attempt; on a terminal the table stays below it."""
    if not out.is_terminal:
        yield _plain(out)
        return
    with table(lambda: view(attempt), out):
        lines = _Lines(lambda line: out.out(line, highlight=False))
        yield lines.write
        lines.flush()


@contextlib.contextmanager
def table(look: Callable[[], searches.View | None], out: console.Console) -> Iterator[None]:
    """Draw on a terminal what `look` gives, again and again."""
    seen: list[searches.View] = []

    def beat() -> None:
        if (latest := look()) is not None:
            seen[:] = [latest]

    drawn = live.Live(
        console=out,
        refresh_per_second=4,
        transient=True,
        get_renderable=lambda: near.draw(seen[-1]) if seen else text.Text(""),
    )
    with drawn, near.beating(POLL_S, beat):
        yield


def view(attempt: Attempt) -> searches.View | None:
    """The search of an attempt, some seconds old; None before it began, or out of our reach."""
    if not attempt.storage:
        return None
    with contextlib.suppress(errors.EagleRayError):
        run = runs.Run(attempt.name, attempt.run, attempt.storage)
        search_id = runs.search(run) or run.id  # a search of this machine is its own run
        return searches.Records(storage.open(run.storage), run.name, search_id).view()
    return None


class _Lines:
    """Cuts what comes in pieces into lines: a table cannot stand below half a line."""

    def __init__(self, say: Write) -> None:
        self._say, self._rest = say, ""

    def write(self, piece: str) -> None:
        *whole, self._rest = (self._rest + piece).split("\n")
        for line in whole:
            self._say(line)

    def flush(self) -> None:
        if self._rest:
            self._say(self._rest)


def _plain(out: console.Console) -> Write:
    def write(piece: str) -> None:
        out.file.write(piece)
        out.file.flush()

    return write
