"""The versions that a process holds in memory, within bounds: the least recently used leave."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Set
from datetime import datetime
from typing import Protocol

from eagleray import bundle, code, errors, machine
from eagleray.state.models import Registry, Version
from serving.predictor import Predictor

MEMORY, SPARES = 1 << 30, 3
"""Bytes and number of versions that stay loaded, beside those in use."""
COPIES = 2
"""Memory that a version takes while it is loaded, in sizes of its files."""
_UNFIT = (errors.CorruptObjectError, errors.NewerFormatError, errors.ObjectNotFoundError)


class Observer(Protocol):
    """What is told of versions; see `serving.metrics.Metrics`."""

    def loaded(self, version: int, created_s: float) -> None: ...
    def refused(self, version: int) -> None: ...


class Loaded:
    """Loads versions of a model; from one thread at a time.

    `check` raises for a version that may not be loaded, `build` makes a predictor of a verified
    bundle. `free` gives the bytes that are left. The files of all versions together have at most
    `budget` bytes; 0 sets no bound but `free`.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        *,
        build: Callable[[bundle.Bundle], Predictor],
        observer: Observer,
        check: Callable[[Version], None] | None = None,
        budget: int = 0,
        free: Callable[[], int] = machine.free_memory,
    ) -> None:
        self._registry, self._name = registry, name
        self._build, self._observer, self._check = build, observer, check
        self._budget, self._free = budget, free
        self._held: dict[int, tuple[Predictor, int]] = {}  # with bytes; the latest used last
        self._waiting: dict[int, Version] = {}  # found no room; they may be tried again and again
        self._unfit: dict[int, str] = {}  # refused for good: a version never changes

    @property
    def numbers(self) -> list[int]:
        """The versions that are held, the latest used last."""
        return list(self._held)

    @property
    def predictors(self) -> list[Predictor]:
        """The versions that are held, from any thread."""
        return [one for one, _ in list(self._held.values())]

    @property
    def bytes(self) -> int:
        """The bytes of their files."""
        return sum(size for _, size in list(self._held.values()))  # another thread changes them

    def get(self, number: int) -> Predictor | None:
        """A version that is held, which is now the latest used; None if it is not."""
        if number not in self._held:
            return None
        self._held[number] = self._held.pop(number)
        return self._held[number][0]

    def find(self, number: int) -> Predictor | None:
        """A version that is held, from any thread; it is not used thereby."""
        found = self._held.get(number)
        return found[0] if found is not None else None

    def load(self, number: int, used: Set[int]) -> Predictor:
        """Load and verify a version beside those that are `used`; others may leave for it.

        Raises:
            NoRoomError: it does not fit.
            StorageError: it cannot be read.
            ServingError: it may not be loaded, or does not reproduce its golden rows.
            Exception: whatever a user's model raises.
        """
        if number in self._unfit:
            raise errors.ServingError(self._unfit[number])
        version = self._waiting.get(number) or self._registry.version(self._name, number)
        if self._check is not None:
            self._check(version)
        size = sum(one.size for one in version.files.values())
        try:
            self._make_room(number, size, used)
        except errors.NoRoomError:
            self._waiting[number] = version
            raise
        self._waiting.pop(number, None)
        found = bundle.load(self._registry, version)
        self._verify(found, own=any(path.startswith(code.FOLDER) for path in version.files))
        with contextlib.suppress(ValueError):  # a time that another tool wrote
            self._observer.loaded(number, datetime.fromisoformat(version.created).timestamp())
        made = self._build(found)
        self._held[number] = made, size
        return made

    def forget(self, memory: int, used: Set[int]) -> None:
        """Unload unused versions above `memory` bytes or `SPARES`, least recently used first."""
        spare = {number: size for number, (_, size) in self._held.items() if number not in used}
        for number in list(spare):
            if sum(spare.values()) <= memory and len(spare) <= SPARES:
                return
            del self._held[number], spare[number]

    def _verify(self, found: bundle.Bundle, *, own: bool) -> None:
        """Reproduce the golden rows; a refusal is final but for code of its `own`."""
        try:
            found.verify()
        except errors.ServingError as cause:
            if not own:
                self._unfit[found.number] = str(cause)
            raise

    def _make_room(self, number: int, size: int, used: Set[int]) -> None:
        """Unload spares until a version fits, the earliest used first; NoRoomError if none does."""
        lack, spares = self._lack(size), [held for held in self._held if held not in used]
        while lack is not None and spares:
            del self._held[spares.pop(0)]
            _collect()  # its parts refer to each other
            lack = self._lack(size)
        if lack is not None:
            raise errors.NoRoomError(f"version {number} must fit {lack}")

    def _lack(self, size: int) -> str | None:
        """What there is too little of, for that many bytes more; None if they fit."""
        needed, free, held = COPIES * size, self._free(), self.bytes
        if needed > free:
            law = f"the replica's memory, {COPIES} times its files"
            return f"{law}: {_mib(needed)}, but {_mib(free)} are free"
        if self._budget and held + size > self._budget:
            law = f"versions_mb, which is {self._budget / 2**20:g}, beside those in use"
            return f"{law}: it has {_mib(size)}, and they have {_mib(held)}"
        return None


def unreadable(cause: Exception) -> bool:
    """Whether storage failed for now, and not the version."""
    return isinstance(cause, errors.StorageError) and not isinstance(cause, _UNFIT)


def _collect() -> None:
    """Collect garbage, also among what was there when Ray Serve froze a replica's start."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
