"""The controller of a rollout: it writes what this replica has counted, and decides under a lease.

Each replica has one; of all replicas, the holder of the lease reads what all have counted, and
changes the rollout (`serving.rollout` decides, `eagleray.state.rollouts` writes). If it dies,
another one goes on from the rollout's document.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable

from eagleray import errors
from eagleray.state import keys, leases
from eagleray.state.evidence import Evidence
from eagleray.state.rollouts import Rollout, Rollouts
from serving import rollout as decisions

log = logging.getLogger("ray.serve")

LOOK_S = 2.0
"""Time between two looks at a rollout."""
RELEASE_S = 2.0
"""Longest wait of a replica that ends for its lease to be free; else it expires."""
BY = "rollout"
"""Who moves aliases and routes, in the log."""
Counted = Callable[[], tuple[str, Evidence] | None]
"""The id of the rollout that a replica takes part in, and what it has counted."""


class Controller:
    """Takes part in the rollouts of an alias; `counted` gives None while there is none."""

    def __init__(
        self,
        rollouts: Rollouts,
        name: str,
        alias: str,
        counted: Counted,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rollouts, self._name, self._alias = rollouts, name, alias
        self._counted, self._clock = counted, clock
        self._replica = f"{socket.gethostname()}-{secrets.token_hex(6)}"
        self._written: tuple[str, Evidence] | None = None
        self._watcher: tuple[str, leases.Watcher] | None = None  # of a rollout
        self._lease: leases.Lease | None = None
        self._rollout: Rollout | None = None
        self._looked: float | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def leads(self) -> bool:
        """Whether this replica decides."""
        return self._lease is not None

    def start(self, every_s: float = LOOK_S) -> None:
        self._thread = threading.Thread(
            target=self._loop, args=(every_s,), name="rollout", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the looks, and free the lease, so that another replica decides at once."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(RELEASE_S)

    def look(self) -> None:
        """Write what was counted; decide if this replica holds the lease.

        Raises:
            StorageError: storage fails; the next look goes on.
        """
        counted = self._counted()
        if counted is None:
            self._leave()
            return
        rollout, evidence = counted
        if self._written != counted:
            self._rollouts.put_evidence(rollout, self._name, self._replica, evidence)
            self._written = counted
        if self._lead(rollout):
            try:
                self._decide(rollout)
            except errors.CorruptObjectError as cause:  # it must not stick where it is
                self._rollouts.drop(self._name, self._alias, why=str(cause), by=BY)

    def _decide(self, rollout: str) -> None:
        now = self._clock()
        passed_s = now - self._looked if self._looked is not None else 0.0
        known = self._rollout or self._rollouts.read(self._name, rollout)
        evidence = self._rollouts.evidence(known)
        before = len(known.decisions)

        def step(one: Rollout) -> Rollout:
            return decisions.step(one, evidence, passed_s)

        self._rollout = self._rollouts.change(known, step, by=BY)
        self._looked = now
        for made in self._rollout.decisions[before:]:
            log.info("%s: rollout %s %s: %s", self._name, rollout, made.action, made.why)

    def _lead(self, rollout: str) -> bool:
        """Hold the lease of the rollout, if no other replica does."""
        if self._watcher is None or self._watcher[0] != rollout:
            self._leave()
            key = keys.ROLLOUT_LEASE.format(name=self._name, id=rollout)
            self._watcher = rollout, leases.Watcher(self._rollouts.store, key, clock=self._clock)
        if self._lease is None:
            self._lease = self._watcher[1].acquire()
            return self.leads
        try:
            self._lease.beat()
        except errors.LeaseLostError:
            self._lease = self._rollout = self._looked = None
        return self.leads

    def _leave(self) -> None:
        lease, self._lease = self._lease, None
        self._watcher = self._rollout = self._looked = None
        if lease is not None:
            lease.release()

    def _loop(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            self._try(self.look)
        self._try(self._leave)

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except errors.StorageError as cause:
            log.warning("%s: the rollout waits for storage: %s", self._name, cause)
        except Exception:
            log.exception("%s: a look at the rollout failed", self._name)
