"""The plan of a chaos run follows from its seed, and its checks name what is broken."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos import checks, plan
from tests.chaos.searched import Life, Seen


@given(seed=st.integers(0, 10**6), events=st.integers(2, 60))
def test_a_seed_gives_one_plan_in_which_every_victim_has_its_turn(seed: int, events: int) -> None:
    drawn = plan.draw(seed, events)
    assert drawn == plan.draw(seed, events)
    happens = [event for one in drawn for event in one.events]
    assert len(happens) == events
    turns = Counter((event.victim, event.act) for event in happens)
    assert len(turns) == min(events, 5 if events <= 5 else 10)
    assert max(turns.values()) - min(turns.values()) <= 1
    for one in drawn:
        times = [event.after for event in one.events]
        assert times == sorted(times)
        assert all(plan.FIRST <= after <= plan.LAST for after in times)


def test_thirty_events_come_to_six_searches_of_four_kinds() -> None:
    drawn = plan.draw(1, 30)
    assert [len(one.events) for one in drawn] == [5] * 6
    assert {one.kind for one in drawn} == set(plan.KINDS)


def test_a_worker_that_goes_on_from_an_older_checkpoint_than_was_there_is_named() -> None:
    seen = [
        Seen(at=1.0, width=4, place=8, ended=False),
        Seen(at=3.0, width=4, place=12, ended=False),
    ]
    after = Life(pid=7, width=4, began=2.0, places=[9, 10, 11])
    assert list(checks.repeated([after], seen)) == []
    before = Life(pid=7, width=4, began=2.0, places=[7, 8, 9])
    (broken,) = checks.repeated([before], seen)
    assert "worker 7 must go on from batch 8, which was in storage, but went on from 6" in broken


def test_a_trial_that_begins_again_after_its_end_is_named() -> None:
    seen = [Seen(at=1.0, width=4, place=0, ended=True)]
    again = Life(pid=7, width=4, began=2.0, places=[1, 2])
    assert any("has ended" in broken for broken in checks.repeated([again], seen))
    other = Life(pid=7, width=5, began=2.0, places=[1, 2])
    assert list(checks.repeated([other], seen)) == []


def test_a_configuration_that_is_trained_to_its_end_twice_is_named() -> None:
    whole = [Life(pid=pid, width=4, began=0.0, places=[1, 2, 3]) for pid in (1, 2)]
    part = Life(pid=3, width=4, began=0.0, places=[2, 3])
    assert list(checks.whole([whole[0], part], last=3)) == []
    (broken,) = checks.whole([*whole, part], last=3)
    assert "width 4" in broken
