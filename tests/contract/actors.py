"""Processes that are stopped, killed and misled between any two requests to storage."""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eagleray import errors, storage


class Crash(BaseException):
    """The process is gone."""


class Gate:
    """A storage each of whose requests waits until it is told how it ends."""

    def __init__(self, real: storage.Storage) -> None:
        self._real, self.uri = real, real.uri
        self._fates: queue.Queue[str] = queue.Queue()
        self.events: queue.Queue[str] = queue.Queue()

    def resume(self, fate: str) -> None:
        self._fates.put(fate)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def request(*arguments: Any) -> Any:
            self.events.put("asks")
            fate = self._fates.get()
            if fate == "crash":
                raise Crash
            if fate == "unreachable":
                raise errors.StorageUnavailableError(name)
            answer = getattr(self._real, name)(*arguments)
            if fate == "unanswered":
                raise errors.StorageUnavailableError(name)
            return list(answer) if name == "list" else answer

        return request


class Actor:
    """A process: one operation at a time, one request to storage a step."""

    def __init__(self, real: storage.Storage) -> None:
        self.gate = Gate(real)
        self.store: Any = self.gate
        self.busy = self.ended = ""
        self.outcome: object = None

    def start(self, name: str, operation: Callable[[], object]) -> None:
        def run() -> None:
            try:
                self.outcome = operation()
            except (Crash, errors.EagleRayError) as cause:
                self.outcome = cause
            self.gate.events.put("ended")

        self.busy = name
        threading.Thread(target=run, daemon=True).start()
        self._wait()

    def step(self, fate: str) -> None:
        self.gate.resume(fate)
        self._wait()

    def kill(self) -> None:
        while self.busy:
            self.step("crash")

    def _wait(self) -> None:
        if self.gate.events.get(timeout=10) == "ended":
            self.busy, self.ended = "", self.busy


def memory() -> str | None:
    """A folder in memory, where there is one: each write is synced."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
