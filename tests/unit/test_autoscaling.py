from __future__ import annotations

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
    ongoing.enter()
    clock.now += 1.0
    ongoing.enter()
    clock.now += 1.0
    ongoing.leave()
    ongoing.leave()
    clock.now += 2.0
    assert ongoing.average() == (1 * 1.0 + 2 * 1.0) / 4
    clock.now += 1.0
    assert ongoing.average() == 0.0


def test_requests_still_in_progress_count() -> None:
    clock = Clock()
    ongoing = autoscaling.Ongoing(clock)
    ongoing.enter()
    clock.now += 1.0
    assert (ongoing.average(), ongoing.now) == (1.0, 1)
    assert ongoing.average() == 1.0


def test_replicas_are_wanted_by_the_sum_of_what_all_report() -> None:
    context = Context({autoscaling.METRIC: {"a": 20.0, "b": 12.0}})
    assert autoscaling.policy(context)[0] == 4.0


def test_nothing_changes_until_a_replica_has_reported() -> None:
    assert autoscaling.policy(Context({}))[0] == 3


@given(st.floats(0, 1e6), st.floats(0.1, 1e3))
def test_more_requests_never_want_fewer_replicas(ongoing: float, target: float) -> None:
    assert 1.0 <= autoscaling.wanted(ongoing, target) <= autoscaling.wanted(ongoing + 1, target)


def test_two_runs_have_ports_and_paths_of_their_own(tmp_path: Any) -> None:
    first, second = environment.private(tmp_path / "a"), environment.private(tmp_path / "b")
    shared = {name for name in first if first[name] == second[name]}
    assert shared == {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"}
