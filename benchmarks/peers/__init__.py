"""Servers beside which `serve.py` sets ours: each as its documentation has it, with one process.

A peer is a file here, started by `python -m benchmarks.peers.NAME FOLDER PORT`, and a line of
`PEERS`. Those that need packages which exclude ours are in environments of their own.
Libraries for tables are in `tables`.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = {
    "starlette": "",
    "ray serve": "",
    "uvicorn alone": "",
    "connection": "",
    "granian": "servers",
    "litserve": "servers",
    "bentoml": "servers",
    "mosec": "servers",
    "mlserver": "mlserver",
}
"""The environment of each, a list of packages beside this file; empty for the project's own."""


def command(peer: str, folder: Path, port: int) -> list[str]:
    """The command that starts a peer; its environment is made where it is not there yet."""
    module = f"benchmarks.peers.with_{peer.split()[0]}"
    return [interpreter(PEERS[peer]), "-m", module, str(folder), str(port)]


def interpreter(environment: str) -> str:
    """The path of an environment's Python; the environment is created if missing, `""` is ours."""
    if not environment:
        return sys.executable
    home, wanted = ROOT / ".venv" / "peers" / environment, Path(__file__).with_name(environment)
    packages = wanted.with_suffix(".txt").read_text()
    python, ready = home / "bin" / "python", home / ".ready"
    if not ready.exists() or ready.read_text() != packages:
        print(f"installing {', '.join(packages.split())} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages.split()], check=True)
        _add_project(home)
        ready.write_text(packages)
    return str(python)


def _add_project(home: Path) -> None:
    """Let modules of the project, torch among them, be found after those of the peer."""
    (site,) = home.glob("lib/python*/site-packages")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    site.joinpath("project.pth").write_text("\n".join([str(ROOT), *packages, ""]))
