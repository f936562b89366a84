"""Rollouts: a candidate takes over the traffic of an alias in steps, by evidence.

A rollout is one document, which is changed by compare-and-swap. Replicas follow the route in the
aliases document alone; each writes what it has counted to a document of its own. Whoever reads a
rollout makes the route what the rollout says, so a process that dies between two writes leaves
nothing half done.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Literal

import pydantic

from eagleray import errors
from eagleray.state import aliases, documents, keys
from eagleray.state.aliases import CHAMPION, Aliases, Route
from eagleray.state.evidence import Evidence
from eagleray.state.models import Registry
from eagleray.storage import Storage

Mode = Literal["canary", "shadow", "split"]
Status = Literal["running", "paused", "promoted", "stopped", "ended"]
OPEN: frozenset[Status] = frozenset({"running", "paused"})
LABEL, ERRORS, LATENCY, OUTCOME = "label", "errors", "latency", "outcome:"
"""Measures of a split; the last is followed by the outcome whose share is to be large."""
_SWAPS = 100
_MOST_DECISIONS = 200


class Plan(pydantic.BaseModel, frozen=True, extra="allow"):
    """How a rollout proceeds; docs/rollout.md says more about each field."""

    mode: Mode = "canary"
    steps: tuple[float, ...] = (0.05, 0.25, 0.5)
    """Shares of the requests that the candidate answers, one after another; then all of them.
    A shadow or a split has one."""
    bake_s: float = pydantic.Field(60.0, ge=0)  # least seconds of a step
    least: int = pydantic.Field(200, ge=1)  # requests of the candidate in a step, at least
    deadline_s: float = pydantic.Field(3600.0, gt=0)  # then it is stopped, wherever it is
    sticky: str | None = None  # see `aliases.Route`
    p95_ms: float | None = pydantic.Field(None, gt=0)  # objective; None: the champion's p95
    more_errors: float = pydantic.Field(0.01, ge=0, lt=1)  # allowed, as shares of the requests
    more_slow: float = pydantic.Field(0.1, ge=0, lt=1)  # allowed share above the p95 or objective
    more_slower: float = pydantic.Field(0.25, ge=0, lt=1)  # allowed share above the median
    apart: float = pydantic.Field(0.15, ge=0, lt=1)  # allowed difference of a prediction's share
    more_wrong: float = pydantic.Field(0.02, ge=0, lt=1)  # allowed, as shares of the labels
    more_memory_mb: float = pydantic.Field(1024.0, gt=0)  # that a replica may grow by, in MiB
    false_stops: float = pydantic.Field(0.01, gt=0, lt=1)
    """Largest probability that a candidate within these limits is stopped, ever."""
    measure: str | None = None  # what names the winner of a split: one of the measures above
    false_winner: float = pydantic.Field(0.05, gt=0, lt=1)
    """Largest probability that a winner is named if the versions are equal, ever."""
    promote_winner: bool = False  # whether the alias moves to the candidate if it wins

    @pydantic.field_validator("steps")
    @classmethod
    def _rising(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        rising = all(low < high for low, high in itertools.pairwise(steps))
        if not steps or not rising or not 0 < steps[0] <= steps[-1] <= 1:
            raise ValueError(f"must be rising shares above 0 and at most 1, but got {steps}")
        return steps

    @pydantic.field_validator("measure")
    @classmethod
    def _known(cls, measure: str | None, info: pydantic.ValidationInfo) -> str | None:
        if measure is None:
            return None
        if info.data.get("mode") != "split":
            raise ValueError(f"is for a split alone, but got {info.data.get('mode')}")
        named = measure.startswith(OUTCOME) and measure != OUTCOME
        if not named and measure not in (LABEL, ERRORS, LATENCY):
            law = f"must be {LABEL}, {ERRORS}, {LATENCY} or {OUTCOME}CLASS"
            raise ValueError(f"{law}, but got {measure!r}")
        return measure

    @pydantic.field_validator("promote_winner")
    @classmethod
    def _judged(cls, promote: bool, info: pydantic.ValidationInfo) -> bool:
        if promote and not info.data.get("measure"):
            raise ValueError("needs a measure that names the winner")
        return promote


class Decision(pydantic.BaseModel, frozen=True, extra="allow"):
    """One decision, with its reason in numbers."""

    at: str  # when, in ISO 8601
    action: str  # `started`, `advanced`, `promoted`, `stopped`, `ended`, `paused` or `resumed`
    share: float
    why: str


class Rollout(documents.Replaceable, frozen=True):
    """A rollout: its plan, and how far it is."""

    KIND = "rollout"

    id: str
    model: str
    alias: str
    stable: int
    candidate: int
    by: str
    plan: Plan
    status: Status = "running"
    step: int = 0  # index in `plan.steps`
    age_s: float = 0.0  # since it began, as controllers have measured it
    baked_s: float = 0.0  # since this step began
    seen: Evidence = Evidence()  # all that was counted when it was last decided on
    entered: int = 0  # of that, the candidate's requests when this step began
    logs: dict[str, float] = {}  # of the e-values against the candidate, by what was tested
    wins: dict[str, float] = {}  # of a split: logs of the e-values for either version
    winner: int | None = None  # of a split: the better version, once it is named
    decisions: list[Decision] = []

    @property
    def open(self) -> bool:
        return self.status in OPEN

    @property
    def share(self) -> float:
        return self.plan.steps[self.step]

    @property
    def headline(self) -> str:
        """One sentence: which versions, how, and how far it is."""
        share = f" at {self.share:.0%}" if self.open else ""
        beside = f"version {self.candidate} beside {self.stable}, the {self.alias}"
        return f"{self.model}: {beside}: {self.plan.mode}, {self.status}{share}"

    @property
    def route(self) -> Route | None:
        """The route of its alias; None if it has ended."""
        if not self.open:
            return None
        return Route(
            rollout=self.id,
            candidate=self.candidate,
            share=self.share,
            shadow=self.plan.mode == "shadow",
            sticky=self.plan.sticky,
        )

    def decided(self, action: str, why: str, **changes: object) -> Rollout:
        """The rollout after a decision."""
        after = self.model_copy(update=changes)
        made = Decision(at=aliases.iso(time.time_ns()), action=action, share=after.share, why=why)
        return after.model_copy(update={"decisions": [*self.decisions, made][-_MOST_DECISIONS:]})


class Rollouts:
    """The rollouts of one storage."""

    def __init__(self, store: Storage) -> None:
        self.store, self._registry = store, Registry(store)

    def start(
        self,
        name: str,
        number: int,
        *,
        plan: Plan,
        alias: str = CHAMPION,
        why: str = "",
        by: str | None = None,
    ) -> Rollout:
        """Begin a rollout of a version; replicas follow within seconds.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: the alias points nowhere, to this version, or is in a rollout.
        """
        self._registry.version(name, number)
        self._settle(name, alias)
        now = self._registry.aliases(name)
        aliases.check_unrouted(now, alias, name)
        stable = now.values.get(alias)
        if stable is None or stable == number:
            where = "points nowhere" if stable is None else f"points to version {number} already"
            law = f"model {name}: {alias} must point to another version"
            raise errors.ConflictError(f"{law}, but {where}")
        made = Rollout(
            id=f"{time.time_ns():016x}{secrets.token_hex(5)}",
            model=name,
            alias=alias,
            stable=stable,
            candidate=number,
            by=by or aliases.user(),
            plan=plan,
        ).decided("started", why)
        made = made.replace(self.store, _key(made))

        def begin(now: Aliases) -> Aliases:
            aliases.check_unrouted(now, alias, name)
            if now.values.get(alias) != stable:
                raise errors.ConflictError(f"model {name}: somebody else moved {alias} meanwhile")
            return aliases.routed(now, alias, made.route)

        self._registry.route(name, alias, begin, action="rollout-started", why=_reason(made), by=by)
        return made

    def read(self, name: str, rollout: str) -> Rollout:
        """The rollout of an id; NotFoundError if there is none."""
        key = keys.ROLLOUT.format(name=name, id=rollout)
        try:
            return Rollout.tagged(*self.store.get_tagged(key), documents.where(self.store, key))
        except errors.ObjectNotFoundError as cause:
            law = f"model {name}: there must be a rollout {rollout}"
            raise errors.NotFoundError(f"{law}, but there is none") from cause

    def current(self, name: str, alias: str = CHAMPION) -> Rollout:
        """The rollout that an alias is in, else the last one; NotFoundError without any."""
        route = self._registry.aliases(name).routes.get(alias)
        if route is not None:
            return self.read(name, route.rollout)
        for found in self._newest(name):
            if found.alias == alias and not found.open:  # else it never got a route
                return found
        raise errors.NotFoundError(f"model {name}: {alias} must have had a rollout, but had none")

    def latest(self, name: str, alias: str = CHAMPION, *, candidate: int) -> Rollout | None:
        """The last rollout of a version, if it had one."""
        route = self._registry.aliases(name).routes.get(alias)
        for found in self._newest(name):
            routed = not found.open or (route is not None and route.rollout == found.id)
            if (found.alias, found.candidate) == (alias, candidate) and routed:
                return found
        return None

    def change(
        self, rollout: Rollout, change: Callable[[Rollout], Rollout], *, by: str | None = None
    ) -> Rollout:
        """Change a rollout, and its route accordingly; `change` may be repeated, or raise."""
        for _ in range(_SWAPS):
            after = change(rollout)
            if after is not rollout:
                try:
                    after = after.replace(self.store, _key(rollout))
                except documents.MISSED:
                    rollout = self.read(rollout.model, rollout.id)
                    continue
            self.apply(after, by=by)
            return after
        law = f"model {rollout.model}: rollout {rollout.id}"
        raise errors.ConflictError(f"{law} changed during {_SWAPS} attempts")

    def apply(self, rollout: Rollout, *, by: str | None = None) -> None:
        """Make the route of the alias what the rollout says; again, nothing happens."""
        alias, last = rollout.alias, rollout.decisions[-1]

        def follow(now: Aliases) -> Aliases:
            held = now.routes.get(alias)
            if held is None or held.rollout != rollout.id:
                return now  # it has ended, and perhaps another one has begun
            after = aliases.routed(now, alias, rollout.route)
            if rollout.status == "promoted":
                return aliases.promoted(after, alias, rollout.candidate)
            return after

        promoted = rollout.status == "promoted"
        action = "promoted" if promoted else f"rollout-{last.action}"
        self._registry.route(
            rollout.model, alias, follow, action=action, why=_reason(rollout), by=by
        )

    def pause(self, rollout: Rollout, *, why: str = "") -> Rollout:
        """Hold a rollout at its step; evidence against the candidate still stops it."""
        return self.change(rollout, _turn("paused", "paused", why))

    def resume(self, rollout: Rollout, *, why: str = "") -> Rollout:
        """Let a rollout go on that was paused."""
        return self.change(rollout, _turn("running", "resumed", why))

    def abort(self, rollout: Rollout, *, why: str = "") -> Rollout:
        """Give all traffic back to the version that the alias points to."""

        def end(now: Rollout) -> Rollout:
            return _checked(now).decided("stopped", why or "aborted by hand", status="stopped")

        return self.change(rollout, end)

    def put_evidence(self, rollout: str, name: str, replica: str, evidence: Evidence) -> None:
        key = keys.EVIDENCE_OF.format(name=name, id=rollout, replica=replica)
        self.store.put(key, evidence.encode())

    def evidence(self, rollout: Rollout) -> Evidence:
        """What all replicas have counted, also those that have ended."""
        prefix = keys.EVIDENCE.format(name=rollout.model, id=rollout.id)
        listed = [entry.key for entry in self.store.list(prefix)]
        return functools.reduce(
            Evidence.plus, documents.read_all(self._evidence, listed), Evidence()
        )

    def drop(self, name: str, alias: str, *, why: str, by: str | None = None) -> None:
        """Give all traffic back to the version of an alias whose rollout cannot be read."""
        self._registry.route(
            name,
            alias,
            lambda now: aliases.routed(now, alias, None),
            action="rollout-stopped",
            why=why,
            by=by,
        )

    def _settle(self, name: str, alias: str) -> None:
        """Apply the end of a rollout that was decided, and perhaps not applied before a crash."""
        route = self._registry.aliases(name).routes.get(alias)
        if route is not None:
            with contextlib.suppress(errors.NotFoundError, errors.CorruptObjectError):
                held = self.read(name, route.rollout)
                if not held.open:
                    self.apply(held)

    def _newest(self, name: str) -> Iterator[Rollout]:
        """All rollouts of a model, the newest first."""
        prefix = keys.ROLLOUTS.format(name=name)
        ids = {key.key.removeprefix(prefix).split("/")[0] for key in self.store.list(prefix)}
        for one in sorted(ids, reverse=True):
            yield self.read(name, one)

    def _evidence(self, key: str) -> Evidence:
        """A replica's evidence; none if its document is damaged, which must not end a rollout."""
        try:
            return Evidence.read(self.store, key)
        except (errors.CorruptObjectError, errors.NewerFormatError):
            return Evidence()


def _turn(after: Status, action: str, why: str) -> Callable[[Rollout], Rollout]:
    def turn(now: Rollout) -> Rollout:
        if _checked(now).status == after:
            return now
        return now.decided(action, why, status=after)

    return turn


def _checked(rollout: Rollout) -> Rollout:
    """The rollout; ConflictError if it has ended."""
    if not rollout.open:
        raise errors.ConflictError(
            f"model {rollout.model}: the rollout of version {rollout.candidate} must be under way,"
            f" but it was {rollout.status}: {rollout.decisions[-1].why}"
        )
    return rollout


def _reason(rollout: Rollout) -> str:
    last = rollout.decisions[-1]
    text = f"rollout at {rollout.share:.0%}" if rollout.open else "rollout"
    return f"{text}: {last.why}" if last.why else text


def _key(rollout: Rollout) -> str:
    return keys.ROLLOUT.format(name=rollout.model, id=rollout.id)
