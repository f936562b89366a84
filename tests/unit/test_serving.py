"""The command line of serving, and that its documentation says what the code does."""

import dataclasses
import re
import socket
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml

from eagleray import cli, errors, storage
from eagleray.api import endpoints
from eagleray.spec import endpoint
from eagleray.state.models import Registry
from serving import local, metrics, protocol
from serving.autoscaling.plan import DAYS, PRESETS
from serving.settings import Settings
from tests import bundles

DOCS = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def test_an_experiment_file_gives_the_settings_and_options_go_over_them(tmp_path: Path) -> None:
    file = tmp_path / "left.yaml"
    file.write_text(
        "name: left\ndata: {source: 'dataset:iris', target: target}\nmodel: {type: mlp}\n"
        f"storage: {tmp_path.as_uri()}\n"
        "serve: {replicas: {min: 2, max: 6}, batch: {max_rows: 32, wait_ms: 0},"
        " extra_fields: ignore}\n"
    )
    settings = endpoints.read(str(file), {"max_replicas": 3})
    assert (settings.name, settings.storage) == ("left", tmp_path.as_uri())
    assert (settings.min_replicas, settings.max_replicas) == (2, 3)
    assert (settings.max_rows, settings.wait_ms) == (32, 0.0)
    assert settings.extra_fields == "ignore"


def test_objective_preset_and_schedules_of_the_file_are_the_plans(tmp_path: Path) -> None:
    file = tmp_path / "left.yaml"
    file.write_text(
        "name: left\ndata: {source: 'dataset:iris', target: target}\n"
        "serve:\n  replicas: {min: 0, max: 6}\n  slo: {p95_ms: 40}\n  preset: cheap\n"
        "  schedules: [{days: [sun], start: '22:30', end: '02:00', min: 2}]\n"
    )
    plan = endpoints.read(str(file), {"downscale_delay_s": 7}).plan()
    assert (plan.min_replicas, plan.p95_ms) == (0, 40)
    assert plan.pace == dataclasses.replace(PRESETS["cheap"], down_s=7)
    (window,) = plan.windows
    assert (window.days, window.start, window.end, window.zone) == ((6,), 1350, 120, "UTC")
    assert get_args(endpoint.Day) == DAYS


def test_a_wrong_setting_is_told_with_its_name_law_and_value() -> None:
    with pytest.raises(errors.UserError, match=r"^preset must be 'steady'.* but got 'fast'$"):
        endpoints.read("left", {"preset": "fast"})
    with pytest.raises(errors.UserError, match=r"^p95_ms must be greater than 0, but got -1$"):
        endpoints.read("left", {"p95_ms": -1})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"models": ["A b"]}, "models must be names of models or '*', but got 'A b'"),
        ({"rollout": {"mode": "split"}}, "rollout: steps must be one share where mode is split, "),
    ],
)
def test_a_law_of_ours_is_told_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.UserError, match=re.escape(said)) as caught:
        endpoints.read("left", options)
    assert str(caught.value).startswith(said)
    assert str(caught.value).count("but got") == 1


def test_impossible_bounds_are_refused_in_one_line() -> None:
    with pytest.raises(errors.UserError, match="at least min_replicas, which is 3, but got 2"):
        endpoints.read("left", {"min_replicas": 3, "max_replicas": 2})


def test_a_model_that_is_not_there_ends_the_command_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "nobody", "--storage", tmp_path.as_uri()]) == 2
    assert "nobody" in capsys.readouterr().err


def test_a_port_that_is_taken_ends_the_command_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = Registry(storage.open(tmp_path.as_uri()))
    models.register("left", bundles.files(), {})
    models.promote("left", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", "left", "--storage", tmp_path.as_uri(), "--port", port]) == 2
    assert f"127.0.0.1:{port} is taken" in capsys.readouterr().err


def test_a_file_of_keys_is_read_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = Registry(storage.open(tmp_path.as_uri()))
    models.register("left", bundles.files(), {})
    models.promote("left", 1)
    file = tmp_path / "keys"
    file.write_text("team predict\n")
    words = ["serve", "left", "--storage", tmp_path.as_uri(), "--keys"]
    assert cli.main([*words, str(file)]) == 2
    assert f"{file}:1: must be an id, scopes and a SHA-256" in capsys.readouterr().err
    assert cli.main([*words, str(tmp_path / "absent")]) == 2
    assert "keys_file must be a text file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["--host", "0.0.0.0"], True),
        (["--host", "10.1.2.3"], True),
        (["--host", "0.0.0.0", "--keys", "keys"], False),
        (["--host", "127.0.0.2"], False),
        (["--host", "localhost"], False),
        ([], False),
    ],
)
def test_who_opens_an_endpoint_to_all_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], warned: bool
) -> None:
    assert cli.main(["serve", "nobody", "--storage", tmp_path.as_uri(), *words]) == 2
    assert ("whoever reaches it may ask" in capsys.readouterr().err) == warned


def test_the_command_that_is_printed_has_a_key_where_one_is_asked_for() -> None:
    loaded = bundles.make()
    loaded.name, loaded.golden = "left", bundles.golden(loaded)
    assert "authorization" not in local.curl("http://left", loaded)
    asked = local.curl("http://left", loaded, keys=True)
    assert ' -H "authorization: Bearer $EAGLERAY_KEY" ' in asked


@pytest.mark.parametrize("replicas", [1, 3, 64])
def test_all_replicas_fit_on_this_machine(replicas: int) -> None:
    import os

    assert 0 < local.cpus(replicas) <= 1
    assert local.cpus(replicas) * replicas <= max(1, os.cpu_count() or 1)


@pytest.mark.parametrize("command", re.findall(r"^eagleray (serve .*)$", DOCS, re.MULTILINE))
def test_documented_commands_parse(command: str) -> None:
    words = command.partition("#")[0].split()
    found: Any = typer.main.get_command(cli.app).get_command(None, words[0])  # type: ignore[attr-defined]
    assert found.make_context("serve", words[1:]).params["name"]


@pytest.mark.parametrize("command", re.findall(r"^eagleray (simulate .*)$", DOCS, re.MULTILINE))
def test_documented_simulations_parse(command: str) -> None:
    words = command.split()
    found: Any = typer.main.get_command(cli.app).get_command(None, words[0])  # type: ignore[attr-defined]
    assert found.make_context("simulate", words[1:]).params["service_ms"]


def test_documented_presets_are_those_there_are() -> None:
    table = DOCS.partition("| preset |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    numbers = {name: [float(one) for one in re.findall(r"[\d.]+", row)] for name, row in rows}
    assert set(numbers) == set(PRESETS) == set(get_args(endpoint.Preset))
    for name, (up, down, zero, panic, grow, shrink, step, *spare) in numbers.items():
        pace = PRESETS[name]
        assert (up, down, zero * 60, panic) == (pace.up_s, pace.down_s, pace.zero_s, pace.panic)
        assert (grow / 100, shrink / 100, step) == (pace.grow, pace.shrink, pace.step_s)
        assert sum(spare) / 100 == pace.spare


def test_documented_arguments_are_the_builders() -> None:
    (config,) = re.findall(r"^serveConfigV2: \|\n((?:  .*\n)+)", DOCS, re.MULTILINE)
    (application,) = yaml.safe_load(config)["applications"]
    assert Settings.model_validate(application["args"]).name == "digits"
    table = DOCS.partition("| argument |")[2].partition("\n\n")[0]
    rows = (line.split("|")[1] for line in table.splitlines()[2:])
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(
        Settings.model_fields
    )


def test_documented_metrics_are_those_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metrics.FOLDER, "")
    gauges = metrics.Metrics(tmp_path, "left")
    every = [*vars(gauges).values(), *vars(gauges._predictions).values()]
    named = (made._name for made in every if hasattr(made, "_name"))
    documented = set(re.findall(r"^\| `(eagleray_\w+)`", DOCS, re.MULTILINE))
    assert {name.removesuffix("_total") for name in documented} == set(named)


def test_documented_errors_are_those_there_are() -> None:
    table = dict(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", DOCS, re.MULTILINE))
    kinds = {status: kind for status, (kind, _) in protocol.ERRORS.items()}
    assert {int(status): kind for status, kind in table.items()} == kinds
