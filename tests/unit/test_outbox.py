"""Writes in the background: in order, bounded, patient, and never lost in silence."""

import threading
from collections.abc import Callable

import pytest

from eagleray import errors
from ray_jobs import outbox


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSE_S", 0.01)
    monkeypatch.setattr(outbox, "BOUND", 2)


def away(times: int, then: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """A write that storage does not answer so many times."""
    left = iter(range(times))

    def write() -> None:
        for _ in left:
            raise errors.StorageUnavailableError("away")
        then()

    return write


def test_writes_wait_for_storage_and_keep_their_order() -> None:
    box, done = outbox.Outbox(), list[int]()
    for number in range(6):
        box.put(away(3, lambda number=number: done.append(number)))  # type: ignore[misc]
    box.close()
    assert done == [0, 1, 2, 3, 4, 5]


def test_who_writes_waits_once_as_many_writes_wait_as_may() -> None:
    box, answers, put = outbox.Outbox(), threading.Event(), list[int]()

    def fill() -> None:
        for number in range(5):
            box.put(lambda: answers.wait(30) and None)
            put.append(number)

    filling = threading.Thread(target=fill)
    filling.start()
    filling.join(0.5)
    assert len(put) == 3  # one is under way, two wait
    answers.set()
    filling.join()
    box.close()
    assert len(put) == 5


def test_a_storage_that_refuses_or_stays_away_is_an_error_of_the_next_call() -> None:
    def refuse() -> None:
        raise errors.AccessDeniedError("refused")

    refused, left = outbox.Outbox(), list[int]()
    refused.put(refuse)
    with pytest.raises(errors.AccessDeniedError):
        refused.close()
    silent = outbox.Outbox(patience_s=0.05)
    silent.put(away(10**6))
    silent.put(lambda: left.append(1))
    with pytest.raises(errors.StorageUnavailableError):
        silent.close()
    assert left == []


def test_who_is_in_a_hurry_gives_up_at_the_next_failure() -> None:
    box = outbox.Outbox()
    box.put(away(10**6))
    box.hurry()
    with pytest.raises(errors.StorageUnavailableError):
        box.close()
