"""Runs as storage knows them, wherever they run: a line for each trial that has ended.

A search on this machine runs in somebody's terminal, and no process is told of it but by its
records, and by the lease that its driver renews every few seconds (`eagleray.state.leases`). So it
can be followed from anywhere, and stopped only where it runs.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence

from eagleray import errors, storage
from eagleray.client import screen
from eagleray.client.runs import Attempt, State
from eagleray.state import leases, searches

POLL_S = 1.0
LEFT_S = 2 * leases.BEAT_S
"""A search that nobody has driven for so long is not just being handed over."""


class LocalRuns:
    """The searches on record in a storage; each counts as one attempt."""

    def __init__(self, uri: str) -> None:
        self.options, self._uri = f"--storage {uri}", uri
        self._storage = storage.open(uri)

    def attempts(self) -> Sequence[Attempt]:
        known = searches.all_of(self._storage)
        living = leases.alive(self._storage, [kept.lease_key for kept in known])
        return [self._attempt(kept, alive=kept.lease_key in living) for kept in known]

    def log(self, attempt: Attempt, *, follow: bool) -> Iterator[str]:
        kept, told = self._records(attempt.name, attempt.run), set()
        watcher = kept.watcher()
        while True:
            unchanged_s = watcher.watch()
            done = not follow or (watcher.seen.free and kept.result() is not None)
            for one in kept.trials():
                if one.status != "running" and one.number not in told:
                    told.add(one.number)
                    yield f"{screen.ended(one)}\n"
            if done:
                return
            _check_alive(attempt, watcher.seen, unchanged_s)
            time.sleep(POLL_S)

    def stop(self, attempt: Attempt) -> None:
        raise errors.UserError(
            f"{attempt.id}: must be stopped where it runs: by Ctrl-C in its terminal, or with "
            "--address or --kubernetes of its cluster"
        )

    def _records(self, name: str, run: str) -> searches.Records:
        return searches.Records(self._storage, name, run)

    def _attempt(self, kept: searches.Records, *, alive: bool) -> Attempt:
        result, view = kept.result(), kept.view()
        state: State = "running" if alive else "unfinished"
        why, started = "", _time(view.at - view.gone) if view else ""
        if result is not None and not alive:
            state, why = "succeeded", f"version {result.version}, from trial {result.winner}"
        elif view is not None and not alive:
            why = f"last seen {_time(view.at)}"
        run = kept.search_id
        return Attempt(run, kept.name, run, 1, state, why=why, started=started, storage=self._uri)


def _check_alive(attempt: Attempt, seen: leases.Seen, unchanged_s: float) -> None:
    """Raises ClusterError: it has no driver, or none that shows a sign of life."""
    again = "the same `eagleray run` goes on from there"
    if seen.free and unchanged_s >= LEFT_S:
        raise errors.ClusterError(f"{attempt.id}: nobody drives it; {again}")
    if not seen.free and unchanged_s >= leases.TTL_S:
        raise errors.ClusterError(
            f"{attempt.id}: its driver {seen.holder} has been silent for {unchanged_s:.0f} s; "
            f"{again}"
        )


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
