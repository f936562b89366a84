"""A search on the screen, near its driver or far from it: its log, and below it a live table.

What a screen far from the driver shows comes from storage, some seconds late.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from rich import box, console, live, progress_bar, text
from rich.table import Table

from eagleray import errors, storage
from eagleray.client.runs import Attempt
from eagleray.state import runs, searches
from eagleray.state.searches import Record, View

POLL_S = 2.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CUT = re.compile(r"\x1b(?:\[[0-9;]*)?$")

Write = Callable[[str], None]


@contextlib.contextmanager
def following(attempt: Attempt, out: console.Console) -> Iterator[Write]:
    """Where to write the log of an attempt; on a terminal the table stays below it."""
    if not out.is_terminal:
        yield _plain(out)
        return
    with drawn(lambda: view(attempt), out):
        lines = _Lines(lambda line: out.out(line, highlight=False))
        yield lines.write
        lines.flush()


@contextlib.contextmanager
def drawn(look: Callable[[], searches.View | None], out: console.Console) -> Iterator[None]:
    """Draw on a terminal what `look` gives, again and again."""
    seen: list[searches.View] = []

    def beat() -> None:
        if (latest := look()) is not None:
            seen[:] = [latest]

    table = live.Live(
        console=out,
        refresh_per_second=4,
        transient=True,
        get_renderable=lambda: draw(seen[-1]) if seen else text.Text(""),
    )
    with table, beating(POLL_S, beat):
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


@contextlib.contextmanager
def trials(records: searches.Records, out: console.Console) -> Iterator[Callable[[], None]]:
    """Show a search that another process drives: a table, or a line for each trial that has ended.

    Yields:
        What prints the lines that are new; a table follows by itself.
    """
    told: set[int] = set()

    def refresh() -> None:
        view = None if out.is_terminal else records.view()
        if view is None or view.ended == len(told):
            return
        for record in records.trials():
            if record.status != "running" and record.number not in told:
                told.add(record.number)
                out.print(line(record, view), highlight=False, soft_wrap=True)

    with drawn(records.view, out) if out.is_terminal else contextlib.nullcontext():
        yield refresh


@contextlib.contextmanager
def beating(every_s: float, beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat` again and again in the background; storage that fails is asked the next time."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(every_s):
            with contextlib.suppress(errors.StorageError):
                beat()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(every_s)


def line(record: Record, view: View) -> str:
    """A trial that has ended, and what the search is like then."""
    return f"{ended(record, view.metric)}  [{headline(view)}]"


def ended(record: Record, metric: str = "") -> str:
    """A trial that has ended, in one line."""
    score = "" if record.score is None else " ".join(["", *metric.split(), f"{record.score:.4f}"])
    why = f": {record.failure}" if record.failure else ""
    return f"trial {record.number} {record.status} after {record.epoch} epochs{score}{why}"


def headline(view: View) -> str:
    """Trials done, best score, time gone and time left, in one line."""
    if not view.started:
        return f"workers start, {_clock(view.gone)} gone"
    parts = [f"{view.ended}/{view.total} trials"]
    if view.best is not None:
        parts.append(f"best {view.metric} {view.best.score:.4f} (trial {view.best.number})")
    parts.append(f"{_clock(view.gone)} gone")
    fresh = view.ended - view.before
    if fresh > 0 and view.ended < view.total:
        left = view.gone / fresh * (view.total - view.ended)
        parts.append(f"about {_clock(left)} left")
    return ", ".join(parts)


def draw(view: View) -> Table:
    """The view as a table with progress bars."""
    table = Table(title=headline(view), box=box.SIMPLE, title_justify="left")
    for heading in ("trial", "epochs", "", view.metric, "values"):
        table.add_column(heading, overflow="ellipsis", no_wrap=True)
    for row in view.rows:
        bar = progress_bar.ProgressBar(total=view.epochs, completed=row.epoch, width=20)
        score = "" if row.score is None else f"{row.score:.4f}"
        mark = " *" if view.best is not None and row.number == view.best.number else ""
        epochs = f"{row.epoch}/{view.epochs}"
        table.add_row(f"{row.number}{mark}", epochs, bar, score, values(row.values))
    return table


def values(suggested: Mapping[str, Any]) -> str:
    """What was suggested, in one line; a key's last part is enough to know it."""
    shown = (f"{key.split('.', 1)[-1]}={_short(value)}" for key, value in suggested.items())
    return " ".join(shown)


def shown(pieces: Iterable[str], stream: IO[str]) -> Iterator[str]:
    """A log without colour codes (ECMA-48, SGR), unless the stream is a terminal.

    Ray colours its messages wherever they go. A code may be cut between two pieces.
    """
    if stream.isatty():
        yield from pieces
        return
    rest = ""
    for piece in pieces:
        text = _COLOUR.sub("", rest + piece)
        cut = _CUT.search(text)
        rest = cut[0] if cut else ""
        yield text.removesuffix(rest)
    yield rest


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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")
