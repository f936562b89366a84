"""Groups that are predicted worse are found, and those that are not are left alone."""

import numpy as np
import pytest
from scipy import stats

from eagleray import evaluation
from eagleray.evaluation import slices
from eagleray.learn import schema

TARGET = schema.Target(name="price", task="regression")
COLUMNS = (
    schema.Column(name="age", type="numeric"),
    schema.Column(name="city", type="categorical"),
    schema.Column(name="member", type="boolean", nullable=True),
)


def found(rows: int, seed: int, wrong: str = "") -> tuple[list[dict[str, str]], int]:
    """The groups that are found; `wrong` names the rows whose error is larger."""
    random = np.random.default_rng(seed)
    age = random.uniform(18, 80, rows)
    city = random.choice(np.array(["Bern", "Oslo", "Rome"], object), rows)
    member = random.choice(np.array([0.0, 1.0, np.nan]), rows)
    error = random.normal(size=rows)
    bad = {
        "city": city == "Oslo",
        "pair": (city == "Rome") & (age > 62),
        "missing": np.isnan(member),
    }.get(wrong, np.zeros(rows, bool))
    error[bad] *= 4
    judged = evaluation.Judged(TARGET, np.zeros(rows), error, ("mae",))
    pairs = list(zip(COLUMNS, (age, city, member), strict=True))
    listed, looked = slices.worst(judged, "mae", pairs, np.abs(error))
    for one in listed:
        assert one.miss.low is not None
        assert one.miss.low > one.others
        assert one.score is not None
    return [one.where for one in listed], looked


def test_a_bad_group_of_one_column_is_named_without_its_parts() -> None:
    assert found(2000, 1, "city")[0] == [{"city": "Oslo"}]
    assert found(2000, 1, "missing")[0][0]["member"] == "missing"


def test_a_bad_group_of_two_columns_is_named_first() -> None:
    where = found(4000, 2, "pair")[0][0]
    assert where["city"] == "Rome"
    assert float(where["age"].split(" to ")[0]) > 60


def test_groups_of_a_text_are_said_to_be_of_its_words_and_numbers_have_no_exponents() -> None:
    text, sum_of = schema.Column(name="note", type="text"), schema.Column(name="x", type="numeric")
    made = slices.groups(text, np.array(["one", "two words", None, "two more"], object))
    assert (made.column, made.names[0]) == ("number of words in note", "1")
    assert slices.groups(sum_of, np.array([12_345.0, 1e6])).names[0] == "12,340"


def test_among_equal_groups_few_are_named_by_chance() -> None:
    """Holm's correction: in 5 of 100 data sets at most one is named; binomial noise beside it."""
    sets = [found(600, seed) for seed in range(60)]
    assert sum(bool(listed) for listed, _ in sets) <= 7
    assert min(looked for _, looked in sets) > 20


@pytest.mark.parametrize("rows", [2, 30])
def test_a_part_of_few_rows_has_no_groups(rows: int) -> None:
    assert found(rows, 1) == ([], 0)


def test_names_beyond_the_most_frequent_are_one_group() -> None:
    words = np.array([f"n{number % 40}" for number in range(400)], object)
    of = slices.groups(COLUMNS[1], words)
    assert len(of.names) == slices.MOST_NAMES + 1
    assert of.names[-1] == "other"
    assert (of.place_B == slices.MOST_NAMES).sum() == 400 - 10 * slices.MOST_NAMES


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        ("boolean", [0.0, 1.0], ["0", "1"]),
        ("numeric", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], ["0 to 1", "2 to 3", "4 to 5"]),
        (
            "datetime",
            [0.0, 86_400.0],
            ["1970-01-01", "1970-01-02"],
        ),
    ],
)
def test_a_range_is_named_by_its_own_smallest_and_largest_value(
    kind: str, values: list[float], names: list[str]
) -> None:
    column = schema.Column(name="c", type=kind)
    of = slices.groups(column, np.tile(np.array(values), 50))
    assert of.names[: len(names)] == names
    assert len(set(of.names)) == len(of.names)


def test_a_group_that_is_all_wrong_while_the_rest_is_all_right_is_found() -> None:
    city = np.array(["Oslo", "Rome", "Bern"], object)[np.arange(300) % 3]
    miss = (city == "Oslo").astype(float)
    judged = evaluation.Judged(TARGET, np.zeros(300), miss, ("mae",))
    listed, _ = slices.worst(judged, "mae", [(COLUMNS[1], city)], miss)
    assert [one.where for one in listed] == [{"city": "Oslo"}]
    assert (listed[0].miss.value, listed[0].others) == (1.0, 0.0)


def test_the_correction_counts_the_pairs_that_were_not_chosen() -> None:
    """The same groups beside 30 columns of which ten are chosen: intervals are wider."""

    def width(columns: int) -> float:
        random = np.random.default_rng(5)
        age = random.uniform(18, 80, 2000)
        miss = np.abs(random.normal(size=2000) * np.where(age > 64, 4, 1))
        pairs = [(COLUMNS[0], age)]
        for number in range(columns):
            one = schema.Column(name=f"n{number}", type="numeric")
            pairs.append((one, random.normal(size=2000)))
        judged = evaluation.Judged(TARGET, np.zeros(2000), miss, ("mae",))
        listed, looked = slices.worst(judged, "mae", pairs, miss)
        (one,) = [found for found in listed if list(found.where) == ["age"]]
        assert one.miss.high is not None
        tests = (columns + 1) * 4 + (columns + 1) * columns // 2 * 16
        assert looked <= tests
        inside = miss[age >= float(one.where["age"].split(" to ")[0])]
        reach = stats.norm.ppf(1 - slices.LEVEL / (2 * tests))
        expected = reach * inside.std(ddof=1) / np.sqrt(len(inside))
        return (one.miss.high - one.miss.value) / float(expected)

    assert width(9) == pytest.approx(1, rel=0.02)
    assert width(30) == pytest.approx(1, rel=0.02)
