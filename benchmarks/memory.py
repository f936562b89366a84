"""Memory of a replica's application through many changes of its version, in one process.

The application answers mixed requests (JSON, CSV, Arrow, v2, explained, gzip, invalid ones, labels)
without a socket, while the alias moves to another version again and again, each a bundle of its
own, and through rollouts. Its threads and its environment are those of a replica. The resident
memory after the last change may be 5 % above or below that after the fifth.

    python -m benchmarks.memory [--changes 50] [--minutes 2]
"""

import argparse
import asyncio
import gzip
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from eagleray import machine
from serving import environment

FIRST = 5  # changes after which memory is to be flat
NAME = "left"
_LIMITS = "more_errors", "more_slow", "more_slower", "apart"  # so high that nothing is stopped


class Replica:
    """What a replica of Ray Serve holds, and versions that it may serve."""

    def __init__(self, folder: Path, changes: int) -> None:
        from eagleray import storage
        from eagleray.state.models import Registry
        from eagleray.state.rollouts import Rollouts
        from serving import metrics, served
        from serving.settings import Settings
        from tests import bundles

        store = storage.open(folder.as_uri())
        self.registry, self.rollouts = Registry(store), Rollouts(store)
        for seed in range(changes + 1):
            self.registry.register(NAME, bundles.files(seed=seed), {})
        self.registry.promote(NAME, 1)
        settings = Settings(name=NAME, storage=folder.as_uri(), capture=0.1, poll_s=0.2)
        gauges = metrics.Metrics(folder / "metrics", NAME)
        self.served = served.Served(settings, gauges)
        self.served.versions.check()
        self.served.start()
        self.rows = bundles.instances(bundles.rows(200, seed=3))

    def change(self, number: int) -> None:
        """Move the alias to a version; every third time through a rollout."""
        from eagleray.state.rollouts import Plan

        if number % 3:
            self.registry.promote(NAME, number)
        else:
            never = dict.fromkeys(_LIMITS, 0.99) | {"false_stops": 1e-300}
            plan = Plan(steps=(0.5,), bake_s=3600, **never)
            self.rollouts.start(NAME, number, plan=plan)

    def settle(self) -> None:
        """Promote the candidate of a rollout that is under way."""
        route = self.registry.aliases(NAME).routes.get("champion")
        if route is None:
            return
        now = self.rollouts.read(NAME, route.rollout)
        if now.open:
            self.rollouts.change(now, lambda one: one.decided("promoted", "", status="promoted"))


async def ask(replica: Replica, chance: random.Random) -> None:
    """Send one request of any kind."""
    import httpx

    row = chance.choice(replica.rows)
    many = chance.choices(replica.rows, k=chance.choice((1, 3, 50)))
    plain: dict[str, Any] = {"instances": many}
    packed = gzip.compress(json.dumps(plain).encode())
    names = list(row)
    cells = [["" if one[name] is None else str(one[name]) for name in names] for one in many]
    csv = "\n".join(map(",".join, [names, *cells]))
    label = {"request_id": f"{chance.random()}", "version": 1, "reward": 1}
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("/predict", {"json": plain}),
        ("/predict", {"json": {"instances": [row]}}),
        ("/predict", {"json": {"instances": [row | {"age": "old"}]}}),
        ("/predict?explain=true", {"json": {"instances": [row]}}),
        ("/predict", {"content": packed, "headers": _typed(encoding="gzip")}),
        ("/predict", {"content": csv, "headers": _typed("text/csv")}),
        ("/predict", {"content": b"{", "headers": _typed()}),
        (f"/v1/models/{NAME}:label", {"json": {"labels": [label]}}),
        ("/metrics", {}),
    ]
    path, body = chance.choices(kinds, weights=(5, 20, 2, 1, 2, 2, 1, 4, 1))[0]
    transport = httpx.ASGITransport(replica.served.application)
    async with httpx.AsyncClient(transport=transport, base_url="http://left") as client:
        await client.request("POST" if body else "GET", path, **body)


def _typed(kind: str = "application/json", *, encoding: str = "identity") -> dict[str, str]:
    return {"content-type": kind, "content-encoding": encoding}


def resident_mb() -> float:
    return machine.resident_memory() / 2**20


async def run(replica: Replica, changes: int, seconds: float) -> tuple[float, float, int]:
    """Change versions under traffic; memory after `FIRST` changes and at the end, and requests."""
    chance, first, asked = random.Random(0), 0.0, 0
    for change in range(1, changes + 1):
        await asyncio.to_thread(replica.change, change + 1)
        asked += await _traffic(replica, chance, seconds / changes / 2)
        await asyncio.to_thread(replica.settle)
        asked += await _traffic(replica, chance, seconds / changes / 2)
        while replica.served.versions.serving != change + 1:
            asked += await _traffic(replica, chance, 0.1)
        if change == FIRST:
            first = resident_mb()
        if change % 5 == 0:
            print(f"{resident_mb():.0f} MiB after {change} changes, {asked} requests", flush=True)
    return first, resident_mb(), asked


async def _traffic(replica: Replica, chance: random.Random, seconds: float) -> int:
    asked, ends = 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        await asyncio.gather(*(ask(replica, chance) for _ in range(8)))
        asked += 8
    return asked


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=2.0)
    options = parser.parse_args()
    if not environment.MEMORY.items() <= os.environ.items():  # read when a process starts
        again = [sys.executable, "-m", "benchmarks.memory", *sys.argv[1:]]
        os.execve(sys.executable, again, os.environ | environment.MEMORY)
    with tempfile.TemporaryDirectory() as name:
        replica = Replica(Path(name), options.changes)
        first, last, asked = asyncio.run(run(replica, options.changes, 60 * options.minutes))
        replica.served.stop()
    text = f"memory after {options.changes} changes of version and {asked} requests, in MiB"
    found = {"claim": text, "ours": round(last, 1), "peer": round(first, 1)}
    found |= {"ratio": round(last / first, 4), "target": 1.05}
    print(json.dumps({**found, "holds": 0.95 <= last / first <= 1.05}))


if __name__ == "__main__":
    main()
