"""The versions of a model in this replica: loaded before a request is routed to them.

They follow the aliases document: the version that the alias names, and while a rollout is under way
its candidate. A version that cannot be loaded, does not fit into memory, or does not reproduce its
golden rows, is refused: the previous one keeps serving, and log, metrics, the model's events and
the rollout's evidence say so. Nothing changes while storage is unreachable.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import random
import socket
import threading
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, Protocol

from eagleray import bundle, code, errors, machine
from eagleray.state.aliases import Aliases, Route
from eagleray.state.models import Registry, Version
from serving.predictor import Predictor

log = logging.getLogger("ray.serve")

MEMORY, SPARES = 1 << 30, 3
"""Bytes and number of versions that stay loaded, beside those in use."""
COPIES = 2
"""Memory that a version takes while it is loaded, in sizes of its files."""
_JITTER = 0.2  # of the time between two reads: replicas that started together drift apart
_UNFIT = (errors.CorruptObjectError, errors.NewerFormatError, errors.ObjectNotFoundError)


class Followed(NamedTuple):
    """What a replica serves now; the candidate is None until it is loaded, or if it is refused."""

    stable: Predictor
    candidate: Predictor | None = None
    route: Route | None = None


class Observer(Protocol):
    """What is told of versions; see `serving.metrics.Metrics`."""

    def serving(self, version: int, *, instead_of: int | None) -> None: ...
    def loaded(self, version: int, created_s: float) -> None: ...
    def refused(self, version: int) -> None: ...
    def storage_error(self) -> None: ...


class Versions:
    """Reads the aliases of a model in a thread; `follow` is called with what to serve from now on.

    `watch` reads them in place of the registry, `check` raises for a version that may not be
    loaded, `build` makes a predictor of a verified bundle.
    Versions that are not in use any more stay loaded up to `memory` bytes and `SPARES`, the latest
    used ones, so that a rollback takes no download. `free` gives the bytes that are left.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        alias: str,
        *,
        watch: Callable[[str | None], Aliases | None] | None = None,
        build: Callable[[bundle.Bundle], Predictor],
        follow: Callable[[Followed], None],
        observer: Observer,
        check: Callable[[Version], None] | None = None,
        memory: int = MEMORY,
        free: Callable[[], int] = machine.free_memory,
    ) -> None:
        self._registry, self._name, self._alias = registry, name, alias
        self._watch = watch or functools.partial(registry.watch, name)
        self._build, self._follow, self._observer = build, follow, observer
        self._check, self._memory, self._free = check, memory, free
        self._aliases: Aliases | None = None  # as they were last read
        self._wanted: int | None = None
        self._route: Route | None = None
        self._loaded: dict[int, tuple[Predictor, int]] = {}  # with bytes; the latest used last
        self._refused: dict[int, str] = {}
        self._unfit: dict[int, str] = {}  # refused whatever moves: a version never changes
        self._logged: str | None = None  # etag of the aliases whose refusal is in the log
        self._followed: Followed | None = None
        self._unreachable = False
        self._stopped = threading.Event()

    @property
    def serving(self) -> int | None:
        """The version that the alias names, once it is served."""
        return self._followed.stable.number if self._followed else None

    @property
    def bytes(self) -> int:
        """The bytes of all versions that are loaded."""
        return sum(size for _, size in list(self._loaded.values()))  # another thread changes them

    @property
    def failure(self) -> str | None:
        """Why the version that the alias names is refused; None if it is not."""
        return self._refused.get(self._wanted) if self._wanted is not None else None

    @property
    def refused(self) -> str | None:
        """Why the candidate is refused; None if it is not."""
        return self._refused.get(self._route.candidate) if self._route else None

    def start(self, every_s: float) -> None:
        threading.Thread(target=self._loop, args=(every_s,), name="alias", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def check(self) -> None:
        """Read the aliases once, load what they name, and serve it."""
        try:
            aliases = self._watch(self._aliases.etag if self._aliases else None)
            if aliases is not None:
                self._aliases = aliases
                self._wanted = aliases.values.get(self._alias, self._wanted)
                self._route = aliases.routes.get(self._alias)
                self._refused.clear()  # something moved: try its versions again
            self._serve()
            self._log_refusal()
        except errors.StorageError as cause:
            self._observer.storage_error()
            if not self._unreachable:
                log.warning("%s: still serving version %s: %s", self._name, self.serving, cause)
            self._unreachable = True
            return
        if self._unreachable:
            log.info("%s: storage answers again", self._name)
        self._unreachable = False

    def _loop(self, every_s: float) -> None:
        while not self._stopped.wait(every_s * random.uniform(1 - _JITTER, 1 + _JITTER)):  # noqa: S311
            try:
                self.check()
            except Exception:
                log.exception("%s: reading alias %s failed", self._name, self._alias)

    def _serve(self) -> None:
        """Load what is missing, and have it served if it is another than before."""
        before, route = self._followed, self._route
        stable = self._predictor(self._wanted) or (before.stable if before else None)
        if stable is None:
            return
        candidate = self._predictor(route.candidate) if route else None
        now = Followed(stable, candidate, route)
        if now == before:
            return
        self._follow(now)
        self._followed = now
        if before is None or before.stable is not stable:
            previous = before.stable.number if before else None
            log.info("%s: version %s serves instead of %s", self._name, stable.number, previous)
            self._observer.serving(stable.number, instead_of=previous)
        self._forget(self._memory)

    def _log_refusal(self) -> None:
        """Write into the model's events that the version of the alias is refused, if it is."""
        seen, why = self._aliases, self.failure
        if why is None or seen is None or seen.etag == self._logged:
            return
        if seen.values.get(self._alias) != self._wanted:  # the alias is gone
            return
        try:
            by = f"replica on {socket.gethostname()}"
            self._registry.refuse(self._name, seen, self._alias, by=by, why=why)
        except errors.StorageUnavailableError:
            raise  # tried again with the next look
        except errors.StorageError as cause:  # such as a bucket that may only be read
            log.warning("%s: the refusal is not in the model's events: %s", self._name, cause)
        self._logged = seen.etag

    def _predictor(self, number: int | None) -> Predictor | None:
        """A version, loaded if need be; None if it is refused."""
        if number is None or number in self._refused:
            return None
        if number not in self._loaded:
            made = self._load(number)
            if made is None:
                return None
            self._loaded[number] = made
        self._loaded[number] = self._loaded.pop(number)  # the latest used
        return self._loaded[number][0]

    def _load(self, number: int) -> tuple[Predictor, int] | None:
        """Load and verify a version, with its bytes; None if it is refused."""
        try:
            if number in self._unfit:
                raise errors.ServingError(self._unfit[number])
            version = self._registry.version(self._name, number)
            if self._check is not None:
                self._check(version)
            size = sum(one.size for one in version.files.values())
            self._make_room(number, size)
            loaded = bundle.load(self._registry, version)
            self._verify(loaded, own=any(path.startswith(code.FOLDER) for path in version.files))
            with contextlib.suppress(ValueError):  # a time that another tool wrote
                self._observer.loaded(number, datetime.fromisoformat(version.created).timestamp())
            return self._build(loaded), size
        except Exception as cause:  # a user's model may raise anything
            if isinstance(cause, errors.StorageError) and not isinstance(cause, _UNFIT):
                raise
            self._refused[number] = str(cause)
            self._observer.refused(number)
            now = f"version {self.serving} keeps serving" if self.serving else "none is in service"
            log.error("%s: version %s is refused, %s: %s", self._name, number, now, cause)
            return None

    def _verify(self, loaded: bundle.Bundle, *, own: bool) -> None:
        """Reproduce the golden rows; a refusal is final but for code of its `own`."""
        try:
            loaded.verify()
        except errors.ServingError as cause:
            if not own:
                self._unfit[loaded.number] = str(cause)
            raise

    def _make_room(self, number: int, size: int) -> None:
        """Unload spares for a version that does not fit; ServingError if it still does not."""
        needed, free = COPIES * size, self._free()
        if needed > free:
            self._forget(0)
            gc.collect()  # their parts refer to each other
            free = self._free()
        if needed > free:
            law = f"version {number} must fit the replica's memory, {COPIES} times its files"
            raise errors.ServingError(f"{law}: {_mib(needed)}, but {_mib(free)} are free")

    def _forget(self, memory: int) -> None:
        """Unload what is not in use beyond `memory` bytes or `SPARES`, the earliest used first."""
        now, route = self._followed, self._route
        used = {self._wanted, route.candidate if route else None}
        used |= {one.number for one in (now.stable, now.candidate) if one} if now else set()
        spare = {number: size for number, (_, size) in self._loaded.items() if number not in used}
        for number in list(spare):
            if sum(spare.values()) <= memory and len(spare) <= SPARES:
                return
            del self._loaded[number], spare[number]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
