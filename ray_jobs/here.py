"""Runs as storage knows them, wherever they run: a line for each trial that has ended.

A search on this machine runs in somebody's terminal, and no process is told of it but by its
records. So it can be followed from anywhere, and stopped only where it runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from eagleray import errors, storage
from eagleray.runs import Attempt, State
from ray_jobs import records

POLL_S = 1.0


class Here:
    """The searches on record in a storage; each counts as one attempt."""

    def __init__(self, uri: str) -> None:
        self.options = f"--storage {uri}"
        self._storage = storage.open(uri)

    def attempts(self) -> Sequence[Attempt]:
        keys = [entry.key.split("/") for entry in self._storage.list("searches/")]
        return [self._attempt(name, run) for name, run in sorted({(k[1], k[2]) for k in keys})]

    def log(self, attempt: Attempt, *, follow: bool) -> Iterator[str]:
        kept, told = records.Records(self._storage, attempt.name, attempt.run), set()
        while True:
            done = kept.result() is not None or not follow
            for one in kept.trials():
                if one.status != "running" and one.number not in told:
                    told.add(one.number)
                    yield _line(one)
            if done:
                return
            time.sleep(POLL_S)

    def stop(self, attempt: Attempt) -> None:
        raise errors.UserError(
            f"{attempt.id}: must be stopped where it runs: by Ctrl-C in its terminal, or with "
            "--address or --kubernetes of its cluster"
        )

    def _attempt(self, name: str, run: str) -> Attempt:
        result = records.Records(self._storage, name, run).result()
        why = f"version {result.version}, from trial {result.winner}" if result else ""
        state: State = "succeeded" if result else "unfinished"
        return Attempt(id=run, name=name, run=run, number=1, state=state, why=why)


def _line(record: records.Record) -> str:
    score = "" if record.score is None else f" {record.score:.4f}"
    why = f": {record.failure}" if record.failure else ""
    return f"trial {record.number} {record.status} after {record.epoch} epochs{score}{why}\n"
