"""One driver a search: who holds the search's lease drives it, the others watch and may take over.

What a watcher shows comes from storage, so it is what the driver's own screen shows, some seconds
later.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich import console

from eagleray import errors
from eagleray.state import leases, searches
from ray_jobs.report import far, live

POLL_S = 1.0


def wait(kept: searches.Records, watcher: leases.Watcher, out: console.Console) -> leases.Lease:
    """Take the lease of a search; watch the search as long as another driver holds it."""
    lease = watcher.look()
    if lease is not None:
        return lease
    holder = watcher.seen.holder
    out.print(f"{holder} drives this search: watching it; Ctrl-C leaves it alone", soft_wrap=True)
    with _screen(kept, out) as screen:
        while lease is None:
            time.sleep(POLL_S)
            with contextlib.suppress(errors.StorageUnavailableError):
                lease = watcher.look()
                screen.refresh()
    return lease


@contextlib.contextmanager
def holding(lease: leases.Lease) -> Iterator[None]:
    """Renew a lease in the background, and leave it to the next at the end."""
    with live.beating(leases.BEAT_S, lease.beat):
        try:
            yield
        finally:
            with contextlib.suppress(errors.StorageError):  # then it runs out by itself
                lease.release()


class _Screen:
    """A line for each trial that has ended, or nothing where a table is drawn."""

    def __init__(self, kept: searches.Records, out: console.Console) -> None:
        self._kept, self._out = kept, out
        self._told: set[int] = set()

    def refresh(self) -> None:
        view = None if self._out.is_terminal else self._kept.view()
        if view is None or view.ended == len(self._told):
            return
        for record in self._kept.trials():
            if record.status != "running" and record.number not in self._told:
                self._told.add(record.number)
                self._out.print(live.line(record, view), highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _screen(kept: searches.Records, out: console.Console) -> Iterator[_Screen]:
    with contextlib.ExitStack() as stack:
        if out.is_terminal:
            stack.enter_context(far.table(kept.view, out))
        yield _Screen(kept, out)
