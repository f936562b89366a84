"""A search is sent to MLflow while it runs, where `MLFLOW_TRACKING_URI` is set.

A thread of the driver sends what is new every few seconds. The search neither waits for it nor
fails with it: what could not be sent, `eagleray runs mlflow` sends later.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich import console

from eagleray import errors
from eagleray.client import tracking
from eagleray.state.searches import Record, Result
from ray_jobs import search

SEND_S = 5.0
"""Interval between two sends."""
END_S, BRIEF_S = 20.0, 3.0
"""Longest wait for the last send: at the end of a search, and of one that failed or is left."""


@contextmanager
def sent(
    searched: search.Search, trials: Mapping[int, Record], out: console.Console
) -> Iterator[Callable[[Result], None]]:
    """Send the trials in the block to MLflow; yields a function to call with the result."""
    uri = os.environ.get(tracking.URI)
    if not uri:
        yield lambda _: None
        return
    sender = _Sender(searched, trials, out, uri)
    sender.start()
    status = "FAILED"
    try:
        yield sender.finish
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except errors.LeaseLostError:
        status = ""  # another driver goes on, and sends
        raise
    finally:
        sender.end(status, {"FINISHED": END_S, "": 0.0}.get(status, BRIEF_S))


class _Sender(threading.Thread):
    """Sends to MLflow; says once that it does not answer."""

    def __init__(
        self,
        searched: search.Search,
        trials: Mapping[int, Record],
        out: console.Console,
        uri: str,
    ) -> None:
        super().__init__(daemon=True)
        self._tracker = tracking.Tracker(searched.records, uri)
        self._trials, self._out = trials, out
        self._result: Result | None = None
        words = ("eagleray runs mlflow", searched.id, "--storage", searched.experiment.storage)
        self._later = " ".join(words)
        self._ended, self._status = threading.Event(), "RUNNING"
        self._failing = self._noted = self._shown = False

    def run(self) -> None:
        self._send()
        while not self._ended.wait(SEND_S):
            self._send()
        if self._status and not self._failing:
            self._send()

    def finish(self, result: Result) -> None:
        self._result = result

    def end(self, status: str, patience_s: float) -> None:
        """Send what is left, and wait for that up to `END_S`."""
        self._status = status
        self._ended.set()
        self.join(patience_s)
        if status and self.is_alive():
            self._note(f"MLflow at {self._tracker.uri} is slow")

    def _send(self) -> None:
        trials = list(self._trials.values())
        try:
            self._tracker.send(trials, status=self._status, result=self._result)
        except errors.TrackingError as failure:
            self._failing = True
            self._note(str(failure))
            return
        self._failing = False
        if not self._shown:
            self._shown = True
            self._out.print(f"MLflow: {self._tracker.url}", soft_wrap=True)

    def _note(self, why: str) -> None:
        if not self._noted:
            self._noted = True
            text = f"note: {why}; the search goes on; send it later: {self._later}"
            self._out.print(text, soft_wrap=True, highlight=False)
