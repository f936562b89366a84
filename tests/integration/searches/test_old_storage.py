"""A storage that the release before formats has written: read, served, promoted, gone on with."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich import console

from eagleray import bundle, cli, spec, storage
from eagleray.state import leases, searches
from eagleray.state.models import Registry
from ray_jobs import pipeline
from ray_jobs.report.outcome import Outcome

DATA = Path(__file__).parents[2] / "data" / "storage-format-0"
"""Made by commit 9283dbd: three searches of one model. The first two have ended and registered
versions 1 (champion) and 2; the third was killed in its second trial (tests/data/README.md)."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(DATA, tmp_path / "old")


@pytest.fixture
def uri(folder: Path) -> str:
    return (folder / "storage").as_uri()


def models(uri: str, *arguments: str) -> None:
    assert cli.main(["models", *arguments, "--storage", uri]) == 0


def test_its_models_are_listed_compared_and_moved(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ("list",),
        ("list", "iris"),
        ("show", "iris", "1"),
        ("diff", "iris", "1", "2"),
    ):
        models(uri, *arguments)
    models(uri, "events", "iris", "--json")
    before = json.loads(capsys.readouterr().out.partition("\n[")[2].join(["[", ""]))
    assert [(one["action"], one["number"]) for one in before] == [
        ("registered", 1), ("promoted", 1), ("registered", 2),
    ]  # fmt: skip
    models(uri, "promote", "iris", "2")
    models(uri, "rollback", "iris")
    moves = Registry(storage.open(uri)).events("iris")
    assert [one.action for one in moves[3:]] == ["promoted", "rolled-back"]
    assert moves[:3] == [type(moves[0]).decode(one, "before") for one in before]


def test_its_unknown_fields_outlive_a_move(folder: Path, uri: str) -> None:
    aliases = folder / "storage/models/iris/aliases.json"
    aliases.write_text(json.dumps(json.loads(aliases.read_text()) | {"route": {"weight": 5}}))
    Registry(storage.open(uri)).promote("iris", 2)
    written = json.loads(aliases.read_text())
    assert (written["route"], written["format"], written["values"]) == (
        {"weight": 5}, 1, {"champion": 2},
    )  # fmt: skip


def test_its_versions_reproduce_their_golden_rows(uri: str) -> None:
    registry = Registry(storage.open(uri))
    for number in (1, 2):
        loaded = bundle.load(registry, registry.resolve("iris", str(number)))
        loaded.verify()


def test_a_sweep_of_it_removes_nothing_that_is_needed(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["storage", "sweep", "--storage", uri, "--older-than", "0s", "--json"]
    assert cli.main([*sweep, "--dry-run"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert cli.main(sweep) == 0
    assert json.loads(capsys.readouterr().out)["keys"] == seen["keys"]
    registry = Registry(storage.open(uri))
    bundle.load(registry, registry.resolve("iris", "champion")).verify()


def test_its_searches_have_ended_or_go_on(
    ray_cluster: None, folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver of the third was killed: its lease is silent, and its trials are continued."""
    monkeypatch.setattr(leases, "TTL_S", 1.0)
    for name, version in (("first", 1), ("second", 2)):
        ended, said = run(folder, uri, name)
        assert (ended.result.version, ended.place.champion) == (version, 1)
        assert "has already ended; returning its result" in said
    known = third(folder, uri)
    (unfinished,) = [one for one in known if one.unfinished]
    ended, said = run(folder, uri, "third")
    after = {one.number: one for one in ended.trials}
    assert f"resuming: {len(known) - 1} of 3 trials done" in said
    assert [one for one in after.values() if one in known] == [
        one for one in known if not one.unfinished
    ]
    assert sorted(after) == [1, 2, 3]
    assert after[unfinished.number].values == unfinished.values
    assert ended.place.champion == 1


def run(folder: Path, uri: str, name: str) -> tuple[Outcome, str]:
    out = io.StringIO()
    ended = pipeline.run(experiment(folder, uri, name), console.Console(file=out, width=200))
    return ended, out.getvalue()


def third(folder: Path, uri: str) -> list[searches.Record]:
    """The trials of the search that was killed, by number."""
    found = searches.all_of(storage.open(uri))
    (killed,) = [one for one in found if one.result() is None]
    return killed.trials()


def experiment(folder: Path, uri: str, name: str) -> spec.Experiment:
    return spec.load(folder / f"{name}.yaml", {"storage": uri})
