import math
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serving import autoscaling, environment


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Context:
    aggregated_metrics: dict[str, dict[Any, float]]
    target_num_replicas: int = 3
    config: Any = field(default_factory=lambda: SimpleNamespace(target_ongoing_requests=8.0))


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


def test_replicas_are_wanted_by_the_sum_of_what_all_report() -> None:
    reported = {
        autoscaling.ONGOING: {"a": 20.0, "b": 12.0},
        autoscaling.BUSY: {"a": 0.9, "b": 0.7},
    }
    assert autoscaling.policy(Context(reported))[0] == 4.0
    reported[autoscaling.BUSY] = {"a": 2.0, "b": 2.0}
    assert autoscaling.policy(Context(reported))[0] == 5.0


def test_nothing_changes_until_a_replica_has_reported() -> None:
    assert autoscaling.policy(Context({}))[0] == 3


@given(st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0.1, 1e3))
def test_more_requests_or_more_work_never_want_fewer_replicas(
    ongoing: float, busy: float, target: float
) -> None:
    now = autoscaling.wanted(ongoing, busy, target)
    assert 1.0 <= now <= autoscaling.wanted(ongoing + 1, busy, target)
    assert now <= autoscaling.wanted(ongoing, busy + 1, target)


@given(st.floats(0, 1), st.floats(0, 1e3))
def test_one_request_at_a_time_never_wants_a_second_replica(ongoing: float, busy: float) -> None:
    assert autoscaling.wanted(ongoing, busy, target=16.0) == 1.0


@dataclass
class Cluster:
    """Replicas that serve a request at a time, and requests that come by chance (M/M/1 queues).

    A replica counts at most `seen` of its requests: the others wait in sockets.
    """

    rate: float
    service_s: float
    seen: float = 5.0

    def busy(self, replicas: int) -> float:
        """The share of time that each works: arrival rate times service time."""
        return min(1.0, self.rate / replicas * self.service_s)

    def wanted(self, replicas: int, target: float = 16.0) -> float:
        busy = self.busy(replicas)
        inside = min(self.seen, busy / (1 - busy)) if busy < 1 else self.seen
        return autoscaling.wanted(replicas * inside, replicas * busy, target)

    def settled(self, most: int) -> int:
        replicas = 1
        for _ in range(50):
            replicas = min(most, math.ceil(self.wanted(replicas)))
        return replicas


def test_a_full_replica_gets_company_though_most_requests_wait_where_nobody_counts() -> None:
    full = Cluster(rate=math.inf, service_s=0.006)
    assert full.seen / 16.0 < 1  # what requests alone say: one is enough
    assert full.settled(most=4) == 4


@given(st.floats(0.1, 2000), st.floats(0.0005, 0.05))
def test_replicas_settle_where_none_works_more_than_it_should(rate: float, service: float) -> None:
    cluster = Cluster(rate, service)
    replicas = cluster.settled(most=1000)
    assert cluster.busy(replicas) <= autoscaling.MOST_BUSY + 1e-9
    fewer = replicas - 1
    assert not fewer or rate * service > autoscaling.MOST_BUSY * fewer - 1e-6


def test_two_runs_have_ports_and_paths_of_their_own(tmp_path: Any) -> None:
    first, second = (
        environment.private_paths(tmp_path / "a"),
        environment.private_paths(tmp_path / "b"),
    )
    shared = {name for name in first if first[name] == second[name]}
    assert shared == {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"}
