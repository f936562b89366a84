"""Why trials wait, in words: what the driver says, and what `eagleray why` makes of it."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from eagleray import spec
from eagleray.client import waits
from eagleray.client.runs import Attempt
from eagleray.ray_load import Load, Node
from eagleray.state.searches import View, Waiting
from ray_jobs import cluster, waiting

ONE, GPU = {"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}
BUSY = Node("gpu", {"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 0.0})
FREE = Node("", {"CPU": 2.0}, {"CPU": 2.0})
STARTING = {"gpu": 1}


@pytest.mark.parametrize(
    ("asked", "workers", "load", "said"),
    [
        (
            GPU,
            1,
            Load([BUSY, BUSY], []),
            "1 CPU and 1 GPU; none free now: 2 of 2 GPU used on 2 nodes of gpu",
        ),
        (
            {"GPU": 2.0},
            1,
            Load([Node("big", {"GPU": 2.0}, {"GPU": 1.0})] * 2, []),
            "2 GPU; none free now: 2 of 4 GPU used on 2 nodes of big",
        ),
        (
            ONE,
            3,
            Load([FREE, Node("", ONE, {"CPU": 0.0})], []),
            "3 workers with 1 CPU each; 2 free now: 1 of 3 CPU used on 2 nodes",
        ),
        (
            ONE,
            1,
            Load([Node("a", ONE, {}), Node("b", ONE, {})], [], starting=STARTING),
            "1 CPU; none free now: 1 of 1 CPU used on 1 node of a; 1 of 1 CPU used on 1 node of b; "
            "the autoscaler starts 1 of gpu",
        ),
        (
            ONE,
            1,
            Load([Node("", ONE, {})], [], autoscaled=True),
            "1 CPU; none free now: 1 of 1 CPU used on 1 node; the autoscaler starts no node",
        ),
        (
            ONE,
            1,
            Load([], [], starting=STARTING),
            "1 CPU; no node has that, at most 0 CPU; the autoscaler starts 1 of gpu",
        ),
        (
            cluster.COORDINATOR,
            1,
            Load([Node("", {"memory": 2.0**30}, {"memory": 2.0**27})], []),
            "0.25 GiB of memory; none free now: 0.875 of 1 GiB of memory used on 1 node",
        ),
    ],
)
def test_what_is_missing_is_said_by_kind_of_node(
    asked: dict[str, float], workers: int, load: Load, said: str
) -> None:
    assert waiting.explain(asked, workers, load) == (said, False)


@pytest.mark.parametrize(
    ("asked", "workers", "load", "said"),
    [
        ({"GPU": 4.0}, 1, Load([BUSY], []), "4 GPU; no node has that, at most 1 GPU"),
        (
            GPU,
            3,
            Load([BUSY, BUSY], [], failed=["gpu could not be started: quota"]),
            "3 workers with 1 CPU and 1 GPU each; only 2 fit on the cluster; "
            "gpu could not be started: quota",
        ),
    ],
)
def test_what_the_nodes_never_have_is_told_apart(
    asked: dict[str, float], workers: int, load: Load, said: str
) -> None:
    assert waiting.explain(asked, workers, load) == (said, True)


def trial(number: int, status: str = "PENDING") -> Any:
    members = [{"number": number}]
    return SimpleNamespace(trial_id=f"t{number}", status=status, config={"members": members})


def looked(queue: waiting.Queue, *trials: Any) -> None:
    queue._looked_at = float("-inf")
    queue.on_step_end(trials=trials)


def test_of_trials_that_ask_alike_the_last_ones_wait_as_many_as_there_are_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Load([Node("", {"CPU": 2.0}, {})], [({"CPU": 1.0}, 1), ({"GPU": 1.0}, 1)])
    monkeypatch.setattr(waiting.ray_load, "load", lambda: load)
    queue = waiting.Queue(spec.Compute())
    looked(queue, trial(1, "RUNNING"), trial(2))
    first = queue._waits["t2"].since
    looked(queue, trial(1, "RUNNING"), trial(2), trial(3))
    assert [one.numbers for one in queue()] == [[3]]  # 2 has a CPU, and starts
    assert queue._waits["t2"].since == first
    looked(queue, trial(2, "RUNNING"), trial(3, "TERMINATED"))
    assert queue() == []


def test_a_group_that_has_not_started_waits_with_all_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Load([Node("", {"CPU": 4.0}, {"CPU": 3.0})], [({"CPU": 1.0}, 4)])
    monkeypatch.setattr(waiting.ray_load, "load", lambda: load)
    queue = waiting.Queue(spec.Compute(workers=4))  # type: ignore[arg-type]
    running = trial(1, "RUNNING")
    queue.on_trial_result(trial=running, result={"members": [], "waits": True})
    looked(queue, running)
    [told] = queue()
    assert told.why == "4 workers with 1 CPU each; 3 free now: 1 of 4 CPU used on 1 node"
    queue.on_trial_result(trial=running, result={"members": []})
    looked(queue, running)
    assert queue() == []


def test_only_a_cluster_that_does_not_grow_is_known_at_once_never_to_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for autoscaled, since_s, never in ((False, 0, True), (True, 0, False), (True, 60, True)):
        load = Load([FREE], [({"CPU": 4.0}, 1)], autoscaled=autoscaled)
        wait = waiting._Wait([1], time.time() - since_s, {"CPU": 4.0})
        assert [one.never for one in waiting.explain_waits([wait], lambda load=load: load)] == [
            never
        ]


def test_a_cluster_that_does_not_tell_ends_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Load:
        raise RuntimeError("no answer")

    monkeypatch.setattr(waiting.ray_load, "load", broken)
    queue = waiting.Queue(spec.Compute())
    looked(queue, trial(1))
    assert [one.why for one in queue()] == ["Ray does not tell what is missing: no answer"]


NOON = 1795694400.0  # 2026-11-26 12:00:00 UTC
VIEW = View(
    at=NOON, gone=60, metric="log_loss", epochs=9, total=9, started=1, ended=1, best=None, rows=[]
)
WAITS = [
    Waiting(numbers=[7], since=NOON - 240, why="1 GPU; none free now"),
    Waiting(numbers=[8, 9, 10, 11], since=NOON - 30, why="8 GPU; no node has that", never=True),
]


def attempt(state: Any, why: str = "") -> Attempt:
    return Attempt("wine-1", "wine", "abc", 1, state, why)


def test_what_never_fits_stands_before_what_only_waits() -> None:
    view = VIEW.model_copy(update={"waiting": WAITS})
    found = waits.explain(attempt("running"), view, NOON)
    assert found.finding.severity == "fail"
    assert found.finding.message == (
        "trials 8, 9, 10 and 1 more wait since 11:59:30 UTC (30 s): 8 GPU; no node has that"
    )
    assert found.finding.fix.startswith("add a node that has it, or set compute")
    assert found.finding.evidence == (
        "Run wine-1: running",
        "search: 1/9 trials, 2 wait (eagleray why), 1:00 gone, about 8:00 left",
        "trial 7 waits since 11:56:00 UTC (4 min): 1 GPU; none free now",
        found.finding.message,
    )


@pytest.mark.parametrize(
    ("state", "why", "severity", "message"),
    [
        ("running", "", "pass", "nothing is wrong"),
        ("succeeded", "", "pass", "nothing is wrong"),
        ("waiting", "", "wait", "its driver has not started yet"),
        ("unfinished", "last seen at noon", "fail", "no driver process"),
        ("failed", "ray died", "fail", "ray died"),
    ],
)
def test_a_run_that_does_not_train_is_explained_by_its_state(
    state: str, why: str, severity: str, message: str
) -> None:
    found = waits.explain(attempt(state, why), None, NOON)
    assert (found.finding.severity, found.finding.message) == (severity, message)
