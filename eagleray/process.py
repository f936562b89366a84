"""Context managers: environment variables by key, handlers of signals, a repeating thread."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from eagleray import errors


@contextlib.contextmanager
def variables(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables in the block, and restore them after it."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def signals(handler: Callable[[int, Any], Any], *numbers: int) -> Iterator[None]:
    """Handle signals in the block, in place of those there are; only in the main thread."""
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                stack.callback(signal.signal, number, signal.signal(number, handler))
        yield


@contextlib.contextmanager
def beating(every_s: float, beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat` every `every_s` seconds in a thread; after an error of storage, go on."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(every_s):
            with contextlib.suppress(errors.StorageError):
                beat()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(every_s)
