import asyncio
from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagleray import errors
from serving import admission


def test_no_more_comes_in_while_enough_rows_are_in_progress() -> None:
    capacity = admission.Capacity(most_rows=10)
    first, second, third = (admission.Reservation(capacity) for _ in range(3))
    first.decoded(9)
    second.decoded(10_000)
    for late in (capacity.check_rows, lambda: third.decoded(1)):
        with pytest.raises(errors.RequestError, match="in progress"):
            late()
    second.release()
    third.decoded(1)
    assert capacity.rows == 10


def test_bytes_are_held_until_they_are_decoded() -> None:
    capacity = admission.Capacity(most_bytes=100)
    first, second = admission.Reservation(capacity), admission.Reservation(capacity)
    first.add_bytes(60)
    with pytest.raises(errors.RequestError, match="in progress"):
        capacity.check_bytes(41)
    with pytest.raises(errors.RequestError, match="in progress"):
        second.add_bytes(41)
    first.decoded(1)
    second.add_bytes(100)
    assert (capacity.bytes, capacity.rows) == (100, 1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.booleans()), max_size=60))
def test_whatever_happens_bounds_hold_and_all_is_given_back(
    steps: list[tuple[int, int, bool]],
) -> None:
    capacity = admission.Capacity(most_rows=20, most_bytes=100)
    reservations = [admission.Reservation(capacity) for _ in range(4)]
    for which, count, decodes in steps:
        try:
            if decodes:
                reservations[which].decoded(count)
            else:
                reservations[which].add_bytes(count)
        except errors.RequestError:
            reservations[which].release()
        assert 0 <= capacity.bytes <= 100
        assert 0 <= capacity.rows < 20 + 40
    for reservation in reservations:
        reservation.release()
        reservation.release()
    assert (capacity.bytes, capacity.rows) == (0, 0)


async def within(timeout: admission.Timeout, work: Awaitable[object]) -> object:
    with timeout:
        return await work


def test_a_wait_that_lasts_too_long_ends() -> None:
    async def work() -> None:
        timeout = admission.Timeout(0.02)
        assert await within(timeout, asyncio.sleep(0, "in time")) == "in time"
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await within(timeout, asyncio.Event().wait())
        await asyncio.sleep(0)  # the task is not cancelled any more

    asyncio.run(asyncio.wait_for(work(), 20))
    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_wait_that_somebody_else_ends_is_cancelled_as_ever() -> None:
    async def work() -> None:
        waiting = asyncio.ensure_future(within(admission.Timeout(60), asyncio.Event().wait()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(asyncio.wait_for(work(), 20))
