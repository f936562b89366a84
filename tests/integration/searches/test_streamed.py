"""Data that are streamed: searches on several files that take more memory than they are given."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich import console

from eagleray import errors, spec, storage
from eagleray.learn import schema
from eagleray.state.models import Registry
from ray_jobs import pipeline, search, training
from ray_jobs.data import blocks
from tests.conftest import Bucket

FILES, ROWS = 3, 12_000
slow = pytest.mark.slow  # what another case shows as well
MEMORY = {"data.memory": "1MB"}


def frame(seed: int, rows: int = ROWS) -> pd.DataFrame:
    """Rows whose class follows from their columns, but for one in ten."""
    random = np.random.default_rng(seed)
    numbers = {name: random.normal(size=rows).round(4) for name in "abcd"}
    kind = random.choice(["red", "green", "blue"], rows)
    score = numbers["a"] - numbers["b"] + 2 * (kind == "red") - 0.7
    wrong = random.random(rows) < 0.1
    table = pd.DataFrame(numbers).assign(kind=kind, y=np.where((score > 0) ^ wrong, "high", "low"))
    table.loc[::100, "c"] = np.nan
    return table


def write(folder: Path, suffix: str, **changes: pd.DataFrame) -> None:
    (folder / "rows").mkdir()
    for number in range(FILES):
        table = changes.get(f"file{number}", frame(number))
        path = folder / "rows" / f"{number}.{suffix}"
        if suffix == "csv":
            table.to_csv(path, index=False)
        else:
            table.to_parquet(path, row_group_size=5000)


def experiment(folder: Path, **overrides: Any) -> spec.Experiment:
    (folder / "store").mkdir(exist_ok=True)
    file = folder / "e.yaml"
    file.write_text(
        "name: streamed\ndata: {source: rows, target: y}\nmodel: {hidden: [16]}\n"
        "train: {epochs: 2, batch_size: 256, lr: 0.01}\ntune: {trials: 1, scheduler: none}\n"
        f"storage: file://{folder}/store\n"
    )
    return spec.load(file, {key: str(value) for key, value in {**MEMORY, **overrides}.items()})


def run(chosen: spec.Experiment, folder: Path) -> tuple[Any, str]:
    with (folder / "screen").open("w") as file:
        ended = pipeline.run(chosen, console.Console(file=file, width=300))
    return ended, (folder / "screen").read_text()


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    write(folder, "parquet")
    return folder


@pytest.mark.parametrize("suffix", [pytest.param("csv", marks=slow), "parquet"])
def test_several_files_larger_than_their_memory_give_a_model_as_good_as_in_memory(
    ray_cluster: None, tmp_path: Path, suffix: str
) -> None:
    write(tmp_path, suffix)
    ended, screen = run(experiment(tmp_path), tmp_path)
    assert "larger than 1 MB (data.memory): they are streamed" in screen
    assert "transforms fitted on these" in screen
    assert f"rows, a sample of {FILES * ROWS:,} streamed ones (eagleray audit e.yaml)" in screen
    (version,) = Registry(storage.open(f"file://{tmp_path}/store")).versions("streamed")
    rows = version.manifest["rows"]
    assert sum(rows.values()) == FILES * ROWS
    assert rows["train"] > 30_000
    other = search.Search(experiment(tmp_path, **{"data.memory": "1GB"}))
    assert other.id != ended.search.id
    configuration = other.experiment.default()
    data = other.dataset.encode(other.transforms(configuration))
    whole = training.Trainer(configuration, data, metric="roc_auc")
    for _ in range(2):
        score = whole.epoch()["roc_auc"]
    assert ended.trials[0].score == pytest.approx(score, abs=0.02)
    assert ended.result.test["roc_auc"] > 0.85
    again, screen = run(experiment(tmp_path), tmp_path)
    assert again.search.id == ended.search.id
    assert "has already ended" in screen


def test_blocks_hold_the_rows_that_train_each_once_as_they_are_encoded_in_memory(
    ray_cluster: None, parquet: Path
) -> None:
    made_of_others = "a_by_b: {ratio: [a, b], scale: log, bins: 4}"
    chosen = f"{{c: {{type: numeric, impute: mean, clip: [0.01, 0.99]}}, {made_of_others}}}"
    searched = search.Search(experiment(parquet, features=chosen))
    made, frames = searched.dataset, pd.concat([frame(n) for n in range(FILES)])
    data = made.encode(searched.transforms(searched.experiment.default()))
    assert isinstance(data.train, blocks.Blocks)
    held = set(made.rows[[*made.split.validation, *made.split.test]].tolist())
    left = [row for row in range(FILES * ROWS) if row + 1 not in held]
    table = frames.iloc[left].reset_index(drop=True)
    raw = {name: table[name].to_numpy() for name in table if name != "y"}
    wanted = data.transforms.apply(schema.parse(made.schema, raw))
    parts = [data.train.part(number) for number in range(len(data.train.sizes))]
    assert len(parts) > 3
    for name, array in wanted.items():
        assert np.array_equal(np.concatenate([part.inputs[name] for part in parts]), array)
    assert [len(part.targets) for part in parts] == list(data.train.sizes)
    for row, number in zip(made.columns["a"], made.rows, strict=True):
        assert row == frames["a"].iloc[number - 1]


LATE = {
    "a": "2.csv: row 12,000: a: a number is needed, but got 'n.a. yet'; .*data.missing",
    "y": "2.csv: row 12,000: y: one of the target's classes is needed, but got 'n.a. yet'",
}


@pytest.mark.parametrize("column", ["a", pytest.param("y", marks=slow)])
def test_a_value_after_the_sample_that_its_column_cannot_hold_is_named_with_file_and_row(
    ray_cluster: None, tmp_path: Path, column: str
) -> None:
    table = frame(2).astype(object)
    table.loc[ROWS - 1, column] = "n.a. yet"
    write(tmp_path, "csv", file2=table)
    with pytest.raises(errors.DataError, match=LATE[column]):
        run(experiment(tmp_path), tmp_path)


def test_values_after_the_sample_that_are_new_or_extreme_are_encoded(
    ray_cluster: None, tmp_path: Path
) -> None:
    table = frame(2)
    table.loc[11_999, ["a", "kind", "d"]] = [1e300, "violet", np.nan]
    table.loc[11_998, "y"] = None
    write(tmp_path, "csv", file2=table)
    searched = search.Search(experiment(tmp_path))
    data = searched.dataset.encode(searched.transforms(searched.experiment.default()))
    assert isinstance(data.train, blocks.Blocks)
    last = data.train.part(len(data.train.sizes) - 1)
    assert np.isfinite(last.inputs["numeric"]).all()
    assert last.inputs["numeric"].max() > 1e5
    assert last.inputs["categories"][-1] == [1]
    assert len(data.train) == searched.dataset.counts["train"] - 1


HEADER = b"a,b,c,d,kind,y\n"
FAULTY = {
    "other columns": (b"a,b,c,d,kind,z\n1,2,3,4,red,high\n", r"1\.csv: .*lacks 'y' and has 'z'"),
    "a short row": (HEADER + b"1,2,3,4,red,high\n" * 9000 + b"1,2\n", r"1\.csv:9002: a row needs"),
    "nothing": (b"", r"1\.csv: a table is needed, but the file is empty"),
}


@pytest.mark.parametrize(
    "fault", ["a short row", *(pytest.param(o, marks=slow) for o in ("other columns", "nothing"))]
)
def test_a_file_at_fault_among_several_is_named(
    ray_cluster: None, tmp_path: Path, fault: str
) -> None:
    content, message = FAULTY[fault]
    write(tmp_path, "csv")
    (tmp_path / "rows" / "1.csv").write_bytes(content)
    with pytest.raises(errors.DataError, match=message):
        search.Search(experiment(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.split.group": "kind"}, "data.split.group: streamed rows are split by chance"),
        ({"data.split.time": "a"}, "data.split.time: streamed rows are split by chance"),
        ({"train.sampling": "balanced"}, "train.sampling: streamed rows are each trained on once"),
        ({"data.split.stratify": "true"}, "data.split.stratify: streamed rows"),
        ({"data.protected": "[kind]"}, "data.protected: streamed rows keep their inputs alone"),
        ({"data.duplicates": "drop"}, "data.duplicates: streamed rows are not compared"),
        (
            {"features": "{kind: {type: categorical, max_categories: {randint: [5, 50]}}}"},
            "features: .*at most 8",
        ),
    ],
)
def test_what_needs_all_rows_in_memory_is_refused(
    parquet: Path, overrides: dict[str, str], message: str
) -> None:
    with pytest.raises(errors.DataError, match=message):
        search.Search(experiment(parquet, **overrides))


@pytest.mark.slow  # a Ray cluster of its own: workers get the bucket's variables when they start
def test_objects_are_streamed_by_a_check(s3: Bucket, parquet: Path) -> None:
    store = storage.open(s3.uri)
    for number in range(FILES):
        content = (parquet / "rows" / f"{number}.parquet").read_bytes()
        store.put(f"rows/{number}.parquet", content)
    remote = experiment(parquet, **{"data.source": f"{s3.uri}/rows/*.parquet"})
    (parquet / "remote.yaml").write_text(spec.document.write(remote.explicit()))
    command = [sys.executable, "-m", "eagleray", "check", str(parquet / "remote.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rows are streamed" in done.stdout
