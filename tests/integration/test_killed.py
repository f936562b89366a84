"""`eagleray serve`, killed: nothing of what it has started stays."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from eagleray import storage
from eagleray.state.models import Registry
from serving import environment
from tests import bundles


def family(process: int) -> dict[int, str]:
    """Command lines of a process's children, their children, and so on."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            after = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(after[1])
    found, reached = {}, [process]
    while reached:
        reached = [one for one, parent in parents.items() if parent in reached]
        found |= {one: command(one) for one in reached}
    return found


def command(process: int) -> str:
    """A process's command line; empty when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def lasting(line: str) -> bool:
    """Not Ray's agents, which end by themselves once they have not reached the head for 60 s."""
    return (bool(line) and not line.startswith("ray::")) or line.startswith("ray::Serve")


def program(line: str) -> str:
    return Path(line.split()[0]).name


def test_a_killed_endpoint_leaves_no_process_behind(tmp_path: Path) -> None:
    models = Registry(storage.open(tmp_path.as_uri()))
    models.register("left", bundles.files(seed=1), {})
    models.promote("left", 1)
    (port,) = environment.free_ports(1)
    options = ["--storage", tmp_path.as_uri(), "--port", str(port), "--json"]
    serve = [sys.executable, "-m", "eagleray", "serve", "left", *options]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["url"]
        started = {one: line for one, line in family(process.pid).items() if lasting(line)}
        assert {"haproxy", "raylet", "gcs_server"} <= set(map(program, started.values()))
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 60
    while left := {line for one, line in started.items() if command(one) == line}:
        assert time.monotonic() < until, left
        time.sleep(0.2)
