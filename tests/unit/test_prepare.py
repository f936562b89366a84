"""From an experiment file to canonical columns, targets and parts."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from eagleray import errors, spec
from eagleray.learn import features
from ray_jobs.data import prepare

DATA = Path(__file__).parents[1] / "data"

ROWS = "when,who,n,y\n" + "".join(
    f"2024-01-{1 + n % 28:02},user{n % 7},{n * 37 % 11},{'ab'[n % 2]}\n" for n in range(84)
)


def prepared(folder: Path, data: str, features: str = "{}") -> prepare.Dataset:
    path = folder / "experiment.yaml"
    path.write_text(f"name: test\ndata: {data}\nfeatures: {features}\nstorage: file:///tmp/e\n")
    return prepare.dataset(spec.load(path))


def types(made: prepare.Dataset) -> dict[str, str]:
    return {column.name: column.type for column in made.schema.columns}


@pytest.mark.parametrize(
    ("name", "task", "columns"),
    [
        ("digits", "multiclass", 1),
        ("breast_cancer", "binary", 30),
        ("wine", "multiclass", 13),
        ("iris", "multiclass", 4),
        ("diabetes", "regression", 10),
    ],
)
def test_data_sets_of_scikit_learn_are_prepared_without_a_word(
    tmp_path: Path, name: str, task: str, columns: int
) -> None:
    made = prepared(tmp_path, f"{{source: 'dataset:{name}', target: target}}")
    assert made.schema.target.task == task
    assert len(made.columns) == columns
    assert made.notes == []


def test_adult_is_prepared(tmp_path: Path) -> None:
    made = prepared(tmp_path, f"{{source: '{DATA}/adult.csv.gz', target: income}}")
    assert made.schema.target.classes == ("<=50K", ">50K")
    assert list(types(made).values()).count("numeric") == 6
    assert {c.name for c in made.schema.columns if c.nullable} == {
        "workclass",
        "occupation",
        "native_country",
    }


def test_sms_are_prepared(tmp_path: Path) -> None:
    data = f"{{source: '{DATA}/sms_spam.csv.gz', target: label, positive: spam}}"
    made = prepared(tmp_path, data)
    assert types(made) == {"text": "text"}
    assert made.schema.target.classes == ("ham", "spam")
    assert len(made.targets) == 5574


def test_the_fingerprint_follows_content_seed_and_types_and_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    first = prepared(tmp_path, "{source: rows.csv, target: y}").fingerprint
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(tmp_path / "rows.csv", elsewhere / "same.csv")
    assert prepared(elsewhere, "{source: same.csv, target: y}").fingerprint == first
    others = {
        prepared(tmp_path, "{source: rows.csv, target: y, seed: 1}").fingerprint,
        prepared(tmp_path, "{source: rows.csv, target: y}", "{n: {type: categorical}}").fingerprint,
    }
    (tmp_path / "rows.csv").write_text(ROWS.replace("user3,1", "user3,2", 1))
    others.add(prepared(tmp_path, "{source: rows.csv, target: y}").fingerprint)
    assert len(others | {first}) == 4


def test_rows_are_parted_by_group(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    made = prepared(tmp_path, "{source: rows.csv, target: y, split: {group: who}}")
    assert types(made) == {"when": "datetime", "n": "numeric"}
    users = [set(rows % 7) for rows in made.split.parts().values()]
    assert users[0].isdisjoint(users[1] | users[2])
    assert users[1].isdisjoint(users[2])


def test_rows_are_parted_by_time(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    made = prepared(tmp_path, "{source: rows.csv, target: y, split: {time: when}}")
    days = [rows % 28 for rows in made.split.parts().values()]
    assert days[0].max() < days[1].min() <= days[1].max() < days[2].min()
    with pytest.raises(
        errors.DataError, match=r"data.split.time: dates .*, but who is categorical"
    ):
        prepared(tmp_path, "{source: rows.csv, target: y, split: {time: who}}")


def test_transforms_learn_from_the_training_part_alone(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    made = prepared(tmp_path, "{source: rows.csv, target: y}")
    training = {name: column[made.split.train] for name, column in made.columns.items()}
    fitted = features.Transforms.fit(made.schema, {}, training)
    encoded = fitted.apply(training)["numeric"]
    place = fitted.numbers.names.index("n")
    assert abs(float(np.mean(encoded[:, place]))) < 1e-6


def test_a_class_that_cannot_be_in_every_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS + "2024-01-01,user1,3,c\n")
    with pytest.raises(errors.DataError, match=r"each class needs at least 3 rows, .* 'c' has 1"):
        prepared(tmp_path, "{source: rows.csv, target: y}")


def test_every_rare_class_is_named_and_numbers_are_told_what_makes_them_a_regression(
    tmp_path: Path,
) -> None:
    rows = "x,y\n" + "".join(f"{n % 7},{n * 0.5}\nred,n.d.\n" for n in range(50))
    (tmp_path / "rows.csv").write_text(rows)
    with pytest.raises(
        errors.DataError, match=r"'0' has 1, '0.5' has 1, .* and 40 more;"
    ) as raised:
        prepared(tmp_path, "{source: rows.csv, target: y}")
    assert str(raised.value).endswith("; features: {y: {type: numeric}} makes it a regression")
    made = prepared(tmp_path, "{source: rows.csv, target: y}", "{y: {type: numeric}}")
    assert made.schema.target.task == "regression"
    assert made.notes[0] == "y: 50 of 100 rows have none and are left out"


def test_a_columns_type_is_no_matter_of_the_search(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    with pytest.raises(errors.UserError, match=r"features.n.type: "):
        prepared(
            tmp_path,
            "{source: rows.csv, target: y}",
            "{n: {type: {choice: [numeric, categorical]}}}",
        )
