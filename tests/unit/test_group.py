"""The mailbox between a trial and its group of workers, in one process."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from ray_jobs import group

ONE, TWO = {"members": [1]}, {"members": [2]}
DONE = {"members": [], "done": True}


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 10))


async def started(called: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(called)
    await asyncio.sleep(0)
    return task


def test_a_step_goes_to_the_leading_worker_and_its_result_comes_back() -> None:
    async def story() -> None:
        mailbox = group.Mailbox()
        asked = await started(mailbox.step(ONE))
        taken = await mailbox.next(0, None)
        assert taken == (1, ONE)
        worker = await started(mailbox.next(1, DONE))
        assert await asked == DONE
        again = await started(mailbox.step(TWO))
        assert await worker == (2, TWO)
        again.cancel()

    run(story())


def test_a_step_that_a_group_did_not_end_is_given_to_the_next_group() -> None:
    async def story() -> None:
        mailbox = group.Mailbox()
        asked = await started(mailbox.step(ONE))
        assert await mailbox.next(0, None) == (1, ONE)
        assert await mailbox.next(0, None) == (1, ONE)
        worker = await started(mailbox.next(1, DONE))
        assert await asked == DONE
        worker.cancel()

    run(story())


def test_what_ended_a_group_is_forgotten_when_the_next_one_begins() -> None:
    async def story() -> None:
        mailbox = group.Mailbox()
        asked = await started(mailbox.step(ONE))
        await mailbox.next(0, None)
        await mailbox.fail({"failure": "a worker of a group that is resized"})
        assert await mailbox.next(0, None) == (1, ONE)
        assert await mailbox.failure() is None
        asked.cancel()

    run(story())


def test_the_result_of_a_step_that_the_trial_has_left_is_not_taken_for_the_next_one() -> None:
    async def story() -> None:
        mailbox = group.Mailbox()
        left = await started(mailbox.step(ONE))
        assert await mailbox.next(0, None) == (1, ONE)
        asked = await started(mailbox.step(TWO))
        assert await left is None
        assert await mailbox.next(1, DONE) == (2, TWO)
        assert not asked.done()
        asked.cancel()

    run(story())


def test_a_group_ends_when_it_is_told_to_or_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        mailbox = group.Mailbox()
        worker = await started(mailbox.next(0, None))
        await mailbox.end()
        assert await worker is None
        monkeypatch.setattr(group, "IDLE_S", 0.01)
        assert await group.Mailbox().next(0, None) is None

    run(story())


def test_the_first_failure_of_a_group_counts() -> None:
    async def story() -> None:
        mailbox = group.Mailbox()
        assert await mailbox.failure() is None
        await mailbox.fail(ONE)
        await mailbox.fail(TWO)
        assert await mailbox.failure() == ONE

    run(story())
