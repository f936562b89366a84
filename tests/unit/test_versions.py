"""`eagleray models`: what a person is told of a version, the suspicious above all."""

import json
from pathlib import Path

import pytest

from eagleray import cli, storage
from eagleray.state.models import Registry

METRICS = ("roc_auc", "log_loss", "accuracy", "f1", "loss", "train_loss", "seconds")
WARNING = "never predicts 'yes' (6 rows) on the test part of 100 rows"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A storage with three versions of a model: sound, suspicious, and of another release."""
    registry = Registry(storage.open(tmp_path.as_uri()))
    for number, warnings in enumerate(([], [WARNING])):
        parts = {part: dict.fromkeys(METRICS, 0.5 + number / 4) for part in ("validation", "test")}
        manifest = {"metric": "roc_auc", "metrics": parts, "warnings": warnings}
        registry.register("shop", {"weights": b"1"}, manifest)
    registry.register("shop", {"weights": b"1"}, {})
    return tmp_path.as_uri()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert cli.main(["models", *arguments]) == 0
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_the_list_has_the_selecting_metric_alone(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = run(capsys, "list", "shop", "--storage", uri)
    heading, *lines = (line.split() for line in out.splitlines())
    assert heading == ["VERSION", "CREATED", "ALIASES", "METRIC", "VALIDATION", "TEST"]
    assert [[line[0], *line[2:]] for line in lines] == [
        ["1", "roc_auc", "0.5", "0.5"],
        ["2", "roc_auc", "0.75", "0.75"],
        ["3", "-", "-", "-"],
    ]
    rows = json.loads(run(capsys, "list", "shop", "--storage", uri, "--json")[0])
    assert set(rows[1]["metrics"]["test"]) == set(METRICS)
    assert [row["warnings"] for row in rows] == [[], [WARNING], None]


@pytest.mark.parametrize(
    "arguments", [("list", "shop"), ("show", "shop", "2"), ("promote", "shop", "2")]
)
def test_a_suspicious_winner_is_called_so_wherever_one_looks_at_it(
    uri: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    _, said = run(capsys, *arguments, "--storage", uri)
    assert said == f"WARNING: shop version 2 {WARNING}\n"


def test_a_sound_version_and_one_of_an_older_release_are_promoted_without_a_word(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in ("1", "3"):
        assert run(capsys, "promote", "shop", number, "--storage", uri)[1] == ""


def test_lists_go_on_past_a_foreign_manifest_and_name_it(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.open(uri).put("models/shop/versions/9.json", b"foreign")
    assert run(capsys, "list", "--storage", uri)[0].splitlines()[1].split()[:2] == ["shop", "9"]
    out, said = run(capsys, "list", "shop", "--storage", uri)
    assert len(out.splitlines()) == 4
    assert "skipped: " in said
    assert "models/shop/versions/9.json" in said
