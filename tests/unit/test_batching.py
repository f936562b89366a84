import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eagleray import errors
from serving import batching


class Doubler:
    """Doubles numbers, and remembers batches and threads; each batch works and waits."""

    def __init__(self, slow_s: float = 0.0, waiting_s: float = 0.0) -> None:
        self.batches: list[int] = []
        self.threads: set[threading.Thread] = set()
        self._slow_s, self._waiting_s = slow_s, waiting_s

    def __call__(self, rows: Sequence[int]) -> list[int]:
        self.batches.append(len(rows))
        self.threads.add(threading.current_thread())
        time.sleep(self._waiting_s)
        end = time.thread_time() + self._slow_s
        while time.thread_time() < end:
            pass
        if 13 in rows:
            raise ValueError("thirteen")
        return [2 * row for row in rows]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def batcher(double: Doubler, **limits: Any) -> batching.Batcher[int, int]:
    return batching.Batcher(double, batching.Limits(**limits), ThreadPoolExecutor(1))


def test_requests_that_come_together_run_together() -> None:
    double = Doubler()

    async def work() -> None:
        made = batcher(double)
        await made.submit([0])
        answers = await asyncio.gather(*(made.submit([number]) for number in range(10)))
        assert answers == [[2 * number] for number in range(10)]

    run(work())
    assert double.batches == [1, 10]


def test_a_lone_request_does_not_wait() -> None:
    async def work() -> float:
        made = batcher(Doubler(), wait_s=5.0)
        await made.submit([1])
        started = time.perf_counter()
        await made.submit([1])
        return time.perf_counter() - started

    assert run(work()) < 1.0


def test_under_load_a_request_waits_for_as_much_company_as_there_was() -> None:
    double = Doubler()

    async def later(made: batching.Batcher[int, int], number: int) -> Sequence[int]:
        await asyncio.sleep(0.01 * number)
        return await made.submit([number])

    async def work() -> None:
        made = batcher(double, wait_s=5.0)
        await asyncio.gather(*(made.submit([number]) for number in range(3)))
        await asyncio.gather(*(later(made, number) for number in range(3)))

    run(work())
    assert double.batches == [3, 3]


def test_batchers_of_one_schedule_run_together() -> None:
    often, rarely = Doubler(), Doubler()

    async def later(made: batching.Batcher[int, int], number: int) -> Sequence[int]:
        await asyncio.sleep(0.01 * number)
        return await made.submit([number])

    async def work() -> None:
        schedule, thread = batching.Schedule(5.0), ThreadPoolExecutor(1)
        many, few = (
            batching.Batcher(one, batching.Limits(), thread, schedule) for one in (often, rarely)
        )
        for made in (many, few):  # the first batch of each runs in the thread
            await made.submit([0])
        company = [few, many, many, many, few]
        await asyncio.gather(*(made.submit([1]) for made in company))
        answers = await asyncio.gather(*map(later, company, range(len(company))))
        assert answers == [[0], [2], [4], [6], [8]]

    run(work())
    assert (often.batches, rarely.batches) == ([1, 3, 3], [1, 2, 2])


def test_answers_of_batchers_of_one_schedule_come_in_the_order_of_their_requests() -> None:
    async def work() -> list[int]:
        schedule, order = batching.Schedule(5.0), list[int]()
        many, few = (
            batching.Batcher(Doubler(), batching.Limits(), ThreadPoolExecutor(1), schedule)
            for _ in range(2)
        )

        async def ask(made: batching.Batcher[int, int], number: int) -> None:
            await made.submit([number])
            order.append(number)

        for made in (many, few):  # the first batch of each runs in the thread
            while not made.is_quick:
                await made.submit([0])
        company = [many, few, many, many, few]
        await asyncio.gather(*(ask(made, number) for number, made in enumerate(company)))
        return order

    assert run(work()) == [0, 1, 2, 3, 4]


def test_a_slow_batcher_holds_no_other_of_its_schedule_up() -> None:
    async def work() -> list[str]:
        schedule, order = batching.Schedule(0.001), list[str]()
        slow, quick = (
            batching.Batcher(double, batching.Limits(), ThreadPoolExecutor(1), schedule)
            for double in (Doubler(waiting_s=0.2), Doubler())
        )

        async def ask(name: str, made: batching.Batcher[int, int]) -> None:
            await made.submit([1])
            order.append(name)

        await ask("quick", quick)  # the first batch of each runs in the thread
        await asyncio.gather(ask("slow", slow), *(ask("quick", quick) for _ in range(3)))
        return order

    assert run(work()) == ["quick"] * 4 + ["slow"]


def test_a_large_request_lets_small_ones_in_between() -> None:
    order: list[str] = []

    async def ask(made: batching.Batcher[int, int], name: str, rows: list[int]) -> None:
        assert await made.submit(rows) == [2 * row for row in rows]
        order.append(name)

    async def work() -> None:
        made = batcher(Doubler(), max_rows=4)
        await asyncio.gather(ask(made, "large", list(range(12))), ask(made, "small", [1]))

    run(work())
    assert order == ["small", "large"]


def test_batches_keep_to_the_limit() -> None:
    double = Doubler()

    async def work() -> None:
        made = batcher(double, max_rows=5)
        await asyncio.gather(*(made.submit([1, 2]) for _ in range(7)), made.submit([3] * 12))

    run(work())
    assert sum(double.batches) == 26
    assert max(double.batches) <= 5


def test_a_request_that_fails_does_not_fail_its_company() -> None:
    async def work() -> list[Any]:
        made = batcher(Doubler())
        asked = [made.submit([number]) for number in (1, 13, 2)]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = run(work())
    assert (first, third) == ([2], [4])
    assert isinstance(second, ValueError)


def test_slow_batches_leave_the_event_loop_free_and_quick_ones_stay_on_it() -> None:
    slow, waiting, quick = Doubler(0.05), Doubler(waiting_s=0.05), Doubler()

    async def work() -> None:
        for double in (slow, waiting, quick):
            made = batcher(double)
            for number in range(4):
                await made.submit([number])
            double.threads.clear()
            await made.submit([5])

    run(work())
    assert threading.main_thread() not in slow.threads | waiting.threads
    assert quick.threads == {threading.main_thread()}


def test_a_caller_who_gave_up_is_not_waited_for() -> None:
    async def work() -> None:
        made = batcher(Doubler(0.05), max_rows=4)
        gone = asyncio.ensure_future(made.submit([1, 1, 1]))
        await asyncio.sleep(0)
        gone.cancel()
        assert await made.submit([2, 2]) == [4, 4]

    run(work())


@pytest.mark.parametrize("slow_s", [0.0, 0.05])
@pytest.mark.parametrize("cause", [SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_a_model_that_exits_fails_its_callers_and_nothing_else(
    cause: BaseException, slow_s: float
) -> None:
    double = Doubler(slow_s)

    def exits(rows: Sequence[int]) -> list[int]:
        if 13 in rows:
            raise cause
        return double(rows)

    async def work() -> None:
        made = batching.Batcher(exits, batching.Limits(), ThreadPoolExecutor(1))
        for _ in range(2):  # the first in the thread; the second inline, where batches are quick
            assert await made.submit([1]) == [2]
            with pytest.raises((errors.ServingError, MemoryError)):
                await made.submit([13])
        assert await made.submit([4]) == [8]
        assert made.failure is None

    run(work())


@pytest.mark.parametrize("given", [[], [1], [1, 2, 3]])
def test_a_model_that_gives_another_number_of_answers_fails_its_callers(given: list[int]) -> None:
    async def work() -> None:
        made = batching.Batcher(lambda rows: given, batching.Limits(), ThreadPoolExecutor(1))
        for _ in range(2):
            with pytest.raises(errors.ServingError, match="one answer a row"):
                await made.submit([1, 2])

    run(work())


def test_a_thread_that_takes_no_work_fails_callers_and_says_so() -> None:
    async def work() -> None:
        thread = ThreadPoolExecutor(1)
        made = batching.Batcher(Doubler(), batching.Limits(), thread)
        assert made.failure is None
        thread.shutdown()
        for _ in range(2):
            with pytest.raises(errors.ServingError, match="has stopped"):
                await made.submit([1])
        assert "has stopped" in (made.failure or "")

    run(work())


def test_a_batch_that_was_cancelled_fails_its_callers() -> None:
    async def work() -> None:
        thread = ThreadPoolExecutor(1)
        began, go_on = threading.Event(), threading.Event()
        thread.submit(lambda: (began.set(), go_on.wait(20)))
        began.wait(20)
        made = batching.Batcher(Doubler(), batching.Limits(), thread)
        asked = asyncio.ensure_future(made.submit([1]))
        await asyncio.sleep(0.01)
        thread.shutdown(wait=False, cancel_futures=True)
        go_on.set()
        with pytest.raises(errors.ServingError, match="has stopped"):
            await asked

    run(work())


def test_a_batch_that_hangs_is_told() -> None:
    go_on = threading.Event()

    def hangs(rows: Sequence[int]) -> list[int]:
        go_on.wait(20)
        return list(rows)

    async def work() -> None:
        made = batching.Batcher(hangs, batching.Limits(stuck_s=0.02), ThreadPoolExecutor(1))
        asked = asyncio.ensure_future(made.submit([1]))
        while made.failure is None:
            await asyncio.sleep(0.01)
        assert "a batch has been running" in made.failure
        go_on.set()
        assert await asked == [1]
        assert made.failure is None

    run(work())
