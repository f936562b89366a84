"""One driver of a batch at a time: another one waits, and takes over when the first ends or dies.

Only time depends on it. Two drivers at once, such as one that was paused and one that has taken
over, write the same parts.
"""

import contextlib
import time
from collections.abc import Iterator

from rich import console

from eagleray import errors
from eagleray.state import batches, keys, leases

POLL_S = 1.0


@contextlib.contextmanager
def held(batch: batches.Batch, out: console.Console) -> Iterator[batches.Result | None]:
    """Wait for the lease and hold it in the block; yields the result if another driver has one."""
    lease = _wait(batch, leases.Watcher(batch.store, keys.BATCH_LEASE), out)
    if lease is None:
        yield batch.result()
        return
    with lease.held():
        yield batch.result()


def _wait(
    batch: batches.Batch, watcher: leases.Watcher, out: console.Console
) -> leases.Lease | None:
    """The lease; None if the batch has ended meanwhile. Storage that is away is waited for."""
    lease = watcher.acquire()
    if lease is None:
        said = f"{watcher.document.owner} predicts these; Ctrl-C stops only the waiting"
        out.print(said, soft_wrap=True)
    while lease is None:
        time.sleep(POLL_S)
        with contextlib.suppress(errors.StorageUnavailableError):
            lease = watcher.acquire()
            if lease is None and batch.result() is not None:
                return None
    return lease
