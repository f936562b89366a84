"""The embedded server and `eagleray local` and `models`, as a user meets them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eagleray import cli, errors, storage
from eagleray.state.models import Registry
from eagleray.storage import server
from tests.sockets import listeners


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own, no AWS settings, and no server left behind."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "EAGLERAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / ".eagleray"
    server.down()


@pytest.fixture
def eagleray(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command and give what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        ended = cli.main(arguments)
        printed = capsys.readouterr()
        assert ended == code, printed.err
        return printed.out + printed.err

    return run


def test_the_server_keeps_data_keys_and_ports_when_it_is_stopped_or_killed(home: Path) -> None:
    first = server.up()
    assert server.up() == first
    storage.open("s3://eagleray").put("a", b"1")
    before = server.environment(first)

    os.kill(first.pid, signal.SIGKILL)
    while server.status() is not None:
        time.sleep(0.01)
    second = server.up()
    assert second.pid != first.pid
    assert server.environment(second) == before
    assert storage.open("s3://eagleray").get("a") == b"1"

    assert server.down() == second
    assert (server.status(), server.down()) == (None, None)
    server.up()
    assert storage.open("s3://eagleray").get("a") == b"1"


def test_only_this_machine_and_only_this_user_get_at_it(home: Path) -> None:
    running = server.up()
    assert (home.stat().st_mode & 0o777, (home / "keys.json").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )
    addresses = listeners(running.pid)
    assert len(addresses) >= 9
    assert {address.partition(":")[0] for address in addresses} == {"0100007F"}
    ports = {int(address.partition(":")[2], 16) for address in addresses}
    assert not ports & {9101, 8265, 6379}
    assert all(20000 <= port < 32768 for port in ports)


def test_a_stale_process_id_is_neither_believed_nor_killed(home: Path) -> None:
    server.up()
    server.down()
    innocent = subprocess.Popen(["sleep", "60"])
    (home / "pid").write_text(str(innocent.pid))
    assert (server.status(), server.down()) == (None, None)
    assert innocent.poll() is None
    assert server.up().pid != innocent.pid
    innocent.kill()
    innocent.wait()


def test_a_port_that_was_taken_meanwhile_is_replaced_and_the_data_stay(home: Path) -> None:
    first = server.up()
    storage.open("s3://eagleray").put("a", b"1")
    server.down()
    ports = json.loads((home / "ports.json").read_text())
    taken = [
        socket.create_server(("127.0.0.1", port))
        for port in (ports["s3"], ports["master"], ports["volume"] + 10_000)
    ]
    assert server.up().endpoint != first.endpoint
    assert storage.open("s3://eagleray").get("a") == b"1"
    for one in taken:
        one.close()


def test_two_who_start_it_at_once_get_the_same_server(home: Path) -> None:
    code = "from eagleray.storage import server; print(server.up().pid)"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    pids = {process.communicate(timeout=60)[0].strip() for process in both}
    assert pids == {str(server.up().pid)}


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    (home / "data").mkdir(parents=True)
    (home / "data" / "filerldb2").write_text("in the way")
    with pytest.raises(errors.StorageUnavailableError, match=r"while it started[^$]*filerldb2"):
        server.up()
    shutil.rmtree(home)
    home.write_text("in the way")
    with pytest.raises(errors.UserError, match="must be a folder to write in"):
        server.up()


def test_a_server_is_found_from_the_folders_below_its_own_and_from_no_other(
    home: Path, eagleray: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = eagleray("local", "status", code=1)
    assert f"down; no local server runs in {home} or a folder above; start one with" in said
    running = server.up()
    below, beside = home.parent / "models" / "deep", home.parent.with_name("beside")
    below.mkdir(parents=True)
    beside.mkdir()
    monkeypatch.chdir(below)
    assert (server.status(), server.up()) == (running, running)
    assert storage.open("s3://eagleray").uri == "s3://eagleray"
    assert running.endpoint in eagleray("local", "status")
    monkeypatch.chdir(beside)
    assert server.status() is None
    assert f"runs in {beside / '.eagleray'} or a folder above" in eagleray(
        "models", "list", "--storage", "s3://eagleray", code=1
    )
    monkeypatch.setenv("EAGLERAY_HOME", str(home))
    assert server.status() == running
    monkeypatch.chdir(home.parent)


def test_a_folder_of_another_user_is_no_server_of_ours(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "keys.json").write_text("{}")
    below = home.parent / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert server.find() == home
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    assert server.find() == below / ".eagleray"


def test_the_commands_work_from_one_folder_without_any_setting(
    home: Path, eagleray: Callable[..., str]
) -> None:
    assert json.loads(eagleray("local", "status", "--json", code=1))["state"] == "down"
    running = json.loads(eagleray("local", "up", "--json"))["server"]
    registry = Registry(storage.open("s3://eagleray"))
    for rate in (0.1, 0.2):
        registry.register("spam", {"weights": str(rate).encode()}, {"values": {"lr": rate}})
    assert "would point to version 1" in eagleray("models", "promote", "spam", "1", "--dry-run")
    assert json.loads(eagleray("models", "list", "--json")) == [
        {"name": "spam", "latest": 2, "aliases": {}}
    ]
    eagleray("models", "promote", "spam", "1", "--why", "first")
    eagleray("models", "promote", "spam", "latest")
    assert "champion=2" in eagleray("models", "list")
    assert "points to version 1, before: 2" in eagleray("models", "rollback", "spam")
    log = json.loads(eagleray("models", "events", "spam", "--json"))
    assert [event["action"] for event in log[2:]] == ["promoted", "promoted", "rolled-back"]
    facts = {
        row["fact"]: row["right"]
        for row in json.loads(eagleray("models", "diff", "spam", "champion", "latest", "--json"))
    }
    assert facts["values.lr"] == 0.2
    assert "file weights" in facts
    assert "values.lr" in eagleray("models", "show", "spam", "2")
    eagleray("models", "pull", "spam", "--to", "fetched")
    assert Path("fetched/weights").read_bytes() == b"0.1"
    said = eagleray("models", "show", "spma", code=2)
    assert "did you mean 'spam'" in said
    assert running["endpoint"] in eagleray("local", "down")
