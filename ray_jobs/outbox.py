"""Writes of a driver to storage, in the background and in their order.

While storage does not answer, they wait, and trials go on; once `BOUND` wait, the driver waits too.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable

from eagleray import errors

log = logging.getLogger(__name__)

BOUND = 100
"""Most writes that wait; a trial has one or two at its start and one at its end."""
PAUSE_S = 2.0
"""Time between two attempts; each takes some itself (`storage.s3.Patience`)."""
PATIENCE_S = 600.0
"""How long storage may not answer before the search is interrupted, as with checkpoints."""

Write = Callable[[], None]


class Outbox:
    """Runs writes one after another in a thread; a failure that lasts is raised by the next call.

    Raises:
        LeaseLostError: another driver has taken over.
        StorageError: storage refuses, or has not answered for `PATIENCE_S`.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._writes: queue.Queue[Write | None] = queue.Queue(BOUND)
        self._patience_s = patience_s
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, write: Write) -> None:
        """Have a write done; it may be tried several times."""
        self.check()
        self._writes.put(write)

    def check(self) -> None:
        """Raise the failure of an earlier write."""
        if self._failure is not None:
            raise self._failure

    def hurry(self) -> None:
        """Give up at the next attempt that fails."""
        self._patience_s = 0.0

    def close(self) -> None:
        """Wait until all is written."""
        self._writes.put(None)
        self._thread.join()
        self.check()

    def _run(self) -> None:
        while (write := self._writes.get()) is not None:
            if self._failure is None:
                self._try(write)

    def _try(self, write: Write) -> None:
        began = time.monotonic()
        while True:
            try:
                return write()
            except errors.StorageUnavailableError as cause:
                if time.monotonic() - began >= self._patience_s:
                    self._failure = cause
                    return None
                log.warning("the records of this search wait: %s", cause)
                time.sleep(min(PAUSE_S, self._patience_s))
            except Exception as cause:  # noqa: BLE001 - raised by the next call
                self._failure = cause
                return None
