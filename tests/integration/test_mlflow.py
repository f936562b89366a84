"""MLflow that does not answer: a search neither waits for it nor fails with it."""

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich import console

from eagleray import cli, errors, spec
from eagleray.client import ray_jobs as clients
from eagleray.client import tracking
from eagleray.state import searches
from eagleray.state.runs import Run
from ray_jobs import search
from ray_jobs.report import tracking as reports
from tests import ray_nodes

FILE = """
name: wine
data: {{source: 'dataset:wine', target: target}}
train: {{lr: {{loguniform: [1.0e-3, 1.0e-1]}}}}
storage: file://{folder}
"""
TRIAL = searches.Record(number=1, values={"train.lr": 0.1}, status="finished")


@pytest.fixture
def searched(tmp_path: Path) -> search.Search:
    file = tmp_path / "wine.yaml"
    file.write_text(FILE.format(folder=tmp_path))
    found = search.Search(spec.load(file))
    found.records.save(TRIAL)
    return found


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that is not there."""
    address = f"http://127.0.0.1:{ray_nodes.free_port()}"
    monkeypatch.setenv(tracking.URI, address)
    return address


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv(tracking.URI, address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        yield address


def follow(searched: search.Search, monkeypatch: pytest.MonkeyPatch, *, sends: int) -> str:
    """What is printed beside a search, which ends after so many sends have failed."""
    out, failed = console.Console(file=io.StringIO(), width=300), threading.Semaphore(0)
    send = tracking.Tracker.send

    def counted(*given: object, **options: object) -> int:
        try:
            return send(*given, **options)  # type: ignore[arg-type]
        except errors.TrackingError:
            failed.release()
            raise

    monkeypatch.setattr(tracking.Tracker, "send", counted)
    with reports.sent(searched, {1: TRIAL}, out):
        for _ in range(sends):
            assert failed.acquire(timeout=60)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_server_that_is_gone_is_noted_once_with_the_command_that_sends_later(
    searched: search.Search, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "SEND_S", 0.0)
    said = follow(searched, monkeypatch, sends=3)
    later = f"eagleray runs mlflow {searched.id} --storage {searched.experiment.storage}\n"
    assert said.count("note: ") == 1
    assert refusing in said
    assert said.endswith(f"Connection refused; the search goes on; send it later: {later}")


def test_a_server_that_is_silent_does_not_hold_the_end_of_a_search(
    searched: search.Search, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "END_S", 0.0)
    said = follow(searched, monkeypatch, sends=0)
    assert said.startswith(f"note: MLflow at {silent} is slow; the search goes on")


def test_without_the_variable_nothing_is_sent(
    searched: search.Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(tracking.URI, raising=False)
    assert follow(searched, monkeypatch, sends=0) == ""


def test_sent_later_a_server_that_is_gone_is_an_error_that_names_it(
    searched: search.Search, refusing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["runs", "mlflow", "wine", "--storage", searched.experiment.storage]
    assert cli.main(command) == errors.TrackingError.exit_code
    assert f"but {refusing}: [Errno 111] Connection refused" in capsys.readouterr().err


def test_sent_later_somebody_must_say_where_mlflow_is(
    searched: search.Search,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(tracking.URI, raising=False)
    command = ["runs", "mlflow", "wine", "--storage", searched.experiment.storage]
    assert cli.main(command) == errors.UserError.exit_code
    assert "MLFLOW_TRACKING_URI: must be set" in capsys.readouterr().err


def test_a_driver_on_a_cluster_is_led_to_the_same_server(
    refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    passed = clients.environment("http://head:8265", Run("wine", "abc", "file:///data"))
    assert passed[tracking.URI] == refusing
    assert passed["MLFLOW_TRACKING_TOKEN"] == "secret"
