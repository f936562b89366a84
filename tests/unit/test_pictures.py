"""Pictures as SVG: axes with round numbers, labels that do not lie on each other, escaped text."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagleray.look import pictures
from eagleray.look.pictures import Axis, Series


@given(
    st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=5).filter(
        lambda some: max(some) == min(some) or max(some) - min(some) > 1e-6 * max(map(abs, some))
    )
)
def test_an_axis_holds_its_values_and_has_a_few_round_ticks(values: list[float]) -> None:
    axis = Axis.over("x", values)
    assert axis.low < min(values) <= max(values) < axis.high
    assert 2 <= len(axis.ticks) <= 7
    room = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - room <= tick <= axis.high + room for tick in axis.ticks)


@pytest.mark.parametrize(("low", "high", "ticks"), [(-3, 0, 4), (-12, 5, 4), (0, 1, 2)])
def test_an_axis_of_powers_of_ten_has_whole_exponents(low: int, high: int, ticks: int) -> None:
    axis = Axis("norm", low, high, powers=True)
    assert len(axis.ticks) == ticks
    assert all(tick == round(tick) for tick in axis.ticks)
    assert axis.written(-3.0) == "1e-3"


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (1980.0, "1980"), (-5e5, "-500k"), (1.5e6, "1.5M"), (0.25, "0.25"), (1e-17, "0")],
)
def test_an_axis_has_room_for_few_letters(value: float, said: str) -> None:
    assert Axis("x", -1, 1).written(value) == said


def test_the_name_of_a_diagonal_ends_within_the_picture() -> None:
    svg = str(pictures.plot([], Axis("x", 0, 1), Axis("y", 0, 1), says="", diagonal="m" * 17))
    (x,) = re.findall(r'x="([\d.]+)"[^>]*>m+<', svg)
    assert float(x) + 17 * 6.5 <= 360


def drawn(*series: Series) -> str:
    return str(pictures.plot(series, Axis("x", 0, 1), Axis("y", 0, 1), says="two < lines"))


def test_names_of_lines_that_end_together_are_spread() -> None:
    lines = [Series(f"line {n}", [0, 1], [0, 0.5 + n / 1000], colour=n) for n in range(6)]
    found = re.findall(r'class="name s\d" x="[\d.]+" y="([\d.]+)"', drawn(*lines))
    heights = sorted(map(float, found))
    assert len(heights) == 6
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 12.9


def test_what_is_not_a_number_is_left_out_and_text_is_escaped() -> None:
    svg = drawn(Series("<a>", [0, 0.5, 1], [0, math.nan, 1]), Series("b", [0], [math.inf]))
    assert "nan" not in svg
    assert "inf" not in svg
    assert "<a>" not in svg
    assert 'aria-label="two &lt; lines"' in svg


@pytest.mark.parametrize("low", [None, 0.8])
def test_a_value_with_or_without_an_interval_is_said_to_who_cannot_see_it(
    low: float | None,
) -> None:
    high = None if low is None else 1.0
    svg = pictures.dots([("ours", 0.9, low, high), ("theirs", 0.7, None, None)], "accuracy")
    said = "ours 0.9 (0.8 to 1); theirs 0.7" if low else "ours 0.9; theirs 0.7"
    assert f'aria-label="accuracy: {said}"' in svg
    assert svg.count("<circle") == 2
