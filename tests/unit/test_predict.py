"""`eagleray predict`, `split` and `models pull --predictions`: rows in, rows out, none lost."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eagleray import bundle, cli, storage
from eagleray.learn import schema, tasks
from eagleray.state.models import Registry
from ray_jobs import winner
from tests import bundles

HEADING = ["label", "probability", "probability of no", "probability of yes", "warnings", "error"]
Run = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage with a classifier `left` and a regression `years`, and a folder to work in."""
    (tmp_path / "storage").mkdir()
    uri = (tmp_path / "storage").as_uri()
    monkeypatch.setenv("EAGLERAY_STORAGE", uri)
    monkeypatch.chdir(tmp_path)
    registry = Registry(storage.open(uri))
    years = schema.Target(name="years", task="regression")
    for name, target in (("left", None), ("years", years)):
        registry.promote(name, registry.register(name, bundles.files(target=target), {}).number)
    return tmp_path


@pytest.fixture
def eagleray(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that ends well, and give what it printed to stdout."""

    def run(*arguments: str) -> str:
        ended = cli.main(arguments)
        printed = capsys.readouterr()
        assert ended == 0, printed.err
        return printed.out

    return run


def write(folder: Path, count: int, **changed: dict[int, object]) -> tuple[str, bundles.Raw]:
    """A CSV of rows with ids, some values of which are changed; gives its path and the values."""
    raw: bundles.Raw = {"id": [f"c{row}" for row in range(count)], **bundles.rows(count)}
    for column, values in changed.items():
        for row, value in values.items():
            raw[column][row] = value
    path = folder / "rows.csv"
    pd.DataFrame(raw).to_csv(path, index=False)
    return str(path), raw


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_faulty_row_is_named_and_all_others_are_predicted_as_without_it(
    home: Path, eagleray: Run
) -> None:
    path, raw = write(home, 9, age={2: "old", 5: "?!"}, joined={5: "soon"})
    found = table(eagleray("predict", "left", path))
    sound = [row for row in range(9) if row not in (2, 5)]
    alone = bundles.make().predict({k: [raw[k][row] for row in sound] for k in bundles.rows(1)})
    got = [float(found[row]["probability of yes"]) for row in sound]
    np.testing.assert_allclose(got, alone.outputs[:, 1], rtol=1e-6)
    assert [found[row]["error"] for row in sound] == [""] * 7
    assert found[2]["error"] == "row 3: age: a number is needed, but got 'old'"
    assert found[5]["error"].startswith("row 6: age: a number is needed, but got '?!'; joined: ")
    assert found[2]["label"] == found[2]["probability of no"] == ""


@pytest.mark.parametrize(
    ("count", "ages"),
    [(0, {}), (3, {}), (3, {1: "x"}), (3, {0: "x", 1: "x", 2: "x"})],
    ids=["no row", "all sound", "one faulty", "all faulty"],
)
def test_the_header_is_the_same_whatever_the_rows_are(
    home: Path, eagleray: Run, count: int, ages: dict[int, object]
) -> None:
    path, _ = write(home, count, age=ages, city={0: "Atlantis"} if count else {})
    printed = eagleray("predict", "left", path, "--with", "id")
    assert printed.splitlines()[0] == ",".join(["id", *HEADING])
    assert len(table(printed)) == count
    years = eagleray("predict", "years", path)
    assert years.splitlines()[0] == "value,warnings,error"
    lines = [json.loads(line) for line in eagleray("predict", "left", path, "--json").splitlines()]
    keys = ["label", "probability", "probabilities", "warnings", "error"]
    assert [list(line) for line in lines] == [keys] * count


def test_strict_refuses_the_file_and_prints_no_row(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = write(home, 5, age={1: "x", 3: "y"})
    assert cli.main(["predict", "left", path, "--strict"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"{path}: 2 of 5 rows cannot be predicted; the first is row 2: age: a number is needed, but"
        " got 'x'\n"
    )
    assert cli.main(["predict", "left", path]) == 0
    assert capsys.readouterr().err == (
        "2 of 5 rows cannot be predicted; the column error says why\n"
    )


def test_columns_of_the_file_are_repeated_and_give_way_to_the_answers_names(
    home: Path, eagleray: Run
) -> None:
    path, _ = write(home, 3)
    pd.read_csv(path).assign(label=["a", "b", "c"]).to_csv(path, index=False)
    arguments = ("predict", "left", path, "--with", "id", "--with", "label", "--with", "id")
    found = table(eagleray(*arguments))
    assert [*found[0]][:3] == ["id", "input.label", "label"]
    assert [(row["id"], row["input.label"]) for row in found] == [
        ("c0", "a"),
        ("c1", "b"),
        ("c2", "c"),
    ]
    line = json.loads(eagleray(*arguments, "--json").splitlines()[1])
    assert (line["id"], line["input.label"]) == ("c1", "b")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_dash_reads_standard_input_as_it_would_the_file(
    home: Path, eagleray: Run, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    _, raw = write(home, 4, age={1: "x"})
    frame = pd.DataFrame({name: list(map(_text, values)) for name, values in raw.items()})
    file = home / f"rows.{kind}"
    if kind == "parquet":
        frame.to_parquet(file)
    elif kind == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    expected = eagleray("predict", "left", str(file), "--with", "id")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert eagleray("predict", "left", "-", "--with", "id") == expected
    assert "row 2: age" in expected


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def test_a_column_or_a_file_that_is_not_there_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = write(home, 3)
    assert cli.main(["predict", "left", path, "--with", "notes"]) == 2
    assert "there is no 'notes'; did you mean 'note'" in capsys.readouterr().err
    assert cli.main(["predict", "left", "row.csv"]) == 2
    assert (
        "row.csv: a file is needed, but got none; did you mean 'rows.csv'"
        in capsys.readouterr().err
    )


def test_all_columns_that_the_model_misses_are_told_at_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = write(home, 3)
    pd.read_csv(path).rename(columns={"city": "town", "age": "Age"}).to_csv(path, index=False)
    assert cli.main(["predict", "left", path]) == 2
    assert "there is no 'age', 'city'; did you mean 'Age'" in capsys.readouterr().err


def test_predictions_of_the_test_part_are_pulled_as_csv_or_parquet(
    home: Path, eagleray: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    target = schema.Target(name="left", task="binary", classes=("no", "yes"))
    outputs = np.array([[0.25, 0.75], [0.5, 0.5]])
    packed = winner.predictions(tasks.of(target), np.array([4, 9]), np.array([0, 1]), outputs)
    registry = Registry(storage.open((home / "storage").as_uri()))
    registry.register("left", {**bundles.files(), bundle.PREDICTIONS: packed}, {})
    said = eagleray("models", "pull", "left", "2", "--predictions")
    assert said == "version 2 of left: 2 rows of the test part in left-2-predictions.csv\n"
    assert Path("left-2-predictions.csv").read_text() == (
        "row,truth,prediction,probability\n4,no,yes,0.75\n9,yes,no,0.5\n"
    )
    eagleray("models", "pull", "left", "2", "--predictions", "--to", "two.parquet")
    assert pd.read_parquet("two.parquet")["row"].tolist() == [4, 9]
    assert cli.main(["models", "pull", "left", "2", "--predictions"]) == 2
    assert "must go to a new file" in capsys.readouterr().err
    assert cli.main(["models", "pull", "left", "1", "--predictions"]) == 2
    assert "eagleray split" in capsys.readouterr().err
    assert eagleray("predict", "left", write(home, 1)[0], "--version", "2")


def test_predictions_of_a_regression_are_values() -> None:
    target = schema.Target(name="years", task="regression")
    packed = winner.predictions(
        tasks.of(target), np.array([1]), np.array([2.5], np.float32), np.array([2.0])
    )
    assert pd.read_parquet(io.BytesIO(packed)).to_dict("records") == [
        {"row": 1, "truth": 2.5, "prediction": 2.0}
    ]


FILE = "name: shop\ndata: {source: shop.csv, target: sold, seed: 3}\n"


def shop(folder: Path) -> pd.DataFrame:
    """A table with a code, text that looks like a number, gaps, and rows without a target."""
    rows = [f"{row},0{row % 7},{'yes' if row % 3 else 'no'}" for row in range(60)]
    rows[10], rows[20] = "10,?,", '20,"a, b",'
    (folder / "shop.csv").write_text("\n".join(["n,code,sold", *rows]) + "\n")
    (folder / "shop.yaml").write_text(FILE)
    return pd.read_csv(folder / "shop.csv", dtype=str, keep_default_na=False)


def read(folder: Path) -> dict[str, pd.DataFrame]:
    names = ("train", "validation", "test")
    return {
        name: pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        for name in names
    }


def test_split_writes_each_row_with_a_target_once_as_the_source_has_it(
    home: Path, eagleray: Run
) -> None:
    source = shop(home)
    said = json.loads(eagleray("split", "shop.yaml", "--json"))
    parts = read(home / "shop-parts")
    together = pd.concat(parts.values()).sort_values("n", key=lambda column: column.astype(int))
    expected = source[source["sold"] != ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(together.reset_index(drop=True), expected)
    assert all(part["n"].astype(int).is_monotonic_increasing for part in parts.values())
    assert said.pop("folder") == "shop-parts"
    assert json.loads((home / "shop-parts" / "split.json").read_text()) == said
    assert said["rows"] == {"source": 60, "left_out": 2}
    assert {name: part["rows"] for name, part in said["parts"].items()} == {
        name: len(part) for name, part in parts.items()
    }
    assert (said["seed"], said["split"]["test"], said["target"]) == (3, 0.2, "sold")


def test_split_gives_the_same_parts_again_and_others_with_another_seed(
    home: Path, eagleray: Run
) -> None:
    shop(home)
    for folder, more in {"one": [], "two": [], "three": ["--set", "data.seed=4"]}.items():
        eagleray("split", "shop.yaml", "--to", folder, *more)
    one, two, three = (read(home / folder)["test"] for folder in ("one", "two", "three"))
    assert one.equals(two)
    assert not one.equals(three)


def test_split_writes_whole_parts_or_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop(home)
    before = sorted(home.iterdir())
    assert cli.main(["split", "shop.yaml", "--to", "storage"]) == 2
    assert "a new or empty folder is needed, but got storage" in capsys.readouterr().err
    assert cli.main(["split", "shop.yaml", "--set", "data.target=sol", "--to", "parts"]) == 2
    assert sorted(home.iterdir()) == before


def test_parts_with_pictures_are_parquet(home: Path, eagleray: Run) -> None:
    (home / "digits.yaml").write_text(
        "name: digits\ndata: {source: 'dataset:digits', target: target}\n"
    )
    said: dict[str, Any] = json.loads(eagleray("split", "digits.yaml", "--json"))
    test = pd.read_parquet(home / "digits-parts" / said["parts"]["test"]["file"])
    assert len(test) == said["parts"]["test"]["rows"]
    assert np.array(test["image"][0].tolist()).shape == (8, 8)
    (home / "again.yaml").write_text(
        "name: again\ndata: {source: digits-parts/train.parquet, target: target}\n"
    )
    again = json.loads(eagleray("check", "again.yaml", "--json"))
    assert [column["image_shape"] for column in again["columns"]] == [[1, 8, 8]]
