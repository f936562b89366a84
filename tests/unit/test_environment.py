"""Variables that Ray is started with: which HAProxy it starts, and how that one asks again."""

import re
import socket
import subprocess
import time
from importlib import util
from pathlib import Path

import pytest

from serving import environment


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_ray_starts_the_haproxy_that_it_would_have_started(tmp_path: Path) -> None:
    program = environment.haproxy_program(tmp_path)[environment.BINARY]
    said = subprocess.run([program, "-v"], text=True, capture_output=True, check=True).stdout
    assert said.startswith("HAProxy version")


@pytest.mark.timeout(30)
def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = environment.haproxy_program(tmp_path)[environment.BINARY]
    config = tmp_path / "haproxy.cfg"
    (port,) = environment.free_ports(1)
    config.write_text(
        "defaults\n mode http\n timeout client 1s\n timeout connect 1s\n timeout server 1s\n"
        f"listen here\n bind 127.0.0.1:{port}\n"
    )
    with subprocess.Popen(["sh", "-c", f"{program} -q -db -f {config} & wait"]) as parent:
        while not answers(port):
            time.sleep(0.05)
        parent.kill()
    while answers(port):  # for good without `bound`: the test's time limit is what fails
        time.sleep(0.05)


def test_a_choice_of_haproxy_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.BINARY, "/bin/echo")
    program = environment.haproxy_program(tmp_path)[environment.BINARY]
    said = subprocess.run([program, "a b"], text=True, capture_output=True, check=True).stdout
    assert said == "a b\n"


def test_pages_of_haproxy_listen_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the template of Ray Serve binds them; the port for clients stays where it is."""
    template = Path(str(util.find_spec("ray.serve").submodule_search_locations[0]))  # type: ignore[union-attr,index]
    lines = (template / "_private/haproxy_templates.py").read_text().splitlines()
    shown = re.compile(r"\{\{ config\.(metrics|stats)_port \}\}")
    bound = [shown.sub(environment.CLOSED, line) for line in lines if shown.search(line)]
    assert len(bound) == 2
    config = tmp_path / "haproxy.cfg"
    rest = "listen here\n    bind *:8000\n    bind *:11\n"
    config.write_text(rest + "\n".join(bound))
    monkeypatch.setenv(environment.BINARY, "/bin/echo")
    program = environment.haproxy_program(tmp_path)[environment.BINARY]
    subprocess.run([program, "-db", "-f", config], check=True)
    assert config.read_text() == rest


def test_two_runs_have_ports_and_paths_of_their_own(tmp_path: Path) -> None:
    first, second = map(environment.private_paths, (tmp_path / "a", tmp_path / "b"))
    shared = {name for name in first if first[name] == second[name]}
    assert shared == {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", *environment.PAGES}
