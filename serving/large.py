"""A replica of the deployment for versions that do not fit beside those the endpoint serves.

It has a budget of memory of its own, and no requests but those of `serving.remote`: it loads a
version when it is asked for it, and forgets one that nobody has asked for when it needs the room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor

from eagleray import bundle, errors, machine, storage
from eagleray.state.aliases import Aliases
from eagleray.state.models import Registry
from eagleray.storage import cache
from serving import admission, autoscaling, loaded, metrics, predictor, trust
from serving.protocol import Packed
from serving.remote import Reply, State
from serving.settings import Settings

log = logging.getLogger("ray.serve")

UNUSED_S = 30.0
"""Time without a question or rows, after which a version leaves when another needs its room."""
ROOM_S = UNUSED_S + 15.0
"""Time that a version waits for the room of others; an endpoint may still use them at first."""
LOG_S = 10.0
"""Between two failures of requests in the log."""


class Large:
    """Versions that are loaded when they are asked for, on one event loop.

    `free` gives the bytes of memory that are left.
    """

    def __init__(
        self,
        settings: Settings,
        observer: metrics.Metrics,
        *,
        free: Callable[[], int] = machine.free_memory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._metrics, self._clock = settings, observer, clock
        registry = Registry(storage.open(settings.storage), local=cache.default())
        self._registry = registry
        self._held = loaded.Loaded(
            registry,
            settings.name,
            build=self._predictor,
            observer=observer,
            check=trust.Trust.of(settings).check,
            free=free,
        )
        self.ongoing = autoscaling.Ongoing()
        self._capacity = admission.Capacity(settings.queue_rows)
        self._thread = ThreadPoolExecutor(1, "load")
        self._loading: dict[int, asyncio.Task[str | None]] = {}
        self._asked: dict[int, float] = {}  # when, by version
        self._logged = -LOG_S
        self._resident: dict[int, int] = {}  # bytes of this process with a version, before it ran
        self._before: int | None = None  # bytes of this process when the load under way began

    @property
    def failure(self) -> str | None:
        """Why batches of a version cannot run any more; None while they can."""
        return next((one.failure for one in self._held.predictors if one.failure), None)

    def begin(self) -> None:
        """Load what an endpoint needs that has just asked for its first replica here."""
        try:
            aliases = self._registry.aliases(self._settings.name)
            if (number := wanted(aliases, self._settings.alias)) is not None:
                self._measured(number, frozenset())
        except Exception as cause:  # noqa: BLE001 (a user's model may raise anything)
            log.warning("%s: nothing is loaded yet: %s", self._settings.name, cause)

    async def ready(self, number: int) -> State:
        """Load a version if need be; say that it is ready, or why it is refused."""
        self._asked[number] = self._clock()
        self.ongoing.add(1)  # counts as a request, so that autoscaling keeps a replica,
        self.ongoing.add(-1)  # but loading is none in progress
        refused = await self._loaded(number)
        if refused is not None:
            return State(refused)
        now = self._before or machine.resident_memory()
        return State(None, max(0.0, (now - self._resident[number]) / 2**20))

    async def predict(self, number: int, packed: Packed, explain: bool, wait: bool) -> Reply:
        """Predict rows; a version that is not loaded is waited for if `wait` says so."""
        self._asked[number] = self._clock()
        self.ongoing.add(1)
        reservation = admission.Reservation(self._capacity)
        try:
            if (found := self._held.find(number)) is None:
                loading = self._loaded(number)
                refused = await loading if wait else "is being loaded"
                found = self._held.find(number)
            if found is None:
                return Reply(busy=f"version {number} is not ready: {refused}")
            began = time.perf_counter()
            reservation.decoded(len(packed))
            answers = await found.run(packed, explain=explain)
            return Reply(answers, time.perf_counter() - began)
        except errors.RequestError as cause:
            return Reply(busy=str(cause))
        except Exception as cause:  # noqa: BLE001 (a user's model may raise anything)
            self._log(number, cause)
            return Reply(failed=repr(cause))
        finally:
            reservation.release()
            self.ongoing.add(-1)

    def _log(self, number: int, cause: Exception) -> None:
        if self._clock() - self._logged >= LOG_S:
            self._logged = self._clock()
            log.error("%s: version %s failed", self._settings.name, number, exc_info=cause)

    def _loaded(self, number: int) -> asyncio.Future[str | None]:
        """Load a version once for all who ask; gives why it is refused, None if it is not."""
        task = self._loading.get(number)
        if task is None:
            task = self._loading[number] = asyncio.create_task(self._load(number))
            task.add_done_callback(lambda _: self._loading.pop(number, None))
        return asyncio.shield(task)

    async def _load(self, number: int) -> str | None:
        loop, began = asyncio.get_running_loop(), self._clock()
        while self._held.find(number) is None:
            now = self._clock()
            used = {one for one, at in self._asked.items() if at >= now - UNUSED_S}
            try:
                await loop.run_in_executor(self._thread, self._measured, number, used)
            except Exception as cause:  # noqa: BLE001 (a user's model may raise anything)
                crowded = isinstance(cause, errors.NoRoomError) and now - began <= ROOM_S
                crowded = crowded and not used.isdisjoint(self._held.numbers)
                if not (crowded or loaded.unreadable(cause)):
                    log.error("%s: version %s is refused: %s", self._settings.name, number, cause)
                    self._metrics.refused(number)
                    return str(cause)
                log.warning("%s: version %s waits: %s", self._settings.name, number, cause)
                await asyncio.sleep(self._settings.poll_s)
        return None

    def _measured(self, number: int, used: Set[int]) -> None:
        """Load a version; what this process grows by meanwhile is no growth of other versions."""
        self._before = machine.resident_memory()
        try:
            self._held.load(number, used)
        finally:
            after = machine.resident_memory()
            for one in self._resident:
                self._resident[one] += after - self._before
            self._resident[number] = after
            self._before = None

    def _predictor(self, found: bundle.Bundle) -> predictor.Predictor:
        return predictor.Predictor.of(self._settings, found, self._metrics)


def wanted(aliases: Aliases, alias: str) -> int | None:
    """The version that an endpoint may have no room for: the candidate, else the stable one."""
    route = aliases.routes.get(alias)
    return route.candidate if route is not None else aliases.values.get(alias)
