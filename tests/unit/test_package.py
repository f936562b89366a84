"""An experiment packed for a journey, and unpacked where nothing of it was before."""

import dataclasses
import json
from pathlib import Path

import pytest

from eagleray import errors, spec, storage
from eagleray.client import package
from eagleray.state import keys, runs

FILE = """
name: sent
data: {source: data/rows.csv, target: kind}
train: {lr: {loguniform: [1.0e-3, 1.0e-1]}, loss: 'losses.own:loss'}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("x,kind\n1,a\n2,b\n")
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "own.py").write_text("def loss(outputs, targets):\n    return 0\n")
    (tmp_path / "storage").mkdir()
    return tmp_path


def experiment(folder: Path, text: str = FILE, **overrides: str) -> spec.Experiment:
    (folder / "sent.yaml").write_text(f"{text}storage: file://{folder}/storage\n")
    return spec.load(folder / "sent.yaml", overrides)


def sent(folder: Path) -> tuple[spec.Experiment, package.Package]:
    """An experiment, and its package in storage."""
    chosen = experiment(folder)
    packed = package.pack(chosen)
    package.put(packed)
    return chosen, packed


def test_what_is_unpacked_is_the_same_experiment_with_its_table_and_modules(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chosen, packed = sent(folder)
    there = spec.load(package.fetch(packed.run, tmp_path_factory.mktemp("there")))
    assert there.search_id("") == chosen.search_id("")
    assert (there.path.parent / "data/rows.csv").read_text() == "x,kind\n1,a\n2,b\n"
    assert list(there.code()) == ["losses.own:loss"]


def test_what_a_release_sent_that_had_mlp_for_a_file_without_model_is_mlp(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chosen, packed = sent(folder)
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    assert package.load(packed.run, here).model.type == "tabm"
    document = folder / "storage" / keys.RUN.format(name="sent", id=packed.run.id)
    fields = json.loads(document.read_text())
    del fields["model_by_columns"]  # which documents of such releases lack
    document.write_text(json.dumps(fields))
    before = package.load(packed.run, there)
    assert before.model.type == "mlp"
    assert before.search_id("") == chosen.with_earlier_model().search_id("") != chosen.search_id("")


def test_the_same_input_gives_the_same_bytes_and_the_same_run(folder: Path) -> None:
    first, second = package.pack(experiment(folder)), package.pack(experiment(folder))
    assert first.archive() == second.archive()
    assert first.run == second.run


def test_comments_and_where_it_runs_make_no_other_run(folder: Path) -> None:
    plain = package.pack(experiment(folder)).run
    assert package.pack(experiment(folder, FILE + "# a comment\n")).run == plain
    assert package.pack(experiment(folder, **{"compute.cpus": "2"})).run == plain


def test_with_more_trials_it_is_another_run_of_the_same_search(folder: Path) -> None:
    few, many = experiment(folder), experiment(folder, **{"tune.trials": "30"})
    assert many.search_id("data") == few.search_id("data")
    assert package.pack(many).run != package.pack(few).run


def test_other_values_other_rows_and_other_code_are_other_runs(folder: Path) -> None:
    seen = {package.pack(experiment(folder)).run.id}
    seen.add(package.pack(experiment(folder, **{"train.seed": "1"})).run.id)
    (folder / "data" / "rows.csv").write_text("x,kind\n1,a\n3,b\n")
    seen.add(package.pack(experiment(folder)).run.id)
    (folder / "losses" / "own.py").write_text("def loss(outputs, targets):\n    return 1\n")
    seen.add(package.pack(experiment(folder)).run.id)
    assert len(seen) == 4


def test_a_function_that_makes_the_rows_travels_and_its_result_is_not_reused(folder: Path) -> None:
    (folder / "rows.py").write_text("def rows():\n    return None\n")
    packed = package.pack(experiment(folder, **{"data.source": "rows:rows"}))
    assert "rows.py" in packed.files
    assert not packed.settled
    assert package.pack(experiment(folder, **{"data.source": "dataset:wine"})).settled


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("../rows.csv", "must be a path below the experiment file's folder"),
        ("/data/rows.csv", "must be a path below the experiment file's folder"),
        ("data/absent.csv", "a file is needed, but there is no 'data/absent.csv'"),
    ],
)
def test_a_table_that_cannot_travel_is_refused(folder: Path, source: str, problem: str) -> None:
    with pytest.raises(errors.DataError, match=problem):
        package.pack(experiment(folder, **{"data.source": source}))


def test_a_table_too_large_to_travel_is_sent_to_storage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "LIMIT", 4)
    with pytest.raises(errors.DataError, match="put it into storage and name it s3://bucket/key"):
        package.pack(experiment(folder))


def test_a_package_that_was_tampered_with_is_never_unpacked(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packed = package.pack(experiment(folder))
    package.put(packed)
    store = storage.open(packed.run.storage)
    manifest = json.loads(store.get(f"runs/sent/{packed.run.id}.json"))
    store.put(f"blobs/sha256/{manifest['package']['sha256']}", b"something else")
    there = tmp_path_factory.mktemp("there")
    with pytest.raises(errors.CorruptObjectError):
        package.fetch(packed.run, there)
    assert list(there.iterdir()) == []


@pytest.mark.parametrize("name", ["../beside", "/tmp/absolute", "in/../../out"])
def test_a_package_writes_nowhere_but_into_its_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    sent = package.pack(experiment(folder))
    hostile = dataclasses.replace(sent, files={name: b"out"})
    package.put(hostile)
    there = tmp_path_factory.mktemp("there") / "inside"
    with pytest.raises(errors.CorruptObjectError, match="files below its folder alone"):
        package.fetch(sent.run, there)
    assert list(there.parent.iterdir()) == []


def test_a_run_that_was_never_sent_is_told(folder: Path) -> None:
    absent = runs.Run("sent", "0" * 12, f"file://{folder}/storage")
    with pytest.raises(errors.NotFoundError, match="run: must have been sent before"):
        package.fetch(absent, folder / "there")
    assert runs.find(absent, runs.Result) is None


def test_the_result_is_found_by_the_run(folder: Path) -> None:
    run = package.pack(experiment(folder)).run
    ended = runs.Result(summary={"version": 1}, page="registered")
    runs.put(run, ended)
    assert runs.find(run, runs.Result) == ended
