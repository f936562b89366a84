from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import admission


def test_no_more_comes_in_while_enough_rows_are_in_progress() -> None:
    room = admission.Admission(most_rows=10)
    first, second, third = (admission.Ticket(room) for _ in range(3))
    first.decoded(9)
    second.decoded(10_000)
    for late in (room.check_rows, third.check_rows, lambda: third.decoded(1)):
        with pytest.raises(admission.FullError):
            late()
    second.close()
    third.decoded(1)
    assert room.rows == 10


def test_bytes_are_held_until_they_are_decoded() -> None:
    room = admission.Admission(most_bytes=100)
    first, second = admission.Ticket(room), admission.Ticket(room)
    first.read(60)
    with pytest.raises(admission.FullError):
        room.check_bytes(41)
    with pytest.raises(admission.FullError):
        second.read(41)
    first.decoded(1)
    second.read(100)
    assert (room.bytes, room.rows) == (100, 1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.booleans()), max_size=60))
def test_whatever_happens_bounds_hold_and_all_is_given_back(
    steps: list[tuple[int, int, bool]],
) -> None:
    room = admission.Admission(most_rows=20, most_bytes=100)
    tickets = [admission.Ticket(room) for _ in range(4)]
    for which, count, decodes in steps:
        try:
            if decodes:
                tickets[which].decoded(count)
            else:
                tickets[which].read(count)
        except admission.FullError:
            tickets[which].close()
        assert 0 <= room.bytes <= 100
        assert 0 <= room.rows < 20 + 40
    for ticket in tickets:
        ticket.close()
        ticket.close()
    assert (room.bytes, room.rows) == (0, 0)


def test_a_wait_that_lasts_too_long_ends() -> None:
    async def work() -> None:
        deadline = admission.Deadline(0.02)
        assert await deadline.within(asyncio.sleep(0, "in time")) == "in time"
        for _ in range(2):
            with pytest.raises(admission.LateError):
                await deadline.within(asyncio.Event().wait())
        await asyncio.sleep(0)  # the task is not cancelled any more

    asyncio.run(asyncio.wait_for(work(), 20))
    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_wait_that_somebody_else_ends_is_cancelled_as_ever() -> None:
    async def work() -> None:
        deadline = admission.Deadline(60)
        waiting = asyncio.ensure_future(deadline.within(asyncio.Event().wait()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(asyncio.wait_for(work(), 20))
