"""Rows parted into training, validation and test."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eagleray import errors, spec
from eagleray.learn import schema
from ray_jobs.data import split

LAW = settings(max_examples=40)
NUMBER = schema.Target(name="y", task="regression")
SHARES = st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.45])


def data(seed: int = 0, **shares: Any) -> spec.Data:
    return spec.Data(source="rows.csv", target="y", seed=seed, split=spec.Split(**shares))


def classes(count: int) -> schema.Target:
    task = "binary" if count == 2 else "multiclass"
    return schema.Target(name="y", task=task, classes=tuple(map(str, range(count))))


def assert_parts(made: split.Split, count: int) -> None:
    """Disjoint, and together all rows, each part in order."""
    together = np.concatenate(list(made.parts().values()))
    assert sorted(together.tolist()) == list(range(count))
    assert all((np.diff(rows) > 0).all() for rows in made.parts().values())


@given(st.integers(3, 400), SHARES, SHARES, st.integers(0, 2**32 - 1))
@LAW
def test_a_random_split_gives_each_row_to_one_part(
    count: int, validation: float, test: float, seed: int
) -> None:
    made = split.indices(
        np.zeros(count), NUMBER, data(seed, validation=validation, test=test, stratify=False)
    )
    assert_parts(made, count)
    assert abs(len(made.test) - test * count) <= 1
    assert abs(len(made.validation) - validation * count) <= 1


@given(st.lists(st.integers(0, 2), min_size=30, max_size=300), st.integers(0, 1000))
@LAW
def test_a_stratified_split_keeps_the_shares_of_the_classes(drawn: list[int], seed: int) -> None:
    targets = np.array(drawn)
    counts = np.bincount(targets, minlength=3)
    assume((counts >= 5).all())
    made = split.indices(targets, classes(3), data(seed))
    assert_parts(made, len(targets))
    for rows in (made.validation, made.test):
        assert np.abs(np.bincount(targets[rows], minlength=3) - counts * 0.2).max() <= 1.5


@given(st.lists(st.sampled_from("abcdefghij"), min_size=3, max_size=120), st.integers(0, 1000))
@LAW
def test_a_group_is_never_in_two_parts(drawn: list[str], seed: int) -> None:
    groups = np.array(drawn, object)
    assume(len(set(drawn)) >= 3)
    made = split.indices(np.zeros(len(groups)), NUMBER, data(seed, group="who"), groups=groups)
    assert_parts(made, len(groups))
    parts = [set(groups[rows]) for rows in made.parts().values()]
    assert parts[0].isdisjoint(parts[1] | parts[2])
    assert parts[1].isdisjoint(parts[2])


@given(st.lists(st.floats(-1e9, 1e9), min_size=5, max_size=200, unique=True))
@LAW
def test_a_split_by_time_tests_on_the_latest_rows(drawn: list[float]) -> None:
    times = np.array(drawn)
    made = split.indices(np.zeros(len(times)), NUMBER, data(time="when"), times=times)
    assert_parts(made, len(times))
    assert times[made.train].max() < times[made.validation].min()
    assert times[made.validation].max() < times[made.test].min()


def test_rows_of_one_time_stay_together() -> None:
    times = np.repeat(np.arange(10.0), 7)[np.random.default_rng(0).permutation(70)]
    made = split.indices(np.zeros(70), NUMBER, data(time="when"), times=times)
    assert [len(rows) for rows in made.parts().values()] == [42, 14, 14]
    assert times[made.validation].max() < times[made.test].min()


def test_the_same_seed_gives_the_same_rows_on_every_machine() -> None:
    targets = np.arange(1000) % 3
    made = split.indices(targets, classes(3), data(seed=7))
    again = split.indices(targets, classes(3), data(seed=7))
    digest = hashlib.sha256(made.test.astype("<i8").tobytes()).hexdigest()
    assert (made.test == again.test).all()
    assert digest.startswith("5244a6b6cd784ceadbb4b50bcb93ded5")


@pytest.mark.parametrize(
    ("targets", "target", "more", "message"),
    [
        ([0] * 9 + [1], classes(2), {}, "y: each class needs at least 3 rows, .* '1' has 1"),
        ([0, 1, 2, 3] * 3, classes(4), {"test": 0.1}, "each part needs rows of all 4 classes"),
        ([0.0, 1.0], NUMBER, {}, "at least three rows are needed, but got 2"),
        ([0] * 9 + [1], classes(2), {"stratify": False}, "part needs rows of each class"),
    ],
)
def test_rows_that_cannot_be_parted_are_refused(
    targets: list[float], target: schema.Target, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.DataError, match=message):
        split.indices(np.array(targets), target, data(**more))


def test_too_few_groups_or_times_are_refused() -> None:
    zeros, groups = np.zeros(9), np.array(["a", "b", "a"] * 3, object)
    with pytest.raises(errors.DataError, match="at least three groups in who are needed"):
        split.indices(zeros, NUMBER, data(group="who"), groups=groups)
    with pytest.raises(errors.DataError, match=r"each part needs rows, but the .* part has none"):
        split.indices(zeros, NUMBER, data(time="when"), times=np.ones(9))


@given(st.integers(60, 300), st.integers(0, 5))
@LAW
def test_a_regressions_parts_have_rows_from_the_whole_range_of_the_target(
    count: int, seed: int
) -> None:
    values = np.random.default_rng(seed).lognormal(0, 1, count).astype(np.float32)
    parts = split.indices(values, NUMBER, data(seed)).parts()
    ranks = np.argsort(np.argsort(values))
    for rows in parts.values():
        spread = ranks[rows].mean() / (count - 1)
        assert abs(spread - 0.5) < 0.15
