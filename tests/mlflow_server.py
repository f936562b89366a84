"""A real MLflow server for tests.

It wants other releases of pyarrow than we do, so it has an environment of its own, which
`python -m tests.mlflow_server` makes beside ours from `mlflow_server.txt`; `make lock` writes that.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests import ray_nodes

REQUIREMENTS = Path(__file__).with_suffix(".txt")
FOLDER = Path(sys.prefix) / "mlflow"
LIMIT_S = 120.0


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start a server that keeps its files in the folder; yields its address, and ends it."""
    program = FOLDER / "bin" / "mlflow"
    if not program.exists():
        raise FileNotFoundError(f"{program}: install it: {sys.executable} -m tests.mlflow_server")
    port = ray_nodes.free_port()
    options = [f"--backend-store-uri=sqlite:///{folder}/mlflow.db", "--workers=1"]
    options += [f"--artifacts-destination={folder}/artifacts", f"--port={port}"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [str(program), "server", "--host=127.0.0.1", *options],
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        ray_nodes.end(server)


def install() -> None:
    """Make the environment, unless it is there with these requirements."""
    mark = FOLDER / REQUIREMENTS.name
    if mark.exists() and mark.read_bytes() == REQUIREMENTS.read_bytes():
        return
    uv = [sys.executable, "-m", "uv"]
    venv = [*uv, "venv", "--quiet", "--clear", "--python", sys.executable]
    subprocess.run([*venv, str(FOLDER)], check=True)
    python = str(FOLDER / "bin" / "python")
    pip = [*uv, "pip", "install", "--quiet", "--no-deps", "--python", python]
    subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)
    shutil.copy(REQUIREMENTS, mark)


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + LIMIT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


if __name__ == "__main__":
    install()
