"""A search on the screen: its log, and below it a live table.

Away from the driver, the screen shows what is in storage, some seconds late.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from rich import box, console, live, progress_bar
from rich.table import Table

from eagleray import errors, messages, process, storage
from eagleray.client.runs import Attempt
from eagleray.spec import auto
from eagleray.state import runs
from eagleray.state.searches import Record, Records, Row, View

POLL_S = 2.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def print_log(pieces: Iterable[str], attempt: Attempt, out: console.Console) -> None:
    """Print an attempt's log as it comes; on a terminal, a live table stays below it."""
    if out.is_terminal:
        with live_table(lambda: view(attempt), out):
            for text in _lines(pieces):
                out.out(text.removesuffix("\n"), highlight=False)
        return
    for text in without_colours(pieces, out.file):
        out.file.write(text)
        out.file.flush()


@contextlib.contextmanager
def live_table(read: Callable[[], View | None], out: console.Console) -> Iterator[None]:
    """Draw the view that `read` returns on a terminal, anew every `POLL_S` seconds."""
    table = live.Live(console=out, refresh_per_second=4, transient=True)

    def beat() -> None:
        if (latest := read()) is not None:
            table.update(draw(latest))

    with table, process.beating(POLL_S, beat):
        yield


def view(attempt: Attempt) -> View | None:
    """An attempt's search, some seconds old; None before it starts or if storage is unreachable."""
    with contextlib.suppress(errors.EagleRayError):
        return stored(attempt)
    return None


def stored(attempt: Attempt, *, attempts: int | None = None) -> View | None:
    """An attempt's search as `view` gives it; raises the error of storage, after `attempts`."""
    if not attempt.storage:
        return None
    run = runs.Run(attempt.name, attempt.run, attempt.storage)
    begun = runs.find(run, runs.Begun, attempts=attempts)
    search_id = begun.search if begun else run.id  # the same id on this machine
    return Records(storage.open(run.storage, attempts=attempts), run.name, search_id).view()


@contextlib.contextmanager
def trials(records: Records, out: console.Console) -> Iterator[Callable[[], None]]:
    """Show a search that another process drives: a live table on a terminal, else a line per trial.

    Yields:
        A function that prints the lines of newly ended trials; it does nothing on a terminal.
    """
    printed: set[int] = set()

    def refresh() -> None:
        view = None if out.is_terminal else records.view()
        if view is not None and view.ended != len(printed):
            for record in newly_ended(records, printed):
                out.print(line(record, view), highlight=False, markup=False, soft_wrap=True)

    with live_table(records.view, out) if out.is_terminal else contextlib.nullcontext():
        yield refresh


def newly_ended(records: Records, printed: set[int]) -> Iterator[Record]:
    """The ended trials whose numbers are not in `printed` yet; adds them to it."""
    for record in records.trials():
        if record.status != "running" and record.number not in printed:
            printed.add(record.number)
            yield record


def line(record: Record, view: View | None = None) -> str:
    """One line about an ended trial; with a view, the state of the search follows."""
    metric = view.metric.split() if view else []
    score = "" if record.score is None else " ".join(["", *metric, scored(record)])
    why = f": {record.failure}" if record.failure else ""
    state = f"  [{headline(view)}]" if view else ""
    gone = f"{record.epoch} epochs"
    if record.folds > 1:
        gone = f"fold {record.epoch} of {record.folds}"
    return f"trial {record.number} {record.status} after {gone}{score}{why}{state}"


def scored(one: Record | Row) -> str:
    """A score, with its standard error if it is a mean over folds; empty for none."""
    if one.score is None:
        return ""
    error = "" if one.standard_error is None else f" ± {messages.number(one.standard_error, '.4f')}"
    return f"{messages.number(one.score, '.4f')}{error}"


def headline(view: View) -> str:
    """Trials done, best score, time gone and time left, in one line."""
    if not view.started and not view.waiting:
        return f"workers start, {_clock(view.gone)} gone"
    parts = [f"{view.ended}/{view.total} trials"]
    if view.best is not None:
        best = messages.number(view.best.score or 0.0, ".4f")
        parts.append(f"best {view.metric} {best} (trial {view.best.number})")
    if view.waiting and view.started == view.ended:  # one more than runs may always wait
        parts.append(f"{len(view.waiting)} wait (eagleray why)")
    parts.append(f"{_clock(view.gone)} gone")
    fresh = view.ended - view.before
    if fresh > 0 and view.ended < view.total:
        left = view.gone / fresh * (view.total - view.ended)
        parts.append(f"about {_clock(left)} left")
    return ", ".join(parts)


def draw(view: View) -> Table:
    """A table of trials with progress bars."""
    table = Table(title=headline(view), box=box.SIMPLE, title_justify="left")
    unit = "folds" if view.folds > 1 else "epochs"
    for heading in ("trial", unit, "", view.metric, "values"):
        table.add_column(heading, overflow="ellipsis", no_wrap=True)
    for row in view.rows:
        bar = progress_bar.ProgressBar(total=view.epochs, completed=row.epoch, width=20)
        mark = " *" if view.best is not None and row.number == view.best.number else ""
        epochs = f"{row.epoch}/{view.epochs}"
        table.add_row(f"{row.number}{mark}", epochs, bar, scored(row), values(row.values))
    return table


def values(suggested: Mapping[str, Any]) -> str:
    """Suggested values in one line, each key without its section."""
    shown = auto.effective(suggested).items()
    pairs = (f"{key.split('.', 1)[-1]}={_short(value)}" for key, value in shown)
    return " ".join(pairs)


def without_colours(pieces: Iterable[str], stream: IO[str]) -> Iterator[str]:
    """A log without Ray's colour codes (ECMA-48, SGR), unless the stream is a terminal."""
    return iter(pieces) if stream.isatty() else (_COLOUR.sub("", one) for one in _lines(pieces))


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """Whole lines: half a colour code cannot be removed, nor a table stand below half a line."""
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        yield from (f"{line}\n" for line in whole)
    if rest:
        yield rest


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")
