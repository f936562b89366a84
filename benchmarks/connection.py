"""CPU time of a prediction with the connection of our replicas, and with uvicorn's own.

Both serve the same application under uvicorn, without Ray Serve and HAProxy, to 64 connections in
turns. CPU time of the server is steadier than its requests a second; both are printed.

Run: python -m benchmarks.connection [--rounds 5] [--seconds 4]
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks import serve

OURS, PEER = "connection", "uvicorn alone"
TARGET = 0.9
"""Largest part of uvicorn's CPU time that ours takes."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def measured(server: serve.Server, seconds: int) -> tuple[float, float]:
    """Microseconds of CPU time a request, and requests a second."""
    before = cpu_s(server.process)
    found = serve.drive(server, serve.CONNECTIONS, seconds)
    assert not found["failed"], f"{server.name}: requests failed"
    return 1e6 * (cpu_s(server.process) - before) / (found["rate"] * seconds), found["rate"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    asked = parser.parse_args()
    rounds: dict[str, list[tuple[float, float]]] = {OURS: [], PEER: []}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        serve.register(Path(name))
        servers = [running.enter_context(serve.started(kind, Path(name))) for kind in rounds]
        serve.agree(servers)
        for number in range(asked.rounds + 1):
            for server in servers if number % 2 else reversed(servers):
                found = measured(server, asked.seconds)
                if number:  # the first one warms up
                    rounds[server.name].append(found)
                    print(f"{server.name}: {found[0]:.1f} µs, {found[1]:.0f}/s", flush=True)
    ours, peer = (statistics.median(cost for cost, _ in rounds[one]) for one in (OURS, PEER))
    claim = "µs of CPU time a prediction, our connection and uvicorn's"
    figures = {"ours": round(ours, 1), "peer": round(peer, 1), "ratio": round(ours / peer, 3)}
    print(json.dumps({"claim": claim, **figures, "target": TARGET, "holds": ours <= TARGET * peer}))


if __name__ == "__main__":
    main()
