"""Runs as storage knows them, wherever they run: a line for each trial that has ended.

A search on this machine runs in somebody's terminal, and no process is told of it but by its
records, and by the view that its driver renews every few seconds. So it can be followed from
anywhere, and stopped only where it runs.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence

from eagleray import errors, storage
from eagleray.runs import Attempt, State
from ray_jobs import records

POLL_S = 1.0
SILENT_S = 60.0
"""A search whose driver has said nothing for so long has no driver any more."""


class Here:
    """The searches on record in a storage; each counts as one attempt."""

    def __init__(self, uri: str) -> None:
        self.options, self._uri = f"--storage {uri}", uri
        self._storage = storage.open(uri)

    def attempts(self) -> Sequence[Attempt]:
        keys = [entry.key.split("/") for entry in self._storage.list("searches/")]
        return [self._attempt(name, run) for name, run in sorted({(k[1], k[2]) for k in keys})]

    def log(self, attempt: Attempt, *, follow: bool) -> Iterator[str]:
        kept, told = records.Records(self._storage, attempt.name, attempt.run), set()
        began = time.time()
        while True:
            done = kept.result() is not None or not follow
            for one in kept.trials():
                if one.status != "running" and one.number not in told:
                    told.add(one.number)
                    yield _line(one)
            if done:
                return
            _check_alive(attempt, kept.view(), began)
            time.sleep(POLL_S)

    def stop(self, attempt: Attempt) -> None:
        raise errors.UserError(
            f"{attempt.id}: must be stopped where it runs: by Ctrl-C in its terminal, or with "
            "--address or --kubernetes of its cluster"
        )

    def _attempt(self, name: str, run: str) -> Attempt:
        kept = records.Records(self._storage, name, run)
        result, view = kept.result(), kept.view()
        state: State = "unfinished"
        why, started = "", _time(view.at - view.gone) if view else ""
        if result is not None:
            state, why = "succeeded", f"version {result.version}, from trial {result.winner}"
        elif view is not None:
            alive = time.time() - view.at < SILENT_S
            state, why = ("running", "") if alive else (state, f"last seen {_time(view.at)}")
        return Attempt(run, name, run, 1, state, why=why, started=started, storage=self._uri)


def _check_alive(attempt: Attempt, view: records.View | None, began: float) -> None:
    """Raises ClusterError: nothing was heard of the driver for long."""
    seen = max(view.at if view else 0.0, began)
    if time.time() - seen > SILENT_S:
        last = f"last seen {_time(view.at)}" if view else "never seen at work"
        raise errors.ClusterError(
            f"{attempt.id}: its driver is silent, {last}; the same `eagleray run` goes on from "
            "there"
        )


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _line(record: records.Record) -> str:
    score = "" if record.score is None else f" {record.score:.4f}"
    why = f": {record.failure}" if record.failure else ""
    return f"trial {record.number} {record.status} after {record.epoch} epochs{score}{why}\n"
