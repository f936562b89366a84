"""Follows an alias: the version it names is loaded, proved, and put into service.

A version that cannot be loaded, or does not reproduce its golden rows, is refused: the one before
keeps answering, and log and metrics say so. While storage cannot be reached nothing changes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from eagleray import bundle, errors
from eagleray.state.models import Registry

log = logging.getLogger("ray.serve")


class Reporter(Protocol):
    """Is told what becomes of versions."""

    def serving(self, version: int, *, instead_of: int | None) -> None:
        """A version was put into service."""

    def refused(self, version: int) -> None:
        """A version was found unfit."""

    def storage_error(self) -> None:
        """A look at the alias, or at a version, failed."""


class Follower:
    """Looks at an alias now and then, in a thread of its own.

    Args:
        registry: where the model is.
        name: the model's.
        alias: which of its aliases to follow.
        install: puts a bundle into service; the bundle's golden rows have been reproduced.
        reporter: is told what happens.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        alias: str,
        install: Callable[[bundle.Bundle], None],
        reporter: Reporter,
    ) -> None:
        self._registry, self._name, self._alias = registry, name, alias
        self._install, self._reporter = install, reporter
        self._etag: str | None = None
        self._wanted: int | None = None
        self._unfit: int | None = None
        self._out_of_reach = False
        self._stopped = threading.Event()
        self.serving: int | None = None

    def start(self, every_s: float) -> None:
        """Look every so many seconds until `stop`."""
        threading.Thread(target=self._loop, args=(every_s,), name="follower", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def look(self) -> None:
        """Look once, and change the version in service where the alias says so."""
        try:
            self._watch()
            wanted = self._wanted
            if wanted is not None and wanted not in (self.serving, self._unfit):
                self._change(wanted)
        except errors.StorageError as cause:
            self._reporter.storage_error()
            if not self._out_of_reach:
                log.warning("%s: still serving version %s: %s", self._name, self.serving, cause)
            self._out_of_reach = True
            return
        if self._out_of_reach:
            log.info("%s: storage answers again", self._name)
        self._out_of_reach = False

    def _loop(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            try:
                self.look()
            except Exception:
                log.exception("%s: looking at alias %s failed", self._name, self._alias)

    def _watch(self) -> None:
        aliases = self._registry.watch(self._name, self._etag)
        if aliases is not None:
            self._etag = aliases.etag
            self._wanted = aliases.values.get(self._alias, self._wanted)
            self._unfit = None  # somebody moved an alias: give what it names another try

    def _change(self, number: int) -> None:
        try:
            loaded = bundle.load(self._registry, self._registry.version(self._name, number))
            loaded.verify()
        except (errors.CorruptObjectError, errors.ObjectNotFoundError) as cause:
            self._refuse(number, cause)
        except errors.StorageError:
            raise
        except Exception as cause:  # noqa: BLE001 - whatever a foreign model does, it is unfit
            self._refuse(number, cause)
        else:
            self._install(loaded)
            log.info("%s: version %s serves instead of %s", self._name, number, self.serving)
            self._reporter.serving(number, instead_of=self.serving)
            self.serving = number

    def _refuse(self, number: int, cause: Exception) -> None:
        self._unfit = number
        self._reporter.refused(number)
        kept = f"version {self.serving} keeps serving" if self.serving else "none is in service"
        log.error("%s: version %s is refused, %s: %s", self._name, number, kept, cause)
