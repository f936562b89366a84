"""Other models of the same storage on the endpoint of one: loaded when they are first asked for.

Each follows its alias and takes part in its rollouts, as the replica's own model does. As many stay
loaded as fit into `models_mb`; the least recently asked for leave, the own one never.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from eagleray import errors, names
from eagleray.state.models import Registry
from serving import metrics, web
from serving.catalog import Listed
from serving.served import Served
from serving.settings import Settings

log = logging.getLogger("ray.serve")

ALL = "*"
MOST_WAITING = 100
"""Requests that wait for their models."""
REFUSED_S = 5.0
"""Time for which a model that cannot be loaded is not tried again."""
MOST_REFUSED = 1000
MOST_LOADING = 4
"""Models that are loaded at once: one whose golden rows take long does not hold up the others."""
Result = TypeVar("Result")
_PREFIXES = "/v1/models/", "/v2/models/"
_MIB = 2**20


class Models:
    """Passes requests to the models that they name, on one event loop.

    `observe` makes the metrics of a model. Replicas of a node have the folder `shared` in common.
    """

    def __init__(
        self,
        settings: Settings,
        own: Served,
        observe: Callable[[str], metrics.Metrics],
        *,
        shared: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._own = settings, own.application
        self._observe, self._shared = observe, shared
        self._registry: Registry = own.registry
        self._clock = clock
        self._loaded: dict[str, Served] = {}  # the least recently asked for first
        self._loading: dict[str, asyncio.Task[Served]] = {}
        self._refused: dict[str, tuple[float, int, str]] = {}  # until when, status and why
        self._observers: dict[str, metrics.Metrics] = {}
        self._coming: dict[str, int] = {}  # bytes of those that are being loaded
        self._loads = ThreadPoolExecutor(MOST_LOADING, "models")
        self._looks = ThreadPoolExecutor(4, "registry")
        self._waiting = 0
        self._listing: asyncio.Future[list[str]] | None = None
        self._own.catalog.others = self._others

    @property
    def failure(self) -> str | None:
        """Why a model that is loaded cannot answer any more; None while all can."""
        applications = self._own, *(one.application for one in self._loaded.values())
        return next((one.failure for one in applications if one.failure is not None), None)

    def stop(self) -> None:
        """End what follows the aliases of models that are loaded, of all at once."""
        threads = [threading.Thread(target=one.stop) for one in self._loaded.values()]
        for one in threads:
            one.start()
        for one in threads:  # each waits for storage, but not for ever
            one.join()

    def predicts(self, path: str) -> bool:
        name = self._other(path)
        return self._own.predicts(path) if name is None else path in web.predictions(name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) if "path" in scope else ""
        name = self._other(path)
        application = self._own if name is None else self._application(name)
        await application(scope, receive, send)

    def _other(self, path: str) -> str | None:
        """The name of another model in a path, if it may be served here."""
        if not path.startswith(_PREFIXES):
            return None
        name = path.split("/", 4)[3].partition(":")[0]
        return name if self._allowed(name) and names.is_label(name) else None

    def _allowed(self, name: str) -> bool:
        chosen = self._settings.models
        return name != self._settings.name and (ALL in chosen or name in chosen)

    def _application(self, name: str) -> web.Application:
        """The application of a model; of one that is not loaded, one that loads it."""
        served = self._loaded.pop(name, None)
        if served is not None:
            self._loaded[name] = served
            return served.application
        return self._own.beside(name, functools.partial(self._load, name))

    async def _load(self, name: str) -> web.Application:
        """Wait for a model; RequestError 404 if there is none, 503 if it cannot be served yet."""
        until, status, why = self._refused.get(name, (0.0, 0, ""))
        if why and self._clock() < until:
            raise errors.RequestError(why, status=status)
        if self._waiting >= MOST_WAITING:
            law = f"at most {MOST_WAITING} requests wait for their models"
            raise errors.RequestError(law, status=503)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.load_s):
                return (await asyncio.shield(self._task(name))).application
        except TimeoutError as late:
            law = f"a model must be loaded within {self._settings.load_s:g} s"
            raise errors.RequestError(f"{law}, but {name} is not yet", status=503) from late
        finally:
            self._waiting -= 1

    def _task(self, name: str) -> asyncio.Task[Served]:
        """The task that loads a model, for all requests that wait for it."""
        if name not in self._loading:
            self._loading[name] = asyncio.create_task(self._fetch(name))
            self._loading[name].add_done_callback(functools.partial(self._end, name))
        return self._loading[name]

    def _end(self, name: str, task: asyncio.Task[Served]) -> None:
        del self._loading[name]
        if task.cancelled() or (why := task.exception()) is None:
            return
        if isinstance(why, errors.RequestError):
            self._refused.pop(name, None)
            self._refused[name] = self._clock() + REFUSED_S, why.status, str(why)
            if len(self._refused) > MOST_REFUSED:
                del self._refused[next(iter(self._refused))]

    async def _fetch(self, name: str) -> Served:
        if name in self._loaded:  # since the request came
            return self._loaded[name]
        try:
            await self._make_room(name, await self._apart(self._looks, self._size, name))
            try:
                served = self._loaded[name] = await self._apart(self._loads, self._serve, name)
            finally:
                del self._coming[name]
        except errors.NotFoundError as cause:  # which lists what is there: not for clients
            law = f"a model must be registered and have the alias {self._settings.alias}"
            raise errors.RequestError(f"{law}, but {name} is not so", status=404) from cause
        except errors.StorageError as cause:
            log.warning("%s cannot be loaded: %s", name, cause)
            law = f"{name} cannot be loaded: storage cannot be read; the server's log says why"
            raise errors.RequestError(law, status=503) from cause
        except errors.UserError as cause:
            raise errors.RequestError(f"{name} cannot be loaded: {cause}", status=503) from cause
        return served

    @staticmethod
    def _apart(
        threads: ThreadPoolExecutor, work: Callable[..., Result], *of: str
    ) -> asyncio.Future[Result]:
        """Call a function in a thread, apart from those that decode bodies."""
        return asyncio.get_running_loop().run_in_executor(threads, work, *of)

    def _size(self, name: str) -> int:
        """The bytes of the version that the alias names."""
        version = self._registry.resolve(name, self._settings.alias)
        return sum(one.size for one in version.files.values())

    async def _make_room(self, name: str, size: int) -> None:
        """Unload models until another one fits, and keep the room for it.

        It waits for those that are being loaded; RequestError if it never fits.
        """
        most = self._settings.models_mb * _MIB
        if size > most:
            law = f"a model must fit into models_mb, which is {self._settings.models_mb}"
            raise errors.RequestError(f"{law}, but {name} has {size / _MIB:.0f} MiB", status=503)
        while sum(self._coming.values()) + size > most:
            coming = [self._loading[other] for other in self._coming]
            await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
        self._coming[name] = size
        while self._loaded and sum(self._coming.values()) + self._bytes() > most:
            gone = self._loaded.pop(next(iter(self._loaded)))
            self._looks.submit(gone.stop)

    def _bytes(self) -> int:
        """The bytes of all models that are loaded."""
        return sum(one.versions.bytes for one in self._loaded.values())

    def _serve(self, name: str) -> Served:
        """Load a model and follow its alias; RequestError if its version is refused."""
        if name not in self._observers:
            self._observers[name] = self._observe(name)
        settings = self._settings.model_copy(update={"name": name, "models": ()})
        served = Served(settings, self._observers[name], shared=self._shared, beside=self._own)
        served.versions.check()
        if not served.ready:
            why = served.versions.failure or "storage cannot be reached"
            raise errors.RequestError(f"{name} cannot be served: {why}", status=503)
        served.start()
        return served

    def _listed(self) -> asyncio.Future[list[str]]:
        """The names in storage, which is listed once for all requests that wait for them."""
        if self._listing is None:
            self._listing = self._apart(self._looks, self._registry.models)
            self._listing.add_done_callback(self._forget_listing)
        return self._listing

    def _forget_listing(self, _: object) -> None:
        self._listing = None

    async def _others(self) -> list[Listed]:
        """The other models that may be asked for, and whether they are loaded."""
        known = await asyncio.shield(self._listed())
        states = {name: one.versions.serving for name, one in self._loaded.items()}
        return [Listed(name, states.get(name)) for name in known if self._allowed(name)]
