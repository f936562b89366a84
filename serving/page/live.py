"""What `/live` answers: the traffic of a node, and the rollout that its model is in.

A replica cannot count what others do, but the files of its node's replicas are in one folder
(`serving.metrics`): counters are those of the node, which is named, and the page adds up the nodes
that have answered it. The rollout is read from storage, where all replicas write their evidence,
only while somebody looks.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import time
from collections.abc import Callable
from typing import Any

from eagleray import errors
from eagleray.state.rollouts import Rollout, Rollouts
from serving import metrics, rollout

READ_S = 2.0
"""Seconds for which what was read of storage is shown to everybody who looks."""
COUNT_S = 1.0
"""The same for counters."""
WAIT_S = 1.0
"""Longest time for which an answer waits for storage."""


class Live:
    """The values of this moment; without `follow` nothing is known of rollouts."""

    def __init__(
        self, observer: metrics.Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics, self._clock = observer, clock
        node = f"{platform.node()} {observer.folder}".encode()
        self._node = hashlib.blake2b(node, digest_size=6).hexdigest()
        self._traffic: tuple[float, metrics.Traffic] | None = None
        self._find: Callable[[], Rollout | None] = lambda: None
        self._found: Rollout | None = None
        self._asked = self._answered = -READ_S  # when storage was asked, and had answered
        self._works = True
        self._reading: asyncio.Task[None] | None = None

    def follow(self, rollouts: Rollouts, name: str, alias: str) -> None:
        """Show the rollouts of an alias."""

        def find() -> Rollout | None:
            try:
                return rollouts.current(name, alias)
            except errors.NotFoundError:
                return None

        self._find, self._answered = find, -float("inf")

    async def look(self) -> dict[str, Any]:
        """The values; never waits long for storage."""
        await self._refresh()
        at, traffic = await self._counted()
        age_s = self._clock() - self._answered
        known = age_s < float("inf")
        return {
            "node": self._node,
            "traffic": {"at": at, **traffic._asdict()},
            "storage": self._works,
            "rollout": rollout.described(self._found) if self._found else None,
            "rollout_s": round(age_s, 1) if known else None,
        }

    async def _counted(self) -> tuple[float, metrics.Traffic]:
        now = self._clock()
        if self._traffic is None or now - self._traffic[0] >= COUNT_S:
            self._traffic = now, await asyncio.to_thread(self._metrics.traffic)
        return self._traffic

    async def _refresh(self) -> None:
        if self._reading is None and self._clock() - self._asked >= READ_S:
            self._asked = self._clock()
            self._reading = asyncio.create_task(self._read())
        if self._reading is not None:
            done, _ = await asyncio.wait({self._reading}, timeout=WAIT_S)
            self._works = self._works and bool(done)

    async def _read(self) -> None:
        try:
            self._found = await asyncio.to_thread(self._find)
            self._works, self._answered = True, self._clock()
        except errors.StorageError:
            self._works = False
        finally:
            self._reading = None
