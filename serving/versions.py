"""The versions of a model in this replica: loaded before a request is routed to them.

They follow the aliases document: the version that the alias names, and while a rollout is under way
its candidate. One that does not fit into memory beside those in use is served by a deployment of
its own (`serving.remote`), where there is one, until it fits. One that cannot be loaded, or does
not reproduce its golden rows, is refused: the previous one keeps serving, and log, metrics, the
model's events and the rollout's evidence say so. Nothing changes while storage is unreachable.
"""

from __future__ import annotations

import functools
import logging
import random
import socket
import threading
from collections.abc import Callable, Set
from typing import NamedTuple, Protocol

from eagleray import errors
from eagleray.state.aliases import Aliases, Route
from eagleray.state.models import Registry
from serving import loaded
from serving.predictor import Predictor

log = logging.getLogger("ray.serve")

_JITTER = 0.2  # of the time between two reads: replicas that started together drift apart


class Followed(NamedTuple):
    """What a replica serves now; the candidate is None until it is ready, or if it is refused."""

    stable: Predictor
    candidate: Predictor | None = None
    route: Route | None = None


class Observer(loaded.Observer, Protocol):
    """What is told of versions; see `serving.metrics.Metrics`."""

    def serving(self, version: int, *, instead_of: int | None) -> None: ...
    def storage_error(self) -> None: ...


class Large(Protocol):
    """Where versions are served that do not fit here; see `serving.remote`."""

    def asked(self, number: int) -> bool: ...
    def predictor(self, number: int) -> Predictor | None: ...
    def keep(self, numbers: Set[int]) -> None: ...


class Versions:
    """Reads the aliases of a model in a thread; `follow` is called with what to serve from now on.

    `watch` reads them in place of the registry. Versions that are not in use any more stay `held`
    up to `memory` bytes, so that a rollback takes no download. `large` serves what does not fit.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        alias: str,
        *,
        watch: Callable[[str | None], Aliases | None] | None = None,
        held: loaded.Loaded,
        follow: Callable[[Followed], None],
        observer: Observer,
        memory: int = loaded.MEMORY,
        large: Large | None = None,
    ) -> None:
        self._registry, self._name, self._alias = registry, name, alias
        self._watch = watch or functools.partial(registry.watch, name)
        self._held, self._follow, self._observer = held, follow, observer
        self._memory, self._large = memory, large
        self._aliases: Aliases | None = None  # as they were last read
        self._wanted: int | None = None
        self._route: Route | None = None
        self._apart: set[int] = set()  # what this check has found no room for
        self._refused: dict[int, str] = {}
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
        return self._held.bytes

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
        self._apart.clear()
        before, route = self._followed, self._route
        stable = self._predictor(self._wanted) or (before.stable if before else None)
        if stable is not None:
            candidate = self._predictor(route.candidate) if route else None
            self._change(Followed(stable, candidate, route))
        if self._large is not None:
            followed = {one.number for one in (self._followed or ())[:2] if one is not None}
            self._large.keep(self._apart | followed.difference(self._held.numbers))

    def _change(self, now: Followed) -> None:
        before, stable = self._followed, now.stable
        if now == before:
            return
        self._follow(now)
        self._followed = now
        previous = before.stable.number if before else None
        if previous != stable.number:
            log.info("%s: version %s serves instead of %s", self._name, stable.number, previous)
            self._observer.serving(stable.number, instead_of=previous)
        self._held.forget(self._memory, self._used())

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
        """A version, loaded if need be; None if it is refused, or not ready apart from here."""
        if number is None or number in self._refused:
            return None
        try:
            # A candidate stays where it is, so that all of its evidence is of one place.
            if self._large is not None and number != self._wanted and self._large.asked(number):
                return self._elsewhere(self._large, number)
            return self._held.get(number) or self._held.load(number, self._used())
        except errors.NoRoomError as cause:
            if self._large is not None:
                return self._elsewhere(self._large, number)
            self._refuse(number, cause)
        except Exception as cause:  # a user's model may raise anything
            if loaded.unreadable(cause):
                raise
            self._refuse(number, cause)
        return None

    def _elsewhere(self, large: Large, number: int) -> Predictor | None:
        """A version apart from here; None until it is ready there, or if it is refused."""
        try:
            found = large.predictor(number)
        except Exception as cause:  # its outline may be damaged
            if loaded.unreadable(cause):
                raise
            if self._followed is None:  # nothing else could answer: it is asked for anew
                log.warning("%s: version %s is not ready: %s", self._name, number, cause)
            else:
                self._refuse(number, cause)
            return None
        self._apart.add(number)
        return found

    def _refuse(self, number: int, cause: Exception) -> None:
        self._refused[number] = str(cause)
        self._observer.refused(number)
        now = f"version {self.serving} keeps serving" if self.serving else "none is in service"
        log.error("%s: version %s is refused, %s: %s", self._name, number, now, cause)

    def _used(self) -> set[int]:
        """The versions that may not be unloaded."""
        now, route = self._followed, self._route
        used = {one.number for one in (now.stable, now.candidate) if one} if now else set()
        used |= {self._wanted} if self._wanted is not None else set()
        return used | ({route.candidate} if route is not None else set())
