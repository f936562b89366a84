"""Runs as storage records them, wherever they run; the log is a line for each ended trial.

Other processes know a search by its records and by the lease that its driver renews
(`eagleray.state.leases`). They can follow it, but it is stopped only where it runs.
"""

import datetime
import time
from collections.abc import Iterator, Sequence

from eagleray import errors, storage
from eagleray.client import screen
from eagleray.client.runs import RESUME, Attempt, State
from eagleray.state import leases, searches

POLL_S = 1.0
ABANDONED_S = 2 * leases.BEAT_S
"""Seconds without a driver after which a search is abandoned, not just handed over."""


class LocalRuns:
    """The searches on record in a storage; each counts as one attempt."""

    def __init__(self, uri: str) -> None:
        self.options, self._uri = f"--storage {uri}", uri
        self._storage = storage.open(uri)

    def attempts(self) -> Sequence[Attempt]:
        known = searches.all_of(self._storage)
        living = leases.alive(self._storage, [one.lease_key for one in known])
        return [self._attempt(one, alive=one.lease_key in living) for one in known]

    def log(self, attempt: Attempt, *, follow: bool) -> Iterator[str]:
        records = searches.Records(self._storage, attempt.name, attempt.run)
        watcher, printed = records.watcher(), set[int]()
        while True:
            unchanged_s = watcher.observe()
            done = not follow or (watcher.document.free and records.result() is not None)
            for record in screen.newly_ended(records, printed):
                yield f"{screen.line(record)}\n"
            if done:
                return
            _check_alive(attempt, watcher.document, unchanged_s)
            time.sleep(POLL_S)

    def stop(self, attempt: Attempt) -> None:
        raise errors.UserError(
            f"{attempt.id}: must be stopped where it runs: by Ctrl-C in its terminal, or with "
            "--address or --kubernetes of its cluster"
        )

    def _attempt(self, records: searches.Records, *, alive: bool) -> Attempt:
        result, view, run = records.result(), records.view(), records.search_id
        state: State = "running" if alive else "unfinished"
        why, started = "", _time(view.at - view.gone) if view else ""
        if result is not None and not alive:
            state, why = "succeeded", f"version {result.version}, from trial {result.winner}"
        elif view is not None and not alive:
            why = f"last seen {_time(view.at)}"
        return Attempt(run, records.name, run, 1, state, why, started, storage=self._uri)


def _check_alive(attempt: Attempt, lease: leases.LeaseDocument, unchanged_s: float) -> None:
    why = f"its driver {lease.owner} has been silent for {unchanged_s:.0f} s"
    if unchanged_s >= (ABANDONED_S if lease.free else leases.TTL_S):
        why = "no driver process" if lease.free else why
        raise errors.ClusterError(f"{attempt.id}: {why}; {RESUME}")


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
