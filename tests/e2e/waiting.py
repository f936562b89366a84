"""Waiting for what a cluster does in its own time: always with an end, and with the reason."""

import time
from collections.abc import Callable

from eagleray import errors


def until(
    wish: str,
    missing: Callable[[], str],
    *,
    limit_s: float,
    every_s: float = 2.0,
    reason: Callable[[], str] = str,
) -> None:
    """Look until nothing is missing any more.

    Args:
        wish: what is waited for, for the message.
        missing: what is still missing; nothing when all is there. A cluster that fails to answer
            is asked again.
        limit_s: longest wait.
        every_s: pause between two looks.
        reason: asked once when the time is over; its text goes with the error.

    Raises:
        TimeoutError: the time is over; says what was missing last, and carries the reason.
    """
    end = time.monotonic() + limit_s
    while True:
        seen = _look(missing)
        if not seen:
            return
        if time.monotonic() > end:
            expired = TimeoutError(f"{wish}: not within {limit_s:g} s; still missing: {seen}")
            expired.add_note(reason())
            raise expired
        time.sleep(every_s)


def _look(missing: Callable[[], str]) -> str:
    try:
        return missing()
    except (errors.EagleRayError, OSError) as failure:
        return f"an answer ({failure})"
