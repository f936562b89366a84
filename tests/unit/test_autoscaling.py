"""The policy: what a load needs, how fast replicas follow it, and windows of the week."""

import dataclasses
import datetime
import itertools
import json
import math
import zoneinfo
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.autoscaling import METRICS, plan, policy, queueing, ray_serve

STEADY = plan.PRESETS["steady"]
AT_ONCE = dataclasses.replace(STEADY, up_s=0, down_s=0, step_s=0, panic=math.inf, margin=0)


def make(pace: plan.Pace = STEADY, **changes: Any) -> plan.Plan:
    values = {"min_replicas": 1, "max_replicas": 100, "target_ongoing": 16.0, "p95_ms": None}
    return plan.Plan(pace=pace, **values | changes)  # type: ignore[arg-type]


def reading(rate: float, service_s: float = 0.01, ongoing: float | None = None) -> policy.Reading:
    busy = min(1.0, rate * service_s)
    served = min(rate, 1 / service_s)
    return policy.Reading(busy if ongoing is None else ongoing, rate, served, busy)


def spread(rate: float, replicas: int, service_s: float = 0.01) -> policy.Load:
    """A load that replicas share evenly, each without a queue."""
    each = (reading(rate / replicas, service_s),) * replicas
    return policy.Load(each, each)


def run(made: plan.Plan, loads: list[tuple[float, float]], replicas: int = 1) -> list[int]:
    """Decide once a second; `loads` has seconds and requests per second. Replicas come at once."""
    state, decided, now = policy.State.begin(replicas, 0.0), [], 0.0
    for seconds, rate in loads:
        for _ in range(int(seconds)):
            now += 1
            load = spread(rate, max(1, replicas))
            decision = policy.decide(made, load, replicas, state, now=now)
            replicas, state = decision.replicas, decision.state
            decided.append(replicas)
    return decided


# Without an objective: requests in progress and utilization.


def test_replicas_are_wanted_by_the_sum_of_what_all_report() -> None:
    made = make(target_ongoing=8.0)
    assert policy.need(made, [policy.Reading(20, 0, 0, 0.9), policy.Reading(12, 0, 0, 0.7)])[0] == 4
    assert policy.need(made, [policy.Reading(20, 0, 0, 2.0), policy.Reading(12, 0, 0, 2.0)])[0] == 5


@given(st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0.1, 1e3))
def test_more_requests_or_more_work_never_want_fewer_replicas(
    ongoing: float, busy: float, target: float
) -> None:
    made = make(target_ongoing=target, max_replicas=10**9)
    now, more, busier = (
        policy.need(made, [policy.Reading(*values)])[0]
        for values in ((ongoing, 1, 1, busy), (ongoing + 1, 1, 1, busy), (ongoing, 1, 1, busy + 1))
    )
    assert 1 <= now <= min(more, busier)


@given(st.floats(0, 1), st.floats(0, 1e3))
def test_one_request_at_a_time_never_wants_a_second_replica(ongoing: float, busy: float) -> None:
    assert policy.need(make(), [policy.Reading(ongoing, 1, 1, busy)])[0] == 1


@dataclass
class Queues:
    """Replicas that serve a request at a time, and requests that come by chance (M/M/1 queues).

    A replica counts at most `seen` of its requests: the others wait in sockets.
    """

    rate: float
    service_s: float
    seen: float = 5.0

    def busy(self, replicas: int) -> float:
        """The share of time that each works: arrival rate times service time."""
        return min(1.0, self.rate / replicas * self.service_s)

    def settled(self, most: int) -> int:
        replicas, made = 1, make(max_replicas=most)
        for _ in range(50):
            busy = self.busy(replicas)
            inside = min(self.seen, busy / (1 - busy)) if busy < 1 else self.seen
            replicas = policy.need(made, [policy.Reading(inside, 1, 1, busy)] * replicas)[0]
        return replicas


def test_a_full_replica_gets_company_though_most_requests_wait_where_nobody_counts() -> None:
    full = Queues(rate=math.inf, service_s=0.006)
    assert full.seen / 16.0 < 1  # what requests alone say: one is enough
    assert full.settled(most=4) == 4


@given(st.floats(0.1, 2000), st.floats(0.0005, 0.05))
def test_replicas_settle_where_none_works_more_than_it_should(rate: float, service: float) -> None:
    queues = Queues(rate, service)
    replicas = queues.settled(most=1000)
    assert queues.busy(replicas) <= queueing.MOST_BUSY + 1e-9
    fewer = replicas - 1
    assert not fewer or rate * service > queueing.MOST_BUSY * fewer - 1e-6


# With an objective: the queue.


def test_waiting_follows_erlangs_c_formula() -> None:
    # Two servers, each busy at 3/4: Allen (1990), table 5.2.3 has 0.6429.
    assert queueing.waits(1, 0.7) == pytest.approx(0.7)
    assert queueing.waits(2, 1.5) == pytest.approx(9 / 14)


def test_for_one_replica_the_share_of_late_requests_is_that_of_a_single_queue() -> None:
    assert queueing.late_exponential(1, 0.6, 5.0) == pytest.approx(math.exp(-5.0 * 0.4))
    assert queueing.late_exponential(3, 2.0, 4.0) == pytest.approx(
        queueing.late_exponential(3, 2.0 + 1e-5, 4.0), rel=1e-3
    )  # where both rates are the same, the limit


@given(st.floats(0.01, 80), st.floats(1.01, 50))
def test_the_fewest_replicas_keep_the_objective_and_no_fewer_do(a: float, t: float) -> None:
    late = queueing.late_exponential if math.exp(-t) <= queueing.TAIL else queueing.late_constant
    count = queueing.least_replicas(a, t, most=10_000)
    assert late(count, a, t) <= queueing.TAIL
    assert a <= queueing.MOST_BUSY * count + 1e-6
    fewer = count - 1
    assert not fewer or late(fewer, a, t) > queueing.TAIL or a > queueing.MOST_BUSY * fewer


def test_a_tighter_objective_needs_more_replicas() -> None:
    load = spread(300, 4).mean
    needs = [policy.need(make(p95_ms=ms), load)[0] for ms in (1000, 100, 50, 32)]
    assert needs == sorted(needs)
    assert needs[0] < needs[-1]


def test_an_objective_below_the_service_time_is_called_out_and_does_not_run_away() -> None:
    count, why = policy.need(make(p95_ms=5), spread(300, 4).mean)
    assert count == 4
    assert "10.0 ms, longer than the objective" in why


def test_replicas_with_a_backlog_are_counted_out() -> None:
    full, free = policy.Reading(200, 100, 100, 1.0), reading(60)
    made = make(p95_ms=100)
    count = policy.need(made, [reading(80), reading(60)])[0]
    assert policy.need(made, [full, free])[0] > count
    assert policy.need(made, [full] * 10)[0] >= 20  # nobody sees how much more waits


# How fast replicas follow.


def test_more_are_started_once_they_were_wanted_for_a_while() -> None:
    decided = run(
        make(dataclasses.replace(STEADY, panic=math.inf), p95_ms=1000), [(5, 50), (30, 300)]
    )
    first = next(at for at, count in enumerate(decided) if count > 1)
    assert first == 5 + STEADY.up_s - 1


def test_a_moment_of_load_starts_none() -> None:
    pace = dataclasses.replace(STEADY, panic=math.inf)
    assert set(run(make(pace, p95_ms=1000), [(20, 50), (5, 300), (60, 50)])) == {1}


def test_a_moment_of_calm_ends_none() -> None:
    assert set(run(make(p95_ms=1000), [(30, 300), (60, 1), (30, 300)], replicas=4)) == {4}


def test_a_step_is_bounded_up_and_down() -> None:
    pace = dataclasses.replace(STEADY, panic=math.inf)
    decided = run(make(pace, p95_ms=1000), [(60, 2000), (400, 1)])
    ups = [later / earlier for earlier, later in itertools.pairwise(decided) if later > earlier]
    downs = [later - earlier for earlier, later in itertools.pairwise(decided) if later < earlier]
    assert max(ups) <= 1 + pace.grow
    assert max(decided) == 25
    assert decided[-1] == 1
    assert min(downs) >= -math.ceil(pace.shrink * 25)


def test_a_spike_passes_delay_and_step_by() -> None:
    decided = run(make(p95_ms=1000), [(20, 50), (3, 400)])
    assert decided[20] == 5


def test_after_a_spike_replicas_stay_for_a_while() -> None:
    decided = run(make(p95_ms=1000), [(20, 50), (3, 400), (100, 50)])
    assert set(decided[20:]) == {5}


@given(st.floats(1, 900))
def test_under_a_constant_load_replicas_do_not_turn(rate: float) -> None:
    decided = run(make(p95_ms=60), [(600, rate)], replicas=5)
    ways = [b > a for a, b in itertools.pairwise(decided) if a != b]
    assert len(set(ways)) <= 1


@pytest.mark.parametrize("preset", plan.PRESETS)
def test_a_load_about_a_boundary_does_not_flap(preset: str) -> None:
    made = make(plan.PRESETS[preset], p95_ms=1000)
    decided = run(made, [(3, 79), (3, 81)] * 200, replicas=2)
    assert sum(a != b for a, b in itertools.pairwise(decided)) <= 1


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0, 5000)), max_size=8))
def test_replicas_stay_within_their_bounds(loads: list[tuple[int, float]]) -> None:
    decided = run(make(min_replicas=2, max_replicas=9, p95_ms=50), loads, replicas=2)
    assert all(2 <= count <= 9 for count in decided)


def test_nothing_changes_until_a_replica_has_reported() -> None:
    state = policy.State.begin(3, 0.0)
    assert policy.decide(make(), policy.Load((), ()), 3, state, now=500.0).replicas == 3


def test_what_the_policy_remembers_is_bounded() -> None:
    made, state = make(), policy.State.begin(1, 0.0)
    for now in range(5000):
        load = spread(200 + 190 * math.sin(now / 40), 4)
        state = policy.decide(made, load, 4, state, now=now).state
    assert len(state.lows) + len(state.highs) <= 20


# To zero and back.


def test_the_last_replica_ends_after_a_time_without_requests_and_comes_back_for_one() -> None:
    made = make(min_replicas=0, p95_ms=1000)
    decided = run(made, [(30, 50), (STEADY.zero_s + 5, 0)])
    assert decided[-10] == 1
    assert decided[-1] == 0
    waiting = policy.Load((), (), waiting=1.0)
    back = policy.decide(made, waiting, 0, policy.State.begin(0, 0.0), now=1.0)
    assert back.replicas == 1
    assert "wait for a first replica" in back.reason


def test_a_replica_that_ray_serve_started_by_itself_is_given_time() -> None:
    made = make(min_replicas=0)
    state = policy.State.begin(0, 0.0)
    quiet = (policy.Reading(0, 0, 0, 0),)
    later = 10 * STEADY.zero_s
    decision = policy.decide(made, policy.Load(quiet, quiet), 1, state, now=later)
    assert decision.replicas == 1
    at = later + STEADY.zero_s
    decision = policy.decide(made, policy.Load(quiet, quiet), 1, decision.state, now=at)
    assert decision.replicas == 0


def test_several_idle_replicas_end_by_way_of_one() -> None:
    quiet = (policy.Reading(0, 0, 0, 0),) * 3
    state, counts, replicas = policy.State.begin(3, 0.0), [], 3
    for now in (STEADY.zero_s, STEADY.zero_s + 1):
        made = make(min_replicas=0)
        decision = policy.decide(made, policy.Load(quiet, quiet), replicas, state, now=now)
        replicas, state = decision.replicas, decision.state
        counts.append(replicas)
    assert counts == [1, 0]


def test_a_request_now_and_then_keeps_the_last_replica() -> None:
    loads = [(1, 1.0), (STEADY.zero_s - 10, 0)] * 3
    assert 0 not in run(make(min_replicas=0, p95_ms=1000), loads)


def test_with_a_minimum_of_one_the_last_replica_stays() -> None:
    assert run(make(p95_ms=1000), [(5000, 0)])[-1] == 1


# Windows of the week.

WORK = plan.Window(days=(0, 1, 2, 3, 4), start=480, end=1080, zone="Europe/Zurich", min_replicas=3)


def moment(text: str, zone: str = "Europe/Zurich") -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("2026-01-05T08:00", True),  # a Monday
        ("2026-01-05T07:59", False),
        ("2026-01-09T17:59", True),
        ("2026-01-09T18:00", False),
        ("2026-01-10T12:00", False),
        ("2026-07-06T08:00", True),  # by summer time
    ],
)
def test_a_window_follows_the_clock_of_its_zone(text: str, inside: bool) -> None:
    assert WORK.holds(moment(text)) is inside


@pytest.mark.parametrize(
    ("text", "inside"),
    [("2026-01-09T23:00", True), ("2026-01-10T02:00", True), ("2026-01-11T02:00", False)],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(
    text: str, inside: bool
) -> None:
    friday = plan.Window(days=(4,), start=1320, end=360, zone="Europe/Zurich", min_replicas=2)
    assert friday.holds(moment(text)) is inside


def test_a_window_brings_replicas_at_once_also_from_zero_and_within_the_maximum() -> None:
    made = make(min_replicas=0, max_replicas=2, windows=(WORK,))
    inside = moment("2026-01-05T08:00")
    for replicas in (0, 1):
        state = policy.State.begin(replicas, inside - 1)
        load = policy.Load((), ()) if not replicas else spread(1, 1)
        assert policy.decide(made, load, replicas, state, now=inside).replicas == 2
    state = policy.State.begin(0, 0.0)
    assert policy.decide(made, policy.Load((), ()), 0, state, now=inside - 60).replicas == 0


# In Ray Serve.


@dataclass
class Context:
    """What Ray Serve gives; the shape of its `AutoscalingContext`."""

    raw_metrics: dict[str, dict[Any, list[Any]]] | None = None
    target_num_replicas: int = 3
    current_time: float | None = 1000.0
    total_queued_requests: float | None = 0.0
    policy_state: dict[str, Any] = field(default_factory=dict)


def reports(*replicas: list[tuple[float, float, float, float]]) -> dict[str, dict[Any, list[Any]]]:
    """Metrics as Ray Serve keeps them, of the readings of each replica."""
    return {
        name: {
            str(replica): [SimpleNamespace(value=reading[at]) for reading in readings]
            for replica, readings in enumerate(replicas)
        }
        for at, name in enumerate(METRICS)
    }


def test_ray_serve_gives_the_plan_as_json_and_keeps_the_state() -> None:
    made = make(AT_ONCE, target_ongoing=8.0, windows=(WORK,))
    scaler = ray_serve.Policy(**json.loads(json.dumps(dataclasses.asdict(made))))
    context = Context(reports([(20, 1, 1, 0.9)] * 3, [(20, 1, 1, 0.7)] * 3))
    wanted, state = scaler(context)
    assert wanted == 5
    context.policy_state, context.current_time = state, 1001.0
    assert scaler(context)[1]["eagleray"].lows == ((1001.0, 5),)


def test_a_replica_counts_from_its_first_whole_report_on() -> None:
    metrics = reports([(4, 1, 1, 0.5)] * 5)
    metrics[METRICS[0]]["new"] = [SimpleNamespace(value=1.0)]
    load = ray_serve.Reports().load(Context(metrics, total_queued_requests=2.0))
    assert load == policy.Load(*((policy.Reading(4, 1, 1, 0.5),),) * 2, waiting=2.0)


@pytest.mark.parametrize("objective", [None, 100.0])
def test_load_that_moves_to_a_new_replica_is_counted_once(objective: float | None) -> None:
    alone, half = (4, 40, 40, 0.8), (2, 20, 20, 0.4)
    before, after = [reports([alone] * 10), reports([alone] * 9 + [half], [half])]
    made = make(p95_ms=objective, target_ongoing=1.0)
    loads = [ray_serve.Reports().load(Context(metrics)) for metrics in (before, after)]
    for readings in zip(*[(load.mean, load.recent) for load in loads], strict=True):
        counts = [policy.need(made, one)[0] for one in readings]
        assert counts[0] == counts[1]


def test_the_recent_mean_is_that_of_the_last_reports() -> None:
    load = ray_serve.Reports().load(Context(reports([(0, 0, 0, 0)] * 8 + [(10, 5, 5, 1)] * 2)))
    assert load.recent[0] == policy.Reading(10, 5, 5, 1)
    assert load.mean[0] == policy.Reading(2, 1, 1, 0.2)


def test_a_report_is_read_once_and_the_next_one_anew() -> None:
    reader, first = ray_serve.Reports(), Context(reports([(4, 1, 1, 0.5)]))
    assert reader.load(first).mean == reader.load(first).mean == (policy.Reading(4, 1, 1, 0.5),)
    assert reader.load(Context(reports([(8, 1, 1, 0.5)]))).mean[0].ongoing == 8
    assert reader.load(Context(reports())).mean == ()
