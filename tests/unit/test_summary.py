"""What `check` says of data beside their types."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml

from eagleray import spec
from eagleray.learn import tasks
from ray_jobs.data import prepare

TRUTHS = ["no", "no", "no", "no", "yes"] * 20


def told(
    folder: Path, columns: Mapping[str, Sequence[object]], **sections: object
) -> tuple[str, list[str]]:
    """What is said of the target, and the remarks."""
    table = pd.DataFrame({"n": range(0, 300, 3), "y": TRUTHS} | dict(columns))
    table.to_csv(folder / "rows.csv", index=False)
    sections = {"name": "x", "data": {"source": "rows.csv", "target": "y"}} | sections
    (folder / "experiment.yaml").write_text(yaml.safe_dump(sections))
    experiment = spec.load(folder / "experiment.yaml")
    dataset = prepare.dataset(experiment)
    target = dataset.schema.target
    said = tasks.of(target).summary(dataset.targets)
    return said, list(prepare.remarks(experiment, dataset))


def fixed(remark: str) -> dict[str, dict[str, object]]:
    """The line of YAML in a remark."""
    found: dict[str, dict[str, object]] = yaml.safe_load(remark.split("`")[1])
    return found


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (TRUTHS, "binary, no (80 %), yes (20 %), yes is positive"),
        (["a"] * 50 + ["b"] * 47 + ["c"] * 3, "multiclass, a (50 %), b (47 %), c (3 %)"),
        (
            ["k0"] * 56 + [f"k{n}" for n in range(1, 12) for _ in range(4)],
            "multiclass, 12 classes from k0 (56 %) to k1 (4 %)",
        ),
        ([n / 4 for n in range(100)], "regression, 0 to 24.75, median 12.375"),
    ],
)
def test_the_target_is_told_with_its_shares_or_its_range(
    tmp_path: Path, target: list[object], said: str
) -> None:
    assert told(tmp_path, {"y": target})[0] == said


def test_ordinary_columns_need_no_remark(tmp_path: Path) -> None:
    columns = {"kind": ["a", "b"] * 50, "code": ["01067", "80331"] * 50, "x_id": [1, 2] * 50}
    assert told(tmp_path, columns)[1] == []


def test_a_constant_column_is_told_with_what_leaves_it_out(tmp_path: Path) -> None:
    columns = {"same": ["a"] * 100, "zero": [0] * 100, "gaps": ["a", ""] * 50}
    found = told(tmp_path, columns)[1]
    assert [remark.split(": ")[0] for remark in found] == ["same", "zero"]
    assert found[0] == "same: all rows have the same value; `data: {drop: [same]}` leaves it out"


def test_categories_that_are_taken_as_one_are_counted(tmp_path: Path) -> None:
    columns = {"city": ["a"] * 50 + ["b"] * 30 + [f"rare {n % 4}" for n in range(20)]}
    given = {"city": {"type": "categorical", "max_categories": 2}}
    (remark,) = told(tmp_path, columns, features=given)[1]
    assert remark.startswith(
        "city: of 6 categories the 2 most frequent count; the other 4, 20 % of the rows, are"
    )
    assert told(tmp_path, columns, **fixed(remark))[1] == []


def test_a_column_that_is_mostly_numbers_is_told_with_the_line_that_makes_it_one(
    tmp_path: Path,
) -> None:
    columns = {"age": [20 + n for n in range(86)] + ["not told"] * 10 + ["old", "dead", "x", "z"]}
    (remark,) = told(tmp_path, columns)[1]
    assert remark == (
        "age: 86 % of its values are numbers, but not 'not told', 'old', 'dead' and 2 more,"
        " so it is categorical; `features: {age: {type: numeric}}` makes it numeric, with"
        " these as missing"
    )
    assert told(tmp_path, columns, **fixed(remark))[1] == []


def test_whole_numbers_may_be_made_quantities_or_classes(tmp_path: Path) -> None:
    few, many = [n % 7 for n in range(100)], [n % 25 for n in range(200)]
    (remark,) = told(tmp_path, {"y": few})[1]
    assert remark.startswith("y: 7 different whole numbers are classes; ")
    said, left = told(tmp_path, {"y": few}, **fixed(remark))
    assert (said, left) == ("regression, 0 to 6, median 3", [])
    longer = {"n": range(0, 600, 3), "y": many}
    (remark,) = told(tmp_path, longer)[1]
    assert remark.startswith("y: 25 different whole numbers are quantities; ")
    said, left = told(tmp_path, longer, **fixed(remark))
    assert said == "multiclass, 25 classes from 24 (4 %) to 0 (4 %)"
    assert left == []
