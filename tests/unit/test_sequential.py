"""Sequential tests of two rates: how often they stop what is equal, and how soon what is worse."""

import math

import numpy as np
import pytest

from serving import sequential
from serving.sequential import Count

STOP = math.log(100)  # a false alarm in a hundred rollouts at most
STABLE, CANDIDATE = 380, 20  # requests of a block: a share of 5 %
RUNS, BLOCKS = 200, 60


def stopped(rates: tuple[float, float], by: float, apart: bool, seed: int = 0) -> list[int]:
    """The blocks after which runs stop that are looked at after each block; 0 for never."""
    random, test = np.random.default_rng(seed), sequential.log_e_above
    test = sequential.log_e_apart if apart else test
    found = []
    for _ in range(RUNS):
        before, log_e, at = (Count(), Count()), 0.0, 0
        for block in range(1, BLOCKS + 1):
            sizes = zip((STABLE, CANDIDATE), rates, strict=True)
            old, new = (Count(int(random.binomial(size, rate)), size) for size, rate in sizes)
            log_e += test(old, new, before, by)
            before = before[0].plus(old), before[1].plus(new)
            if log_e >= STOP:
                at = block
                break
        found.append(at)
    return found


@pytest.mark.parametrize(
    ("rates", "by", "apart"),
    [
        ((0.0, 0.0), 0.0, False),
        ((0.01, 0.01), 0.0, False),
        ((0.05, 0.05), 0.0, False),
        ((0.01, 0.02), 0.01, False),
        ((0.05, 0.01), 0.0, False),
        ((0.3, 0.4), 0.1, True),
        ((0.3, 0.2), 0.1, True),
    ],
)
def test_rates_within_the_tolerance_are_stopped_once_in_a_hundred_at_most(
    rates: tuple[float, float], by: float, apart: bool
) -> None:
    assert sum(map(bool, stopped(rates, by, apart))) <= RUNS / 100 + 3


@pytest.mark.parametrize(
    ("rates", "by", "apart", "blocks"),
    [
        ((0.0, 0.05), 0.0, False, 10),
        ((0.01, 0.1), 0.01, False, 12),
        ((0.05, 0.9), 0.05, False, 3),
        ((0.5, 1.0), 0.1, True, 3),
        ((0.5, 0.0), 0.1, True, 3),
    ],
)
def test_rates_beyond_it_are_stopped_soon(
    rates: tuple[float, float], by: float, apart: bool, blocks: int
) -> None:
    found = stopped(rates, by, apart)
    assert all(found)
    assert np.median(found) <= blocks


def test_the_expectation_of_an_e_value_is_at_most_one_all_over_the_null_hypothesis() -> None:
    before = Count(10, 200), Count(40, 200)  # the alternative: 0.05 and 0.2
    for by in (0.0, 0.05):
        for old in np.linspace(0.01, 0.9, 12):
            for new in np.linspace(0.01, min(0.99, old + by), 5):
                mean = sum(
                    _mass(a, 3, old)
                    * _mass(b, 2, new)
                    * math.exp(sequential.log_e_above(Count(a, 3), Count(b, 2), before, by))
                    for a in range(4)
                    for b in range(3)
                )
                assert mean <= 1 + 1e-9


def test_a_block_without_traffic_of_one_version_says_nothing() -> None:
    before = Count(0, 100), Count(50, 100)
    assert sequential.log_e_above(Count(), Count(5, 10), before, 0.0) == 0.0
    assert sequential.log_e_above(Count(1, 10), Count(), before, 0.0) == 0.0


def test_the_mean_of_e_values_is_not_moved_by_small_ones() -> None:
    third = 1 / 3
    few = [(third, math.log(300)), (third, -50.0), (third, -50.0)]
    assert sequential.mean(few) == pytest.approx(math.log(100))
    assert sequential.mean([]) == 0.0
    assert sequential.mean([(0.5, 900.0), (0.5, 900.0)]) == pytest.approx(900.0)
    assert sequential.mean([(0.1, -50.0)]) == pytest.approx(math.log(0.9))  # the rest counts as 1


def _mass(events: int, trials: int, rate: float) -> float:
    return math.comb(trials, events) * rate**events * (1 - rate) ** (trials - events)
