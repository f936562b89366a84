"""Processes that register and promote at once, stopped and killed between any two requests."""

import functools
import os
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from eagleray import storage
from eagleray.state import documents, sweep
from eagleray.state.aliases import Aliases, Event
from eagleray.state.models import Registry, Version
from eagleray.storage import blobs
from tests.contract import actors

NAME, CHAMPION = "spam", "champion"
FEW = settings(max_examples=30, stateful_step_count=40, report_multiple_bugs=False)


class Race(RuleBasedStateMachine):
    """Three processes; what anybody may see of the model is looked at after each of their steps.

    Their clocks jump: each action has a time of its own.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=actors.memory())
        self.real = storage.open(Path(self.folder.name).as_uri())
        self.actors = [actors.Actor(self.real) for _ in range(3)]
        self.actions = 0
        self.versions: list[Version] = []
        self.moves: list[Event] = []

    def teardown(self) -> None:
        for actor in self.actors:
            actor.kill()
        self.folder.cleanup()

    @rule(
        who=st.integers(0, 2),
        what=st.sampled_from(["register", "promote", "promote", "first", "back", "sweep"]),
        number=st.integers(1, 3),
        now=st.integers(10**18, 10**18 + 10),
        requests=st.integers(1, 9),
    )
    def go(self, who: int, what: str, number: int, now: int, requests: int) -> None:
        """A process does something, as far as so many requests go; then it sleeps."""
        actor = self.actors[who]
        if what == "sweep" and not actor.busy:
            sweep.sweep(self.real, timedelta(hours=1))
        elif not actor.busy:
            self.start(actor, what, number, now)
        while actor.busy and requests:
            requests -= 1
            self.step(actor, "ok")

    @rule(who=st.integers(0, 2), fate=st.sampled_from(["unreachable", "unanswered"]))
    def fail(self, who: int, fate: str) -> None:
        """A request never arrives, or takes place and is not answered: the action ends there."""
        if self.actors[who].busy:
            self.step(self.actors[who], fate)

    @rule(who=st.integers(0, 2))
    def crash(self, who: int) -> None:
        """Contents grow old while nobody is at work: an action is shorter than the grace period."""
        self.actors[who].kill()
        if not any(actor.busy for actor in self.actors):
            for path in Path(self.folder.name, blobs.PREFIX).glob("*"):
                os.utime(path, (0, 0))

    @invariant()
    def all_that_is_seen_fits_together(self) -> None:
        if not hasattr(self, "real"):
            return
        registry = Registry(self.real)
        versions, aliases = registry.versions(NAME), registry.aliases(NAME)
        assert versions[: len(self.versions)] == self.versions, "a version changed"
        assert [one.number for one in versions] == list(range(1, len(versions) + 1))
        winners = [one.manifest["winner"] for one in versions]
        assert len(set(winners)) == len(winners), "one winner was registered twice"
        for version in versions:
            assert registry.read(version, "weights"), "a version lacks a content"
        log = registry.events(NAME)
        registered = [one.number for one in log if one.action == "registered"]
        assert sorted(registered) == list(range(1, len(versions) + 1))
        moves = [one for one in log if one.alias == CHAMPION]
        assert moves[: len(self.moves)] == self.moves, "an event was lost, or came late"
        self.follow(moves, aliases, len(versions))
        self.versions, self.moves = versions, moves

    def follow(self, moves: list[Event], aliases: Aliases, count: int) -> None:
        """The log leads to where the alias points, step by step."""
        at = None
        for move in moves:
            assert move.previous == at, "two moves from one place"
            assert 1 <= move.number <= count, "a move to a version that is not there"
            at = move.number
        assert at == aliases.values.get(CHAMPION)
        assert len({one.why for one in moves}) == len(moves), "one action moved it twice"

    def start(self, actor: actors.Actor, what: str, number: int, now: int) -> None:
        self.actions += 1
        registry, why = Registry(actor.store, now=lambda: now), f"action {self.actions}"
        content, manifest = {"weights": bytes([number])}, {"winner": number}
        move = functools.partial(registry.promote, NAME, number, why=why)
        actions = {
            "register": lambda: registry.register(
                NAME, content, manifest, same=lambda other: other.manifest == manifest
            ),
            "promote": move,
            "first": functools.partial(move, expect=None),
            "back": lambda: registry.rollback(NAME, why=why),
        }
        actor.start(why, actions[what])

    def step(self, actor: actors.Actor, fate: str) -> None:
        """Whoever is told that it has moved the alias is in the log, and nobody who is refused."""
        actor.step(fate)
        self.all_that_is_seen_fits_together()
        if actor.busy:
            return
        moved = isinstance(actor.outcome, Aliases) and actor.outcome.last is not None
        told = {one.why for one in self.moves}
        if moved and actor.outcome.last.why == actor.ended:  # type: ignore[union-attr]
            assert actor.ended in told
        elif fate == "ok":
            assert actor.ended not in told


def test_processes_that_race_lose_no_update_and_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_READERS", 1)  # requests in one order
    run_state_machine_as_test(Race, settings=FEW)
