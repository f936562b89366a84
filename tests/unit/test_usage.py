"""What a replica measures of itself, and what the policy reads of it."""

import time

from serving import autoscaling


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_average_is_taken_over_time_since_the_last_look() -> None:
    clock = Clock()
    ongoing = autoscaling.Ongoing(clock)
    ongoing.add(1)
    clock.now += 1.0
    ongoing.add(1)
    clock.now += 1.0
    ongoing.add(-2)
    clock.now += 2.0
    assert ongoing.average() == (1 * 1.0 + 2 * 1.0) / 4
    clock.now += 1.0
    assert ongoing.average() == 0.0


def test_requests_still_in_progress_count() -> None:
    clock = Clock()
    ongoing = autoscaling.Ongoing(clock)
    ongoing.add(1)
    clock.now += 1.0
    assert (ongoing.average(), ongoing.now) == (1.0, 1)
    assert ongoing.average() == 1.0


def test_busy_is_the_share_of_time_at_work_since_the_last_look() -> None:
    clock, work = Clock(), Clock()
    busy = autoscaling.Busy(clock, work)
    clock.now += 2.0
    work.now += 0.5
    assert busy.share() == 0.25
    clock.now += 1.0
    work.now += 1.5  # two threads
    assert busy.share() == 1.5
    assert busy.share() == 0.0


def test_a_process_that_works_is_busy_and_one_that_sleeps_is_not() -> None:
    busy = autoscaling.Busy()
    time.sleep(0.3)
    idle = busy.share()
    end = time.thread_time() + 0.3
    while time.thread_time() < end:
        pass
    assert busy.share() > idle + 0.5


def test_rates_count_what_came_and_what_was_answered_since_the_last_look() -> None:
    clock = Clock()
    ongoing = autoscaling.Ongoing(clock)
    for change in (1, 1, 1, -1):
        ongoing.add(change)
        clock.now += 0.5
    assert ongoing.rates() == (1.5, 0.5)
    assert ongoing.rates() == (0.0, 0.0)
    ongoing.add(-1)
    clock.now += 2.0
    assert ongoing.rates() == (0.0, 0.5)
