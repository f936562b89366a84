"""Versions in a deployment of their own (`serving.large`), as the endpoint's replicas see them.

Requests are decoded and answered here; their rows are predicted there. A version is asked for as
long as it is needed: the first question starts a replica there, and each keeps its version loaded.
Nobody else starts or ends that deployment: without questions it has no replica (docs/adr/0039).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Callable, Set
from typing import Any, NamedTuple, Protocol

from eagleray import errors
from serving import protocol
from serving.predictor import Predictor, way_s
from serving.wire import Answers

log = logging.getLogger("ray.serve")

KEEP_S, RETRY_S = 5.0, 1.0
"""Between two questions for a version that is ready, and for one that is not."""
LATE_S = 3.0
"""Timeout of a health check; a version that exceeds it gets no requests until it answers."""
MOST_LOST = 3
"""Replicas that may end while they load a version; then it is refused."""


class State(NamedTuple):
    """What a replica says of a version; ready unless it is refused."""

    refused: str | None = None
    grown_mb: float = 0.0  # memory of that process since the load, without loads that followed


class Reply(NamedTuple):
    """Answers and the seconds that they took there; or why there are none."""

    answers: Answers = ()
    seconds: float = 0.0
    failed: str | None = None  # the version's fault
    busy: str | None = None  # not its fault


class Call(Protocol):
    """Calls a method of a replica of `serving.large.Large`; LostError if that replica ends."""

    async def __call__(self, method: str, *given: Any) -> Any: ...


class Batches:
    """Runs the rows of one version's requests in the other deployment.

    While no replica there is ready, requests are refused at once, since the stable version answers
    them. A version that is `alone`, the stable one itself, lets them wait for a replica instead.
    """

    is_quick = False

    def __init__(
        self, number: int, call: Call, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._number, self._call, self._clock = number, call, clock
        self.ready = self.alone = False
        self.refused: str | None = None
        self.grown_mb = 0.0
        self._lost = asyncio.Event()

    @property
    def failure(self) -> None:
        """None: a failure there is none of this replica."""

    async def submit(self, rows: protocol.Rows) -> Answers:
        """An answer per row.

        Raises:
            ServingError: the version fails; LostError if its process ended meanwhile.
            UnavailableError: no replica can answer now.
        """
        return await self._predict(rows, explain=False)

    async def explained(self, rows: protocol.Rows) -> Answers:
        """Answers with contributions by column; raises what `submit` raises."""
        return await self._predict(rows, explain=True)

    async def follow(self, start_s: float) -> None:
        """Ask for the version until cancelled, or until it is refused.

        It is refused if it says so, if no replica is ready for `start_s` seconds, or if several
        end while they load it; never while it is alone.
        """
        since, lost = self._clock(), 0
        while self.refused is None:
            limit_s = LATE_S if self.ready else max(0.0, since + start_s - self._clock())
            try:
                async with asyncio.timeout(None if self.alone else limit_s):
                    refused, self.grown_mb = await self._call("ready", self._number)
            except (errors.LostError, TimeoutError) as cause:
                if self.ready:
                    self.ready, since, lost = False, self._clock(), 0
                lost += isinstance(cause, errors.LostError)
                self.refused = None if self.alone else self._given_up(since, start_s, lost, cause)
                await asyncio.sleep(RETRY_S)
                continue
            self.ready, self.refused = refused is None, None if self.alone else refused
            since, lost = self._clock(), 0
            self._lost.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), KEEP_S)

    def _given_up(self, since: float, start_s: float, lost: int, cause: Exception) -> str | None:
        """Why the version is not waited for any more; None if it is."""
        if lost >= MOST_LOST:
            law = f"version {self._number} must be loaded by replicas of its own deployment"
            return f"{law}, but {lost} have ended meanwhile: {cause}"
        if self._clock() - since < start_s:
            return None
        law = f"a replica of the deployment of version {self._number} must be ready"
        return f"{law} within {start_s:g} s, but none is"

    async def _predict(self, rows: protocol.Rows, *, explain: bool) -> Answers:
        packed, began, again = protocol.pack(rows), time.perf_counter(), self.alone
        while True:
            if not (self.ready or self.alone):
                law = f"version {self._number} must have a replica that is ready, but has none"
                raise errors.UnavailableError(law)
            try:
                reply = Reply(
                    *await self._call("predict", self._number, packed, explain, self.alone)
                )
                break
            except errors.LostError:
                self._lost.set()
                if not again:
                    self.ready = self.alone
                    raise
                again = False  # a prediction may be repeated: another replica answers
        if reply.busy is not None:
            raise errors.UnavailableError(reply.busy)
        if reply.failed is not None:
            raise errors.ServingError(f"version {self._number}, in another process: {reply.failed}")
        way_s.set(time.perf_counter() - began - reply.seconds)
        return reply.answers


class _Asked:
    """A version that is asked for, with its predictor once there is one."""

    def __init__(self, batches: Batches, task: concurrent.futures.Future[None]) -> None:
        self.batches, self.task = batches, task
        self.predictor: Predictor | None = None


class Remote:
    """The versions that this replica needs from the other deployment.

    `outline` makes a predictor whose rows are run by batches. `start` names the event loop; all
    else is called from the thread that follows the alias.
    """

    def __init__(
        self,
        call: Call,
        outline: Callable[[int, Batches], Predictor],
        *,
        start_s: float,
    ) -> None:
        self._call, self._outline, self._start_s = call, outline, start_s
        self._asked: dict[int, _Asked] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Ask on the running event loop."""
        self._loop = asyncio.get_running_loop()

    def asked(self, number: int) -> bool:
        return number in self._asked

    def predictor(self, number: int) -> Predictor | None:
        """A version, asked for if need be; None until it is ready, or while it is lost.

        Raises:
            ServingError: it is refused.
            StorageError: its outline cannot be read.
        """
        one = self._asked.get(number)
        if one is None:
            one = self._asked[number] = self._ask(number)
        if one.batches.refused is not None:
            raise errors.ServingError(one.batches.refused)
        if not one.batches.ready:
            return None
        if one.predictor is None:
            one.predictor = self._outline(number, one.batches)
        return one.predictor

    def keep(self, numbers: Set[int]) -> None:
        """Ask for no other versions from now on."""
        for number in [one for one in self._asked if one not in numbers]:
            self._asked.pop(number).task.cancel()

    def stop(self) -> None:
        self.keep(frozenset())

    def _ask(self, number: int) -> _Asked:
        assert self._loop is not None
        log.info("version %s does not fit here: its own deployment is asked for it", number)
        batches = Batches(number, self._call)
        following = batches.follow(self._start_s)
        return _Asked(batches, asyncio.run_coroutine_threadsafe(following, self._loop))
