"""One spelling for each kind of value."""

import datetime
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eagleray.learn.columns import values

LAW = settings(max_examples=100)
TIMES = st.datetimes(
    min_value=datetime.datetime(1, 1, 2), max_value=datetime.datetime(9999, 12, 30)
)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (" 12 ", 12.0),
        ("-1.5e3", -1500.0),
        ("1,234,567.5", 1234567.5),
        ("12 345", 12345.0),
        ("12\u00a0345", 12345.0),
        ("1'000", 1000.0),
        ("$1,200.50", 1200.5),
        ("-$5", -5.0),
        ("12 %", 12.0),
        ("9.99 €", 9.99),
        ("($1,577.91)", -1577.91),
        ("\u22123.1", -3.1),
        (True, 1.0),
        (Decimal("1.25"), 1.25),
        (np.float32(0.5), 0.5),
        (10**400, math.inf),
    ],
)
def test_numbers_are_read_however_they_are_written(written: object, number: float) -> None:
    assert values.number(written) == number


@pytest.mark.parametrize(
    "text",
    ["abc", "1,23,456", "0,123", "(-5)", "1_000", "12 3", "", "$", "1.2.3", None, [1]],
)
def test_what_is_no_number_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="no number"):
        values.number(text)


def test_a_decimal_comma_is_read_where_the_column_has_one() -> None:
    assert values.number("1.234,5", comma=True) == 1234.5
    assert values.number("3,14", comma=True) == 3.14
    assert values.number(3.14, comma=True) == 3.14


@given(st.floats(allow_nan=False))
@LAW
def test_a_number_comes_back_from_its_text(number: float) -> None:
    assert values.number(repr(number)) == number


def test_booleans_are_read_from_words_numbers_and_booleans() -> None:
    assert [values.boolean(one) for one in (True, "Yes", " on ", 1, 1.0, "1.0", "T")] == [1.0] * 7
    assert [values.boolean(one) for one in (False, "no", "OFF", 0, 0.0, "F")] == [0.0] * 6
    with pytest.raises(ValueError, match="no boolean"):
        values.boolean(2)


@given(TIMES)
@LAW
def test_a_time_comes_back_from_its_text_to_the_millisecond(time: datetime.datetime) -> None:
    seconds = values.datetime(time)
    assert values.datetime(values.isoformat(seconds)) == seconds
    assert values.datetime(time.isoformat()) == seconds


def test_zones_are_brought_to_utc_and_a_time_without_one_is_in_utc() -> None:
    assert values.datetime("1970-01-01T01:00:00+01:00") == 0.0
    assert values.datetime("1970-01-01 00:00") == values.datetime(datetime.date(1970, 1, 1)) == 0.0


def test_numbers_are_dates_of_eight_digits_or_seconds() -> None:
    assert values.datetime(20240131) == values.datetime("2024-01-31")
    assert values.datetime(1_700_000_000) == values.datetime("1700000000") == 1.7e9


@pytest.mark.parametrize("odd", ["soon", "2024-13-01", "31/01/2024", 1e300, [], "\0"])
def test_what_is_no_time_is_refused(odd: object) -> None:
    with pytest.raises((ValueError, OverflowError)):
        values.datetime(odd)


def test_whole_numbers_are_one_category_however_they_are_written() -> None:
    assert {values.category(one) for one in (3, 3.0, "3", " 3.0 ", np.int64(3), Decimal(3))} == {
        "3"
    }
    assert values.category("007") == "007"
    assert values.category(True) == "true"
    assert values.category(1.5) == "1.5"


def test_lists_and_mappings_are_no_category() -> None:
    for value in ([], {}, object()):
        with pytest.raises(ValueError, match="no name"):
            values.category(value)
