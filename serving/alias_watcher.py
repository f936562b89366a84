"""Watches an alias, and loads, verifies and installs the version that it names.

A version that cannot be loaded, or does not reproduce its golden rows, is refused: the previous
version keeps serving, and log and metrics say so. Nothing changes while storage is unreachable.
"""

import logging
import threading
from collections.abc import Callable

from eagleray import bundle, errors
from eagleray.state.models import Registry
from serving.metrics import Metrics

log = logging.getLogger("ray.serve")
_UNFIT = (errors.CorruptObjectError, errors.NewerFormatError, errors.ObjectNotFoundError)


class AliasWatcher:
    """Polls an alias of a model in a thread; `install` puts a verified bundle into service."""

    def __init__(
        self,
        registry: Registry,
        name: str,
        alias: str,
        install: Callable[[bundle.Bundle], None],
        observer: Metrics,
    ) -> None:
        self._registry, self._name, self._alias = registry, name, alias
        self._install, self._metrics = install, observer
        self._etag: str | None = None
        self._wanted: int | None = None
        self._refused: int | None = None
        self._unreachable = False
        self._stopped = threading.Event()
        self.serving: int | None = None

    def start(self, every_s: float) -> None:
        threading.Thread(target=self._loop, args=(every_s,), name="alias", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def check(self) -> None:
        """Read the alias once, and install the version that it names if it is another one."""
        try:
            aliases = self._registry.watch(self._name, self._etag)
            if aliases is not None:
                self._etag = aliases.etag
                self._wanted = aliases.values.get(self._alias, self._wanted)
                self._refused = None  # the alias moved: try its version again
            wanted = self._wanted
            if wanted is not None and wanted not in (self.serving, self._refused):
                self._load(wanted)
        except errors.StorageError as cause:
            self._metrics.storage_error()
            if not self._unreachable:
                log.warning("%s: still serving version %s: %s", self._name, self.serving, cause)
            self._unreachable = True
            return
        if self._unreachable:
            log.info("%s: storage answers again", self._name)
        self._unreachable = False

    def _loop(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            try:
                self.check()
            except Exception:
                log.exception("%s: reading alias %s failed", self._name, self._alias)

    def _load(self, number: int) -> None:
        try:
            loaded = bundle.load(self._registry, self._registry.version(self._name, number))
            loaded.verify()
        except Exception as cause:  # a user's model may raise anything
            if isinstance(cause, errors.StorageError) and not isinstance(cause, _UNFIT):
                raise
            self._refused = number
            self._metrics.refused(number)
            now = f"version {self.serving} keeps serving" if self.serving else "none is in service"
            log.error("%s: version %s is refused, %s: %s", self._name, number, now, cause)
            return
        self._install(loaded)
        log.info("%s: version %s serves instead of %s", self._name, number, self.serving)
        self._metrics.serving(number, instead_of=self.serving)
        self.serving = number
