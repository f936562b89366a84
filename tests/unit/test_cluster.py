"""How many trials wait for how many nodes."""

from hypothesis import given
from hypothesis import strategies as st

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
