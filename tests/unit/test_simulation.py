"""The simulation of autoscaling, its loads, and `eagleray simulate`."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from eagleray import cli, errors
from eagleray.api import endpoints, simulation
from serving.autoscaling import policy, queueing
from serving.simulation import loads, replicas


def fixed(load: policy.Load, count: int, now: float) -> tuple[int, str]:
    return count, ""


def simulate(rate: float, seconds: int, count: int, **kind: float) -> replicas.Outcome:
    sent = loads.arrivals(np.full(seconds, rate), seed=3)
    return replicas.simulate(sent, replicas.Kind(**kind), fixed, replicas=count)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_one_replica_answers_as_a_single_queue_does(busy: float) -> None:
    outcome = simulate(100 * busy, 900, 1)
    expected = 0.01 / (1 - busy)  # M/M/1
    assert np.mean(outcome.latencies) == pytest.approx(expected, rel=0.1)
    assert outcome.percentile(0.95) == pytest.approx(math.log(20) * expected, rel=0.15)


def test_constant_work_waits_half_as_long() -> None:
    waits = simulate(60, 900, 1, variation=0.0).latencies - 0.01
    assert np.mean(waits) == pytest.approx(0.6 * 0.01 / (2 * 0.4), rel=0.1)  # Pollaczek-Khinchine


def test_the_shortest_queue_of_several_comes_close_to_one_line() -> None:
    outcome, a = simulate(400, 120, 6), 4.0
    late = queueing.late_exponential(6, a, 5.0)
    assert 1 - outcome.within(0.05) == pytest.approx(late, abs=0.015)


def test_replicas_report_the_load_that_they_have() -> None:
    seen: list[policy.Load] = []

    def scaler(load: policy.Load, count: int, now: float) -> tuple[int, str]:
        seen.append(load)
        return count, ""

    sent = loads.arrivals(np.full(60, 90.0), seed=0)
    replicas.simulate(sent, replicas.Kind(), scaler, replicas=2)
    means = seen[-2].mean
    assert sum(one.arrived for one in means) == pytest.approx(90, rel=0.1)
    assert sum(one.busy for one in means) == pytest.approx(0.9, rel=0.2)


def test_all_requests_are_answered_and_replicas_are_paid_for() -> None:
    outcome = simulate(50, 60, 3)
    assert np.isfinite(outcome.latencies).all()
    assert outcome.refused == 0
    assert outcome.replica_s == pytest.approx(3 * 61, abs=4)


def test_the_first_replicas_that_start_take_times_of_their_own_if_there_are_some() -> None:
    def four(load: policy.Load, count: int, now: float) -> tuple[int, str]:
        return 4, ""

    sent, kind = np.arange(0, 20, 0.1), replicas.Kind(start_s=9.0)
    outcome = replicas.simulate(sent, kind, four, replicas=1, starts=[5.0, 2.0])
    running = {one.at: one.running for one in outcome.moments}
    assert [running[at] for at in (2, 3, 5, 6, 9, 10)] == [1, 2, 2, 3, 3, 4]


def test_a_request_at_zero_replicas_waits_for_the_first_or_is_refused() -> None:
    sent = np.array([0.5, 0.6, 30.0])

    def zero(load: policy.Load, count: int, now: float) -> tuple[int, str]:
        return (1 if load.waiting else 0 if now > 20 else count), ""

    for wait_s, answered in ((10.0, True), (3.0, False)):
        kind = replicas.Kind(start_s=6.0, wait_s=wait_s, variation=0.0)
        outcome = replicas.simulate(sent, kind, zero, replicas=0)
        assert np.isfinite(outcome.latencies).tolist() == [answered] * 3
        assert not answered or outcome.latencies[2] == pytest.approx(6.01)


def test_a_replica_that_ends_answers_what_it_has() -> None:
    def scaler(load: policy.Load, count: int, now: float) -> tuple[int, str]:
        return (3 if now < 10 else 1), ""

    sent = loads.arrivals(np.full(20, 95.0), seed=1)
    outcome = replicas.simulate(sent, replicas.Kind(), scaler, replicas=3)
    assert np.isfinite(outcome.latencies).all()
    assert [moment.running for moment in outcome.moments][-1] == 1


def test_the_same_seed_gives_the_same_outcome() -> None:
    first, again = simulate(80, 30, 1), simulate(80, 30, 1)
    assert (first.latencies == again.latencies).all()


# A step from 1 to 8 times the load.


@pytest.mark.parametrize("service_s", [0.004, 0.02])
@pytest.mark.parametrize("base", [0.3, 0.5])
def test_after_a_step_to_eight_times_the_load_the_objective_holds_again_within_20_s(
    base: float, service_s: float
) -> None:
    rate = base / service_s * np.concatenate([np.ones(60), np.full(60, 8.0)])
    settings = endpoints.read("left", {"p95_ms": 8000 * service_s, "max_replicas": 30})
    outcome = replicas.simulate(
        loads.arrivals(rate, 0),
        replicas.Kind(service_s=service_s),
        policy.Scaler(settings.plan()),
        replicas=1,
    )
    at, p95 = outcome.percentiles(0.95)
    late = at[(at >= 60) & (p95 > 8 * service_s)]
    assert late.max() < 80
    assert outcome.turns <= 1


# Loads.


def test_shapes_have_the_peak_that_they_are_given() -> None:
    for shape in loads.SHAPES:
        rate = loads.rates(shape, 300, 40.0)
        assert len(rate) == 300
        assert 39 < rate.max() <= 40
    spike = loads.rates("spike", 300, 40.0)
    assert spike[100] == 8 * spike[99] == 8 * spike[200]


def test_arrivals_have_their_rate() -> None:
    sent = loads.arrivals(np.array([100.0, 0.0, 300.0]), seed=0)
    counts = np.bincount(sent.astype(int), minlength=3)
    assert counts[1] == 0
    assert counts[0] == pytest.approx(100, abs=40)
    assert counts[2] == pytest.approx(300, abs=70)
    assert (np.diff(sent) >= 0).all()


def test_a_load_without_end_is_refused_before_it_is_made() -> None:
    with pytest.raises(errors.UserError, match="at most 20,000,000 requests, but got about 10,0"):
        loads.arrivals(np.full(10, 1e9), seed=0)


@pytest.mark.parametrize(
    ("text", "expected", "start"),
    [
        ("10.5\n10\n12\n", [0, 0.5, 2], 10.0),
        ("time\n2026-01-05T00:00:01Z\n2026-01-05T00:00:00\n", [0, 1], 1767571200.0),
    ],
)
def test_a_trace_of_timestamps(
    text: str, expected: list[float], start: float, tmp_path: Path
) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    sent, begin = loads.read(file, seed=0)
    assert sent.tolist() == expected
    assert begin == start


def test_a_trace_of_rates_holds_each_until_the_next(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("seconds,rate\n100,50\n110,0\n120,200\n")
    sent, begin = loads.read(file, seed=0)
    counts = np.bincount((sent // 10).astype(int), minlength=3)
    assert begin == 100
    assert counts[1] == 0
    assert counts[[0, 2]] == pytest.approx([500, 2000], rel=0.15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have lines of a timestamp, or of seconds,rate, but got none"),
        ("1,2,3\n", "but got lines of 3 values"),
        ("1,2\n3\n", "but got lines of 1 and 2 values"),
        ("1\nsoon\n", ":2: must be seconds, a rate or an ISO 8601 timestamp, but got 'soon'"),
        ("0,1\n1,nan\n", ":2: must be seconds, a rate or an ISO 8601 timestamp, but got 'nan'"),
        ("0,1\n1,-2\n", ":2: a rate must be at least 0, but got -2"),
        ("0,1\n0,2\n", ":2: seconds must ascend, and the line before has 0, but got 0"),
    ],
)
def test_a_trace_that_is_none_is_refused_with_its_line(
    text: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(errors.UserError) as caught:
        loads.read(file, seed=0)
    assert message in str(caught.value)


# The command.


def test_the_command_prints_figures_and_draws_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "a.png"
    words = ["simulate", "--load", "spike", "--minutes", "3", "--p95-ms", "60", "--price", "2"]
    assert cli.main([*words, "--picture", str(picture), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert facts["cost"] == pytest.approx(2 * facts["replica_hours"])
    assert 0.5 < facts["in_objective"] <= 1
    assert facts["changes_made"][0]["replicas"] == 1
    assert cli.main(words) == 0
    assert "within 60 ms" in capsys.readouterr().out


def test_the_command_reads_the_experiment_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, trace = tmp_path / "left.yaml", tmp_path / "trace.csv"
    file.write_text(
        "name: left\ndata: {source: 'dataset:iris', target: target}\n"
        "serve:\n  replicas: {min: 0, max: 5}\n  slo: {p95_ms: 100}\n  preset: cheap\n"
        "  schedules: [{days: [mon], start: '00:00', end: '01:00', min: 2}]\n"
    )
    trace.write_text("2026-01-05T00:00:00Z\n2026-01-05T00:10:00Z\n")  # a Monday
    assert cli.main(["simulate", str(file), "--trace", str(trace), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["replicas_least"], facts["objective_ms"]) == (2, 100)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--load", "wave"], "--load must be one of steady, diurnal, spike, ramp, but got wave"),
        (["--preset", "slow"], "preset must be 'steady', 'bursty' or 'cheap', but got 'slow'"),
        (["--picture", "a.doc", "--minutes", "1"], "a.doc: must be a file that can be written"),
        (["--trace", "none.csv"], "none.csv: must be a CSV file that can be read"),
    ],
)
def test_wrong_options_end_the_command_with_a_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", *words]) == 2
    assert message in capsys.readouterr().err


def test_changes_begin_with_the_first_moment() -> None:
    load = simulation.Load(shape="steady", rate=1, minutes=1)
    done = simulation.simulate(load, endpoints.read("left", {}))
    assert [one.wanted for one in done.changes] == [1]
    assert dataclasses.replace(done, price=1.0).facts["cost"] == done.facts["replica_hours"]
