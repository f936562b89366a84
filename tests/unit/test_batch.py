"""Batches without Ray: what is planned, what is refused, and parts that are whole or not there."""

import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
from rich import console

from eagleray import cli, errors, storage
from eagleray.learn import schema
from eagleray.state import batches, keys
from eagleray.state.models import Registry, Version
from eagleray.tabular import headers, sources
from ray_jobs.batch import driver, lease, parts, plan
from ray_jobs.batch.limit import Limit
from tests import bundles

SMALL = batches.Options(rows_per_part=4)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage with a model `left`, a folder `in` with two files of 10 and 6 rows."""
    for name in ("storage", "in"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EAGLERAY_STORAGE", (tmp_path / "storage").as_uri())
    monkeypatch.chdir(tmp_path)
    registered = registry(tmp_path).register("left", bundles.files(), {})
    registry(tmp_path).promote("left", registered.number)
    write(tmp_path / "in" / "a.csv", 10)
    write(tmp_path / "in" / "b.csv", 6, seed=1)
    return tmp_path


def registry(home: Path) -> Registry:
    return Registry(storage.open((home / "storage").as_uri()))


def write(path: Path, count: int, *, seed: int = 0, **more: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"id": range(count), **bundles.rows(count, seed=seed), **more})
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return frame


def planned(
    home: Path, source: str = "in", output: str = "out", options: batches.Options = SMALL
) -> batches.Plan:
    version: Version = registry(home).resolve("left", "champion")
    known: schema.Schema = bundles.make().schema
    made = plan.make(known, version, source, plan.place(output), options)
    plan.make_folder(plan.place(output))
    return made


def job(home: Path, made: batches.Plan) -> parts.Job:
    return parts.Job(made, (home / "storage").as_uri(), (home / "out").as_uri())


def written(part: Path) -> tuple[int, int, int]:
    """What changes when a part is written anew; reading it changes the time of its last access."""
    found = part.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def predicted(home: Path, **more: Any) -> tuple[parts.Job, batches.Batch]:
    """All parts of the folder `in`, written."""
    ready = job(home, planned(home, **more))
    batch = batches.Batch(storage.open(ready.output))
    batch.begin(ready.plan)
    writer = parts.Writer(ready)
    for file in range(len(ready.plan.inputs)):
        for rows in parts.read(ready, file, ()):
            writer.write(parts.Rows.unpack(rows.pack()))
    return ready, batch


def test_parts_have_all_rows_in_their_order_as_eagleray_predict_has_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, batch = predicted(home)
    assert [(one.place, one.rows, one.last) for one in batch.parts().values()] == [
        ((0, 0), 4, False),
        ((0, 1), 4, False),
        ((0, 2), 2, True),
        ((1, 0), 4, False),
        ((1, 1), 2, True),
    ]
    found = pd.concat(map(pd.read_parquet, sorted((home / "out").glob("part-00000-*"))))
    assert cli.main(["predict", "left", "in/a.csv", "--with", "id"]) == 0
    printed = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert found["id"].tolist() == printed["id"].astype(str).tolist()
    assert found["label"].tolist() == printed["label"].tolist()
    assert found["probability of yes"].tolist() == pytest.approx(
        printed["probability of yes"].tolist()
    )
    assert {"age", "note", "label", "probability", "warnings", "error"} <= set(found.columns)


def test_every_part_has_the_same_columns_and_types_whatever_its_rows_are(home: Path) -> None:
    write(home / "in" / "a.csv", 8, age=["old"] * 4 + [30, 31, 32, 33])
    predicted(home)
    schemas = {
        str(pyarrow.parquet.read_schema(path).remove_metadata())
        for path in (home / "out").glob("part-*")
    }
    assert len(schemas) == 1


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_faulty_row_has_an_error_with_its_number_in_the_file(home: Path, suffix: str) -> None:
    write(home / "in" / "a.csv", 10, age=[20, 21, 22, 23, 24, "old", 26, 27, 28, 29])
    made = batches.Options(format=suffix, rows_per_part=4)  # type: ignore[arg-type]
    _, batch = predicted(home, options=made)
    records = batch.parts()
    assert records[0, 1].error == "row 6: age: a number is needed, but got 'old'"
    assert [one.errors for one in records.values()] == [0, 1, 0, 0, 0]
    path = home / "out" / f"part-00000-00001.{suffix}"
    found = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    assert found["error"][1] == records[0, 1].error
    assert found["label"].notna().tolist() == [True, False, True, True]


def test_only_kept_columns_stand_beside_the_answers_and_give_way_to_their_names(home: Path) -> None:
    write(home / "in" / "a.csv", 3, label=["x", "y", "z"])
    (home / "in" / "b.csv").unlink()
    predicted(home, options=batches.Options(keep=("label", "id", "label")))
    found = pd.read_parquet(home / "out" / "part-00000-00000.parquet")
    assert list(found.columns)[:3] == ["input.label", "id", "label"]
    assert found["input.label"].tolist() == ["x", "y", "z"]


def test_finished_parts_are_neither_read_again_nor_written_over(home: Path) -> None:
    ready, batch = predicted(home)
    (home / "out" / keys.BATCH_RECORD.format(file=0, number=1)).unlink()
    done = batch.parts()
    assert driver.left(ready, done) == [{"file": 0, "done": "[0, 2]"}]
    before = written(home / "out" / "part-00000-00001.parquet")
    (rows,) = parts.read(ready, 0, {0, 2})
    assert (rows.number, rows.table.num_rows) == (1, 4)
    parts.Writer(ready).write(rows)
    assert written(home / "out" / "part-00000-00001.parquet") == before
    assert driver.left(ready, batch.parts()) == []


def test_a_part_that_was_not_recorded_keeps_its_first_bytes(home: Path) -> None:
    ready = job(home, planned(home))
    batch = batches.Batch(storage.open(ready.output))
    first = batch.put_part(ready.plan, (0, 0), b"first")
    assert batch.put_part(ready.plan, (0, 0), b"second") == first
    assert batch.parts() == {}


def test_a_part_that_another_driver_has_finished_is_not_predicted_again(home: Path) -> None:
    ready, batch = predicted(home)
    other = parts.Rows(0, 0, False, pyarrow.table({"age": []}))
    assert parts.Writer(ready).write(other) == batch.parts()[0, 0]
    assert batch.parts()[0, 0].rows == 4


def test_a_file_without_rows_is_one_part_with_a_header(home: Path) -> None:
    write(home / "in" / "a.parquet", 0)
    made = job(home, planned(home, source="in/a.parquet"))
    (rows,) = parts.read(made, 0, ())
    part = parts.Writer(made).write(rows)
    assert (part.rows, part.last) == (0, True)
    assert "label" in pd.read_parquet(home / "out" / "part-00000-00000.parquet").columns


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(7, 3, [(3, False), (3, False), (1, True)]), (6, 3, [(3, False), (3, True)])],
)
def test_the_last_part_is_known_also_where_parts_divide_the_rows(
    home: Path, count: int, size: int, expected: list[tuple[int, bool]]
) -> None:
    write(home / "in" / "a.parquet", count)
    options = batches.Options(rows_per_part=size)
    made = job(home, planned(home, source="in/a.parquet", options=options))
    assert [(one.table.num_rows, one.last) for one in parts.read(made, 0, ())] == expected


def lacks_a_column(home: Path) -> None:
    write(home / "in" / "b.csv", 3).drop(columns="city").to_csv(home / "in" / "b.csv")


def is_empty(home: Path) -> None:
    (home / "in" / "b.csv").write_text("")


def is_in_another_encoding(home: Path) -> None:
    (home / "in" / "b.csv").write_bytes("id,âge\n".encode("latin-1"))


def is_of_another_format(home: Path) -> None:
    write(home / "in" / "c.parquet", 3)


def is_corrupt(home: Path) -> None:
    for path in (home / "in").iterdir():
        path.unlink()
    (home / "in" / "c.parquet").write_bytes(b"PAR1 and no more")


def is_no_table(home: Path) -> None:
    for path in (home / "in").iterdir():
        path.rename(path.with_suffix(".jsonl"))


def is_gone(home: Path) -> None:
    for path in (home / "in").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacks_a_column, r"b\.csv: the model's columns .* there is no 'city'"),
        (is_empty, r"b\.csv: a table is needed, but the file is empty"),
        (is_in_another_encoding, r"b\.csv:1: text must be in utf-8, .* 0xe2; write it in UTF-8$"),
        (is_of_another_format, r"--input: .* must name files of one format"),
        (is_corrupt, r"c\.parquet: a readable table is needed, but"),
        (is_no_table, r"\.jsonl: only \.csv, .* are streamed, but got '\.jsonl'"),
        (is_gone, r"--input: a file is needed, but there is no"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_input_that_cannot_be_predicted_is_named_before_anything_is_written(
    home: Path, change: Callable[[Path], None], message: str
) -> None:
    change(home)
    with pytest.raises(errors.DataError, match=message):
        planned(home)
    assert not (home / "out").exists()


@pytest.mark.parametrize(
    ("source", "output"),
    [("in", "in"), ("in", "in/out"), ("in/*.parquet", "in"), ("out/a.csv", "out"), (".", "out")],
)
def test_input_and_output_must_lie_apart(home: Path, source: str, output: str) -> None:
    (home / "out").mkdir()
    write(home / "out" / "a.csv", 1)
    write(home / "in" / "a.parquet", 1)
    with pytest.raises(errors.UserError, match=r"--output: must (lie outside|not hold) the input"):
        planned(home, source, output)
    assert not list(home.glob("**/_plan.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "the version was 1, but is 2"),
        ({"output_format": "csv"}, "the format was parquet, but is csv"),
        ({"keep": ("id",)}, "the kept columns was"),
        ({"rows_per_part": 5}, "the number of rows of a part was 4, but is 5"),
        ({"digest": "other"}, "version 1 of left is another one"),
        ({"inputs": ()}, r"a\.csv is gone, and 1 more"),
    ],
    ids=lambda one: "" if isinstance(one, str) else next(iter(one)),
)
def test_an_output_takes_no_other_predictions(
    home: Path, change: dict[str, Any], message: str
) -> None:
    made = planned(home)
    batch = batches.Batch(storage.open((home / "out").as_uri()))
    batch.begin(made)
    batch.begin(planned(home))
    with pytest.raises(errors.ConflictError, match=message):
        batch.begin(made.model_copy(update=change))


def test_a_changed_input_is_refused_and_named(home: Path) -> None:
    batch = batches.Batch(storage.open(plan.place("out")))
    batch.begin(planned(home))
    write(home / "in" / "b.csv", 7)
    with pytest.raises(errors.ConflictError, match=r"b\.csv has changed"):
        batch.begin(planned(home))


def test_a_folder_with_other_files_is_no_output(home: Path) -> None:
    (home / "out").mkdir()
    (home / "out" / "notes.txt").write_text("mine")
    with pytest.raises(errors.UserError, match=r"must be a new folder.* it holds notes\.txt"):
        batches.Batch(storage.open(plan.place("out"))).begin(planned(home))


def test_a_part_has_fewer_rows_where_rows_are_large(home: Path) -> None:
    assert planned(home, options=batches.Options()).rows_per_part == plan.ROWS
    write(home / "in" / "a.csv", 4, blob=["x" * (1 << 20)] * 4)
    write(home / "in" / "b.csv", 4, blob=["x"] * 4)
    assert 1 <= planned(home, options=batches.Options()).rows_per_part <= 64


@pytest.mark.parametrize(
    ("text", "rows", "faults", "ended", "fails"),
    [
        ("10%", 9_999, 9_999, False, False),
        ("10%", 10_000, 1_000, False, False),
        ("10%", 10_000, 1_001, False, True),
        ("10%", 10, 2, True, True),
        ("0", 10, 1, False, True),
        ("3", 10, 3, True, False),
        ("100%", 10, 10, True, False),
    ],
)
def test_too_many_faulty_rows_end_a_batch(
    text: str, rows: int, faults: int, ended: bool, fails: bool
) -> None:
    limit = Limit.parse(text)
    if not fails:
        limit.check(rows, faults, "", ended=ended)
        return
    with pytest.raises(errors.DataError, match=r"--max-errors: at most .* such as row 3: why;"):
        limit.check(rows, faults, "row 3: why", ended=ended)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "101%", "5 %x", "nan", "inf"])
def test_a_limit_is_a_number_of_rows_or_a_share(text: str) -> None:
    with pytest.raises(errors.UserError, match="--max-errors: must be a number of rows or a share"):
        Limit.parse(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "in"], "--input and --output: both are needed"),
        (["in/a.csv", "--input", "in", "--output", "out"], "without FILE"),
        (["in/a.csv", "--format", "csv"], "--format: must stand beside --input"),
        (["in/a.csv", "--address", "h:1"], "--address: must stand beside --input"),
        (["in/a.csv", "--kubernetes"], "--kubernetes: must stand beside --input"),
        (["in/a.csv", "--dry-run"], "--dry-run: must stand beside --input"),
        (["in/a.csv", "--retries", "0"], "--retries: must stand beside --input"),
        (["--input", "in", "--output", "out", "--detach"], "--detach: must stand beside --kub"),
        (["--input", "in", "--output", "out", "--release", "r"], "--release: must stand beside"),
        (["--input", "in", "--output", "out", "--queue", "q"], "--queue: must stand beside --kub"),
        (["--input", "in", "--output", "out", "--deadline", "9"], "--deadline: must stand beside"),
        ([], "FILE: a file is needed"),
        (["--input", "in", "--output", "out", "--format", "orc"], "--format: must be parquet or"),
        (["--input", "in", "--output", "out", "--rows-per-part", "0"], "--rows-per-part: at least"),
        (["--input", "in", "--output", "out", "--max-errors", "x"], "--max-errors: must be"),
        (["--input", "in", "--output", "out", "--version", "9"], "9"),
        (["--input", "in", "--output", "out", "--keep", "ids"], "no 'ids'; did you mean 'id'"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(["predict", "left", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (home / "out" / "_plan.json").exists()


def test_the_result_lists_parts_inputs_and_counts(home: Path) -> None:
    write(home / "in" / "a.csv", 10, age=[20, 21, 22, 23, 24, "old", 26, 27, 28, 29])
    ready, batch = predicted(home)
    assert batch.result() is None
    result = batch.finish(ready.plan, batch.parts())
    document = json.loads((home / "out" / "_SUCCESS").read_text())
    assert (document["kind"], document["rows"], document["errors"]) == ("batch-result", 16, 1)
    assert (document["model"], document["version"]) == ("left", 1)
    assert [one["key"] for one in document["parts"]][:2] == [
        "part-00000-00000.parquet",
        "part-00000-00001.parquet",
    ]
    assert {one["size"] for one in document["inputs"]} == {
        path.stat().st_size for path in (home / "in").iterdir()
    }
    assert batch.result() == result


@pytest.mark.parametrize("finishes", [True, False])
def test_a_second_driver_waits_until_the_first_one_has_ended_or_finished(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, finishes: bool
) -> None:
    monkeypatch.setattr(lease, "POLL_S", 0.01)
    ready, batch = predicted(home)
    said, order = io.StringIO(), list[str]()

    def second() -> batches.Result | None:
        with lease.held(batch, console.Console(file=said)) as result:
            order.append("second")
            return result

    with ThreadPoolExecutor(1) as pool:
        with lease.held(batch, console.Console(quiet=True)) as nothing:
            waiting = pool.submit(second)
            while "Ctrl-C stops only the waiting" not in said.getvalue().replace("\n", " "):
                time.sleep(0.01)
            order.append("first")
            known = batch.finish(ready.plan, batch.parts()) if finishes else None
            assert nothing is None
            if finishes:
                assert waiting.result(60) == known
        assert waiting.result(60) == known
    assert order == ["first", "second"]


def test_a_header_is_read_of_the_beginning_alone(home: Path) -> None:
    path = home / "in" / "wide.csv"
    path.write_text("a,b\n" + "1,é\n" * (headers.HEAD // 4))
    (file,) = sources.find(str(path), home)
    assert headers.read(file).columns == ["a", "b"]
    assert headers.read(file).row_bytes == pytest.approx(5, abs=0.1)
