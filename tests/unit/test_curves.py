"""Curves of trials for other programs: a table, and what TensorBoard reads."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from tensorboardX.proto import event_pb2

from eagleray import cli, errors, storage
from eagleray.client import curves
from eagleray.state import searches, watches

TRIALS = [
    searches.Record(
        number=1,
        values={"train.lr": 0.1, "model.hidden": [8, 8]},
        history=[{"accuracy": 0.5, "loss": 2.0}, {"accuracy": 0.75, "loss": 1.0}],
        best={"accuracy": 0.75, "loss": 1.0},
    ),
    searches.Record(number=2, values={"train.lr": 0.2}, history=[{"accuracy": 0.25}]),
    searches.Record(number=3, values={"train.lr": 1e9}, status="failed"),
]


def events(file: Path) -> Iterator[event_pb2.Event]:
    """Records of an event file: a length, its checksum, so many bytes, and their checksum."""
    data = io.BytesIO(file.read_bytes())
    while head := data.read(12):
        yield event_pb2.Event.FromString(data.read(struct.unpack("<Q", head[:8])[0]))
        data.read(4)


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    return [
        (value.tag, event.step, value.simple_value)
        for file in sorted(folder.glob("events.*"))
        for event in events(file)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


def test_the_table_has_a_row_for_each_epoch_and_a_column_for_each_metric() -> None:
    table = pd.read_parquet(io.BytesIO(curves.parquet(TRIALS)))
    assert table[["trial", "epoch"]].to_numpy().tolist() == [[1, 1], [1, 2], [2, 1]]
    assert table["accuracy"].tolist() == [0.5, 0.75, 0.25]
    assert table["loss"].isna().tolist() == [False, False, True]
    assert table["values"][0] == '{"train.lr": 0.1, "model.hidden": [8, 8]}'


def test_a_table_of_no_epoch_has_its_columns() -> None:
    table = pd.read_parquet(io.BytesIO(curves.parquet(TRIALS[2:])))
    assert list(table.columns) == ["trial", "epoch", "values"]


def test_tensorboard_gets_a_run_for_each_trial(tmp_path: Path) -> None:
    curves.write_events(TRIALS, tmp_path / "board")
    found = scalars(tmp_path / "board" / "trial-00001")
    assert ("accuracy", 2, 0.75) in found
    assert ("loss", 1, 2.0) in found
    assert ("best/accuracy", 0, 0.75) in scalars(tmp_path / "board" / "trial-00001" / "values")
    assert scalars(tmp_path / "board" / "trial-00002") == [("accuracy", 1, 0.25)]
    assert scalars(tmp_path / "board" / "trial-00003") == []


def test_tensorboard_gets_what_was_watched_of_layers(tmp_path: Path) -> None:
    counts = [0, 3, *[0] * (watches.BINS - 3), 5]
    row = watches.Row(2, "head.0", 0.25, 4.0, 1e-3, None, counts, counts)
    curves.write_events(TRIALS[:1], tmp_path / "board", lambda number: [row] if number == 1 else [])
    folder = tmp_path / "board" / "trial-00001"
    assert ("gradient/head.0", 2, 0.25) in scalars(folder)
    assert not [one for one in scalars(folder) if one[0].startswith("dead/")]
    drawn = [
        value
        for file in folder.glob("events.*")
        for event in events(file)
        for value in event.summary.value
        if value.HasField("histo")
    ]
    assert sorted(one.tag for one in drawn) == ["updates/head.0", "weights/head.0"]
    assert drawn[0].histo.num == 8


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    with pytest.raises(errors.UserError, match="--out must be a new or an empty folder"):
        curves.write_events(TRIALS, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["old"]


def test_the_command_finds_a_run_by_its_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "storage").mkdir()
    uri = f"file://{tmp_path}/storage"
    kept = searches.Records(storage.open(uri), "wine", "abc123abc123")
    for one in TRIALS:
        kept.save(one)
    command = ["runs", "tensorboard", "wine", "--storage", uri, "--out"]
    assert cli.main([*command, str(tmp_path / "board")]) == 0
    assert "3 trials of wine: tensorboard --logdir" in capsys.readouterr().out
    assert len(list((tmp_path / "board").iterdir())) == 3
    assert cli.main([*command, str(tmp_path / "board")]) == errors.UserError.exit_code
