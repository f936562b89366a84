"""Drivers that race for a lease, stopped, killed and misled between any two requests to storage."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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

from eagleray import errors, storage
from eagleray.state import documents, guarded, leases
from tests.contract import actors

KEY, PREFIX = "search/lease.json", "search/trials/"
DOCUMENTS = ("search/trials/1.json", "search/trials/2.json")
Values = dict[str, int]
FEW = settings(max_examples=50, stateful_step_count=40, report_multiple_bugs=False)


class Driver(actors.Actor):
    def __init__(self, real: storage.Storage) -> None:
        super().__init__(real)
        self.now = 0.0
        self.watcher = watcher(self.store, lambda: self.now)
        self.lease: leases.Lease | None = None
        self.writer: guarded.Writer | None = None
        self.adopted = False


class Race(RuleBasedStateMachine):
    """Three drivers of one search; what anybody may see of it is looked at after each request."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=actors.memory())
        self.real = storage.open(Path(self.folder.name).as_uri())
        self.drivers = [Driver(self.real) for _ in range(3)]
        self.numbers = iter(range(1, 10**6))
        self.written: Values = {}
        self.doomed: set[Driver] = set()
        self.given: set[int] = set()
        self.effective, self.damaged = 0, False

    def teardown(self) -> None:
        for driver in self.drivers:
            driver.kill()
        self.somebody_can_always_take_over()
        self.folder.cleanup()

    @rule(
        who=st.integers(0, 2),
        what=st.sampled_from([*DOCUMENTS, *DOCUMENTS, "beat", "release"]),
        late=st.booleans(),
        requests=st.integers(1, 9),
    )
    def go(self, who: int, what: str, late: bool, requests: int) -> None:
        """A driver does something, as far as so many requests go; then it sleeps."""
        driver = self.drivers[who]
        if driver.busy:
            self.step(driver, "ok", requests)
        elif driver.lease is None:
            driver.now += leases.TTL_S * late
            driver.start("acquire", driver.watcher.acquire)
            self.step(driver, "ok", requests)
        else:
            self.write(driver, what)
            self.step(driver, "ok", requests)

    @rule(who=st.integers(0, 2), fate=st.sampled_from(["unreachable", "unanswered"]))
    def fail(self, who: int, fate: str) -> None:
        self.step(self.drivers[who], fate, 1)

    @rule(who=st.integers(0, 2))
    def crash(self, who: int) -> None:
        self.drivers[who].kill()
        self.drivers[who] = Driver(self.real)

    @rule(size=st.integers(0, 40))
    def halve(self, size: int) -> None:
        with contextlib.suppress(errors.ObjectNotFoundError):
            self.real.put(KEY, self.real.get(KEY)[:size])
            self.damaged = True

    @invariant()
    def what_was_written_stays(self) -> None:
        if hasattr(self, "real"):
            seen = self.view()
            assert all(seen.get(key, 0) >= number for key, number in self.written.items())

    def write(self, driver: Driver, what: str) -> None:
        writer, lease = driver.writer, driver.lease
        assert writer is not None
        assert lease is not None
        if what in ("beat", "release"):
            driver.start(what, getattr(lease, what))
            return
        number = next(self.numbers)
        if self.is_stale(driver):
            self.doomed.add(driver)
        driver.start(f"put {what} {number}", lambda: writer.put(what, {"value": number}))

    def step(self, driver: Driver, fate: str, requests: int) -> None:
        while driver.busy and requests:
            requests -= 1
            before, stale, adopting = self.view(), self.is_stale(driver), driver.busy == "adopt"
            driver.step(fate)
            after = self.view()
            if stale:
                assert after == before, "a stale holder's write is seen"
            if adopting:
                kept = {key: value for key, value in before.items() if key in after}
                assert after == kept, "adopting changes a document"
            self.settle(driver)

    def settle(self, driver: Driver) -> None:
        """Take note of how an operation has ended; who has taken the lease adopts."""
        if driver.busy:
            return
        name, outcome = driver.ended, driver.outcome
        if isinstance(outcome, errors.LeaseLostError):
            driver.lease, driver.writer, driver.adopted = None, None, False
        elif isinstance(outcome, leases.Lease):
            assert outcome.fence > self.effective, "a fence is no higher than one before"
            assert outcome.fence not in self.given, "a fence is given twice"
            self.given.add(outcome.fence)
            driver.lease = outcome
            driver.writer = guarded.Writer(driver.store, outcome)
        elif name == "adopt" and outcome is None:
            driver.adopted, self.damaged = True, False
            self.effective = max(self.effective, driver.lease.fence)  # type: ignore[union-attr]
        elif name.startswith("put") and outcome is None:
            assert driver not in self.doomed, "a stale holder is told that it has written"
            _, key, number = name.split()
            self.written[key] = max(self.written.get(key, 0), int(number))
        self.doomed.discard(driver)
        if driver.writer is not None and not driver.adopted:
            writer = driver.writer
            driver.start("adopt", lambda: writer.adopt([PREFIX]))

    def is_stale(self, driver: Driver) -> bool:
        """Whether another has taken over and adopted; a damaged lease tells nobody so."""
        known = driver.lease is not None and not self.damaged
        return known and driver.lease.fence < self.effective  # type: ignore[union-attr]

    def view(self) -> Values:
        found = guarded.read(self.real, KEY, DOCUMENTS)
        return {key: fields["value"] for key, fields in found.items()}

    def somebody_can_always_take_over(self) -> None:
        before = self.view()
        hold(self.real)
        after = self.view()
        assert after == {key: value for key, value in before.items() if key in after}


def watcher(store: storage.Storage, clock: Callable[[], float]) -> leases.Watcher:
    return leases.Watcher(store, KEY, clock=clock)


def test_drivers_that_race_never_mix_what_they_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_READERS", 1)  # requests in one order
    run_state_machine_as_test(Race, settings=FEW)


def hold(store: storage.Storage) -> tuple[leases.Lease, guarded.Writer]:
    """Take the lease from whoever has it, and adopt what is there."""
    times = iter([0.0, 0.0, leases.TTL_S, leases.TTL_S])
    heir = watcher(store, lambda: next(times))
    lease = heir.acquire() or heir.acquire()
    assert lease is not None
    writer = guarded.Writer(store, lease)
    writer.adopt([PREFIX])
    return lease, writer


def values(store: storage.Storage) -> list[int]:
    return [fields["value"] for fields in guarded.read(store, KEY, DOCUMENTS).values()]


def test_of_many_who_want_a_lease_one_gets_it(store: storage.Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: watcher(store, lambda: 0.0).acquire(), range(8)))
    assert len([lease for lease in taken if lease is not None]) == 1


def test_a_holder_that_shows_signs_of_life_keeps_its_lease(store: storage.Storage) -> None:
    now = [0.0]
    lease, other = hold(store)[0], watcher(store, lambda: now[0])
    for _ in range(3):
        assert other.acquire() is None
        now[0] += leases.TTL_S
        lease.beat()
    assert other.acquire() is None
    now[0] += leases.TTL_S
    heir = other.acquire()
    assert heir is not None
    assert heir.fence == lease.fence + 1
    with pytest.raises(errors.LeaseLostError):
        lease.beat()


@pytest.mark.parametrize("skew_s", [-3600.0, 3600.0])
def test_a_watcher_whose_clock_is_an_hour_off_takes_over_no_sooner_and_no_later(
    store: storage.Storage, skew_s: float
) -> None:
    lease, now = hold(store)[0], [skew_s]
    other = watcher(store, lambda: now[0])
    assert other.acquire() is None
    now[0] += leases.TTL_S
    lease.beat()
    assert other.acquire() is None
    now[0] += leases.TTL_S - 1
    assert other.acquire() is None
    now[0] += 1
    assert other.acquire() is not None


def test_a_lease_that_was_left_is_free_at_once(store: storage.Storage) -> None:
    lease, writer = hold(store)
    writer.put(DOCUMENTS[0], {"value": 1})
    lease.release()
    assert watcher(store, lambda: 0.0).acquire() is not None
    with pytest.raises(errors.LeaseLostError):
        writer.put(DOCUMENTS[0], {"value": 2})
    assert values(store) == [1]


def test_who_slept_through_a_lease_is_refused_and_not_seen(store: storage.Storage) -> None:
    sleepers = []
    for number in range(3):
        sleepers.append(hold(store)[1])
        sleepers[-1].put(DOCUMENTS[0], {"value": number, "unknown": "kept"})
    with pytest.raises(errors.LeaseLostError):
        sleepers[0].put(DOCUMENTS[0], {"value": 10})
    with pytest.raises(errors.LeaseLostError):
        sleepers[1].put(DOCUMENTS[1], {"value": 11})
    assert values(store) == [2]
    sleepers[2].put(DOCUMENTS[1], {"value": 12})
    assert values(store) == [2, 12]
    sleepers[2].put(DOCUMENTS[0], {"value": 3})
    assert guarded.read(store, KEY, DOCUMENTS)[DOCUMENTS[0]] == {"value": 3, "unknown": "kept"}
    hold(store)[1].put(DOCUMENTS[0], {"value": 4})
    assert guarded.read(store, KEY, DOCUMENTS)[DOCUMENTS[0]] == {"value": 4, "unknown": "kept"}


def test_who_writes_over_what_is_not_seen_finds_out_as_well(store: storage.Storage) -> None:
    _, sleeper = hold(store)
    store.put(DOCUMENTS[0], b'{"value": 1, "fence": 0}')  # of a holder before, which came late
    times = iter([0.0, 0.0, leases.TTL_S, leases.TTL_S])
    heir = watcher(store, lambda: next(times))
    assert heir.acquire() or heir.acquire()
    with pytest.raises(errors.LeaseLostError):
        sleeper.put(DOCUMENTS[0], {"value": 2})


def test_what_came_late_is_never_seen_whoever_takes_over(store: storage.Storage) -> None:
    hold(store)
    store.put(DOCUMENTS[0], b'{"value": 1, "fence": 0}')
    _, heir = hold(store)
    assert values(store) == []
    heir.put(DOCUMENTS[0], {"value": 2})
    assert values(store) == [2]


@pytest.mark.parametrize(
    "damaged", [b"", b'{"kind": "lea', b"[]", b'{"fence": "1"}', b'{"kind": "a"}']
)
def test_a_damaged_lease_is_taken_over_once_it_stays_so(
    store: storage.Storage, damaged: bytes
) -> None:
    lease, writer = hold(store)
    writer.put(DOCUMENTS[0], {"value": 1})
    store.put(KEY, damaged)
    assert watcher(store, lambda: 0.0).acquire() is None
    assert hold(store)[0].fence > lease.fence
    assert values(store) == [1]
    with pytest.raises(errors.LeaseLostError):
        writer.put(DOCUMENTS[0], {"value": 2})


def test_a_lease_of_a_newer_release_is_left_alone_and_its_fields_are_kept(
    store: storage.Storage,
) -> None:
    store.put(KEY, b'{"kind": "lease", "format": 1, "holder": null, "fence": 4, "region": "eu"}')
    lease, _ = hold(store)
    lease.release()
    kept = json.loads(store.get(KEY))
    assert (kept["region"], kept["fence"], kept["sealed"], kept["holder"]) == ("eu", 5, 5, None)
    store.put(KEY, json.dumps({**kept, "format": 2}).encode())
    with pytest.raises(errors.NewerFormatError, match="of format 1 or older, but got 2"):
        watcher(store, lambda: 0.0).acquire()
