"""How many trials wait for how many nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagleray import errors, ray_load, spec
from ray_jobs import cluster

COUNTS = st.integers(0, 100)
ONE = {"CPU": 1.0}


def test_without_any_node_one_trial_waits_to_ask_for_one() -> None:
    assert cluster.room([], ONE) == 0
    assert cluster.room([{"memory": 1e9, "object_store_memory": 1e9}], ONE) == 0
    assert cluster.limit(room=0, live=0, independent=0) == 1


def test_a_trial_fits_on_one_node_and_is_not_put_together_from_two() -> None:
    nodes = [{"CPU": 3.0}, {"CPU": 3.0, "GPU": 1.0}]
    assert cluster.room(nodes, {"CPU": 2.0}) == 2
    assert cluster.room(nodes, {"CPU": 0.5}) == 12
    assert cluster.room(nodes, {"CPU": 1.0, "GPU": 0.5}) == 2


def test_what_no_result_can_change_asks_for_room_at_once() -> None:
    assert cluster.limit(room=0, live=0, independent=8) == 8
    assert cluster.limit(room=4, live=0, independent=100) == 4 + cluster.MAX_PENDING


def test_what_results_change_does_not_queue_behind_what_waits() -> None:
    waiting = 10
    assert cluster.limit(room=2, live=waiting, independent=0) == waiting
    assert cluster.limit(room=2, live=2, independent=0) == 3


def compute(**options: object) -> spec.Compute:
    return spec.Compute.model_validate(options)


def test_the_workers_of_one_trial_may_be_on_several_nodes() -> None:
    nodes = [{"CPU": 3.0}, {"CPU": 3.0, "GPU": 1.0}]
    cluster.fit(nodes, compute(workers=6))
    cluster.fit(nodes, compute(workers={"min": 2, "max": 100}, cpus=3.0))
    cluster.fit(nodes, compute(workers=4, gpus=0.25, cpus=0.5))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 7}, "compute.workers: must fit on the cluster, at most 6 with 1 CPU each"),
        ({"workers": 3, "cpus": 2.0}, "at most 2 with 2 CPU each, but got 3"),
        ({"workers": 5, "gpus": 0.25}, "at most 3 with 1 CPU and 0.25 GPU each, but got 5"),
        ({"cpus": 4.0}, "compute: a worker must fit on a node, at most 3 CPU, but got 4 CPU"),
        ({"gpus": 2.0}, "a node, at most 3 CPU and 1 GPU, but got 1 CPU and 2 GPU"),
    ],
)
def test_what_never_fits_is_refused_with_the_largest_that_does(
    options: dict[str, object], said: str
) -> None:
    with pytest.raises(errors.UserError) as refused:
        cluster.fit([{"CPU": 3.0}, {"CPU": 3.0, "GPU": 1.0}], compute(**options))
    assert said in str(refused.value)


def test_a_cluster_whose_workers_have_not_joined_yet_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = iter([[{"CPU": 0.0}], [{"CPU": 0.0}], [{"CPU": 0.0}, {"CPU": 2.0}]])
    last = [{"CPU": 0.0}, {"CPU": 2.0}]
    monkeypatch.setattr(cluster, "alive", lambda: next(looks, last))
    monkeypatch.setattr(cluster, "READ_S", 0.0)
    assert cluster.joined() == last
    monkeypatch.setattr(cluster, "alive", lambda: [{"CPU": 0.0}])
    monkeypatch.setattr(cluster, "JOIN_S", 0.01)
    assert cluster.joined() == [{"CPU": 0.0}]


def test_a_cluster_that_ray_does_not_tell_of_may_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "AUTOSCALER_S", 0.0)
    for autoscaled, grows in ((None, True), (True, True), (False, False)):
        load = ray_load.Load([], [], autoscaled=autoscaled)
        monkeypatch.setattr(ray_load, "load", lambda load=load: load)
        assert cluster.grows() == grows
    monkeypatch.setattr(ray_load, "load", None)  # calling it raises
    assert cluster.grows()


@given(room=COUNTS, live=COUNTS, independent=COUNTS)
def test_room_is_used_and_one_more_always_asks_for_more(
    room: int, live: int, independent: int
) -> None:
    limit = cluster.limit(room, live, independent)
    assert limit > room
    assert limit <= max(room + 1, live + independent)
    assert limit <= room + cluster.MAX_PENDING


@given(room=COUNTS, more=COUNTS, live=COUNTS, independent=COUNTS)
def test_more_room_never_means_fewer_trials(
    room: int, more: int, live: int, independent: int
) -> None:
    before = cluster.limit(room, live, independent)
    assert cluster.limit(room + more, live, independent) >= before
