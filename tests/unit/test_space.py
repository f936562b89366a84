"""Distributions: what they suggest, count and hold."""

import math
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagleray.spec import space

optuna.logging.set_verbosity(optuna.logging.WARNING)

SCALARS = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-1, 1) | st.text(max_size=3)
CHOICES = st.lists(SCALARS | st.lists(SCALARS, max_size=2), min_size=1, max_size=5, unique_by=repr)
STARTS, COUNTS = st.integers(-50, 50), st.integers(1, 40)
FINITE = st.one_of(
    CHOICES.map(lambda values: {"choice": values}),
    st.builds(lambda low, count: {"randint": [low, low + count]}, STARTS, COUNTS),
    st.builds(
        lambda low, count, step: {"quniform": [low, low + count * step, step]},
        STARTS,
        COUNTS,
        st.integers(1, 9),
    ),
    st.builds(lambda low, count: {"quniform": [low / 10, (low + count) / 10, 0.1]}, STARTS, COUNTS),
)
CONTINUOUS = st.builds(
    lambda kind, low, width: {kind: [low, low + width]},
    st.sampled_from(["uniform", "loguniform"]),
    st.floats(1e-6, 1.0),
    st.floats(1e-3, 1e3),
)


def parse(written: dict[str, Any]) -> space.Distribution:
    ((kind, arguments),) = written.items()
    return space.parse(kind, arguments)


def drawn(distribution: space.Distribution, count: int = 8) -> list[object]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [distribution.suggest(study.ask(), "key") for _ in range(count)]


@given(FINITE)
def test_what_a_finite_distribution_suggests_is_in_its_grid(written: dict[str, Any]) -> None:
    distribution = parse(written)
    grid = distribution.grid()
    assert len(grid) == distribution.size()
    assert all(repr(value) in map(repr, grid) for value in drawn(distribution))
    assert repr(distribution.default()) in map(repr, grid)


@given(CONTINUOUS)
def test_what_a_continuous_distribution_suggests_lies_between_its_ends(
    written: dict[str, Any],
) -> None:
    distribution = parse(written)
    (_, low), (_, high) = distribution.ends()
    assert distribution.size() == math.inf
    for value in [*drawn(distribution), distribution.default()]:
        assert low <= value <= high or math.isclose(low, high)  # type: ignore[operator]


@given(FINITE | CONTINUOUS)
def test_a_distribution_is_written_as_it_was_read(written: dict[str, Any]) -> None:
    distribution = parse(written)
    assert {distribution.kind: distribution.arguments} == written
    assert space.kind_of(written) == distribution.kind


def test_the_upper_end_of_randint_is_left_out_and_that_of_quniform_is_not() -> None:
    assert parse({"randint": [1, 4]}).grid() == [1, 2, 3]
    assert parse({"quniform": [0.1, 0.4, 0.1]}).grid() == [0.1, 0.2, 0.3, 0.4]
    assert parse({"quniform": [32, 96, 32]}).grid() == [32, 64, 96]


def test_the_middle_of_loguniform_is_geometric() -> None:
    assert parse({"loguniform": [1e-4, 1e-2]}).default() == pytest.approx(1e-3)
    assert parse({"choice": ["b", "a"]}).default() == "b"


def test_choices_that_optuna_would_mix_up_stay_apart() -> None:
    distribution = parse({"choice": [1, True, 1.0, "1", [1], None, {"patience": 1}]})
    assert {repr(value) for value in drawn(distribution, 99)} == set(map(repr, distribution.grid()))


def test_what_a_trial_was_told_gives_the_same_value_again() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    distribution = parse({"choice": [[128], [256, 128]]})
    trial = study.ask()
    value = distribution.suggest(trial, "model.hidden")
    assert distribution.suggest(optuna.trial.FixedTrial(trial.params), "model.hidden") == value


@pytest.mark.parametrize(
    ("written", "law"),
    [
        ({"choice": []}, "choice needs a list of at least one value, each once"),
        ({"choice": "adam"}, "choice needs a list"),
        ({"choice": [1, 2, 1]}, "each once"),
        ({"uniform": [1]}, "uniform needs [low, high], two numbers with low < high"),
        ({"uniform": [2, 1]}, "low < high"),
        ({"uniform": ["a", 1]}, "two numbers"),
        ({"uniform": [0, math.inf]}, "two numbers"),
        ({"uniform": [False, True]}, "two numbers"),
        ({"loguniform": [0, 1]}, "0 < low < high"),
        ({"randint": [0.5, 3]}, "whole numbers"),
        ({"randint": [3, 3]}, "high left out"),
        ({"quniform": [0, 1]}, "[low, high, step]"),
        ({"quniform": [0, 1, 0.3]}, "whole steps between"),
        ({"quniform": [0, 1, -1]}, "whole steps between"),
    ],
)
def test_a_distribution_that_makes_no_sense_is_refused(written: dict[str, Any], law: str) -> None:
    with pytest.raises(ValueError, match="needs") as caught:
        parse(written)
    assert law in str(caught.value)


def test_distributions_are_found_and_replaced_wherever_they_stand() -> None:
    lr, width = parse({"uniform": [0, 1]}), parse({"choice": [64, 128]})
    tree = {"train": {"lr": lr}, "model": {"hidden": [width, 32]}}
    assert space.find(tree) == [(("train", "lr"), lr), (("model", "hidden", 0), width)]
    filled = space.fill(tree, {("train", "lr"): 0.5, ("model", "hidden", 0): 128})
    assert filled == {"train": {"lr": 0.5}, "model": {"hidden": [128, 32]}}
