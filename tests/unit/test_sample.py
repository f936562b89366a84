"""Which part a streamed row is in."""

import numpy as np
import pytest

from eagleray import spec
from ray_jobs.data import sample

SPLIT = spec.Split(validation=0.2, test=0.1)


def test_lots_are_uniform_follow_from_the_place_and_are_the_same_everywhere() -> None:
    lots = sample.lots(0, 3, 0, 100_000)
    assert np.histogram(lots, bins=10, range=(0, 1))[0] == pytest.approx([10_000] * 10, rel=0.05)
    assert len(np.unique(lots)) == len(lots)
    assert sample.lots(0, 3, 500, 10).tolist() == lots[500:510].tolist()
    assert (sample.lots(1, 3, 0, 10) != lots[:10]).all()
    assert (sample.lots(0, 4, 0, 10) != lots[:10]).all()
    assert sample.lots(0, 0, 0, 2).tolist() == [0.8494404291335722, 0.047753479207520155]


def test_parts_have_their_shares_while_there_are_few_rows() -> None:
    ranges = sample.Ranges.of(SPLIT, rows=1000, most=1000)
    counts = np.bincount(ranges.parts(np.linspace(0, 1, 1000, endpoint=False)), minlength=4)
    assert counts.tolist() == pytest.approx([0, 700, 200, 100], abs=1)


def test_of_many_rows_parts_in_memory_have_as_many_as_are_asked_for_and_the_others_train() -> None:
    ranges = sample.Ranges.of(SPLIT, rows=1000, most=50)
    lots = np.linspace(0, 1, 1000, endpoint=False)
    counts = np.bincount(ranges.parts(lots)).tolist()
    assert counts == pytest.approx([850, 50, 50, 50], abs=1)


def test_narrower_ranges_keep_the_part_of_each_row_that_they_hold() -> None:
    lots = sample.lots(0, 0, 0, 10_000)
    wide = sample.Ranges.of(SPLIT, rows=10_000, most=900)
    narrow = sample.Ranges.of(SPLIT, rows=12_000, most=300).within(wide)
    before, after = wide.parts(lots), narrow.parts(lots)
    held = after != sample.TRAIN
    assert (before[held] == after[held]).all()
    assert sample.Ranges.of(SPLIT, rows=100, most=100).within(wide) == wide
