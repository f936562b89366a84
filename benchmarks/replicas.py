"""Replicas that are killed under load: what clients notice of it.

`eagleray serve` with several replicas answers a client with an open loop (`benchmarks/traffic.py`)
through HAProxy. Every 5 s one of the replicas is killed with SIGKILL, if HAProxy has another one
that is up: no request may fail. HAProxy asks another replica again (docs/adr/0014).

    python -m benchmarks.replicas [--seconds 180] [--every 5] [--replicas 3] [--rate 200]
"""

import argparse
import asyncio
import contextlib
import csv
import json
import os
import random
import signal
import socket
import tempfile
import time
from pathlib import Path

from benchmarks import traffic
from benchmarks.traffic import NAME, Client
from eagleray import storage
from eagleray.state.models import Registry


def replicas(process: int, scratch: Path) -> list[int]:
    """The ids of the replicas that HAProxy sends requests to."""
    up = set(_up(scratch))
    return [pid for pid in _descendants(process) if _is_replica(pid) and _ports(pid) & up]


def _up(scratch: Path) -> list[int]:
    """The ports of the servers that HAProxy holds for up; none while it does not answer."""
    sockets = scratch.glob("er-*/**/admin.sock")  # one of each process of HAProxy
    try:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(max(sockets, key=lambda one: one.stat().st_mtime)))
            admin.sendall(b"show stat\n")
            text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
    except (OSError, ValueError):
        return []
    rows = csv.DictReader(text.removeprefix("# ").splitlines())
    return [int(row["addr"].rpartition(":")[2]) for row in rows if row["addr"] and _takes(row)]


def _takes(server: dict[str, str]) -> bool:
    return server["status"].startswith("UP") and server["svname"] != "BACKEND"


def _descendants(process: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rpartition(")")[2].split()[1]
            )
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _is_replica(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ServeReplica")
    return False


def _ports(pid: int) -> set[int]:
    """The ports at which a process listens."""
    listening = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A":
                listening[cells[9]] = int(cells[1].rpartition(":")[2], 16)
    found = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inode = str(link.readlink()).removeprefix("socket:[").removesuffix("]")
                if inode in listening:
                    found.add(listening[inode])
    return found


async def kill(process: int, scratch: Path, *, seconds: float, every: float) -> list[float]:
    """Kill a replica now and then while another one is up; when each was killed."""
    ends, killed = time.monotonic() + seconds, list[float]()
    while time.monotonic() < ends:
        await asyncio.sleep(every)
        while len(up := await asyncio.to_thread(replicas, process, scratch)) < 2:
            if time.monotonic() > ends:
                return killed
            await asyncio.sleep(0.2)
        os.kill(random.choice(up), signal.SIGKILL)
        killed.append(time.monotonic())
    return killed


async def measure(asked: argparse.Namespace, store: Path, scratch: Path) -> None:
    with traffic.endpoint(store, replicas=asked.replicas, scratch=scratch) as (port, process):
        while len(replicas(process, scratch)) < asked.replicas:
            await asyncio.sleep(0.5)
        async with Client(port, asked.rate) as client:
            kills = await kill(process, scratch, seconds=asked.seconds, every=asked.every)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    for at, said in client.answers:
        if not said.isdecimal():
            print(f"{said}, {at - max(one for one in kills if one <= at):.2f} s after a kill")
    killed, failed, count = len(kills), client.failures.total(), len(client.answers)
    print(load)
    text = f"failed of {count} requests through {killed} kills of one of {asked.replicas} replicas"
    found = {"claim": text, "ours": failed, "peer": 0, "ratio": failed, "target": 0}
    print(json.dumps({**found, "killed": killed, "holds": failed == 0 and killed > 0}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as name:
        store, scratch = Path(name, "store"), Path(name, "t")
        store.mkdir()
        scratch.mkdir()
        registry = Registry(storage.open(store.as_uri()))
        registry.register(NAME, traffic.version(), {})
        registry.promote(NAME, 1)
        asyncio.run(measure(asked, store, scratch))


if __name__ == "__main__":
    main()
