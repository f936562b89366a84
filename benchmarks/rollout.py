"""Promotions, rollbacks and rollouts under load: what clients notice of them.

`eagleray serve` with one replica answers a client with an open loop: it sends at fixed times,
however late answers are, over connections that stay open. Then

- the alias is moved 20 times forth and 20 times back: no request may fail, and within 3 s of each
  move all answers come from its version;
- rollouts of bad versions must be stopped within 60 s, with less than 10 % of the requests of that
  time answered by the candidate, and none failed: one that raises on 5 % of the rows, one that is
  3 times slower, one that always predicts one class, one that gives NaN on 5 % of the rows;
- 50 rollouts of an equal version, decided on simulated requests: at most 2 may be stopped.

What it is compared with are the bounds. Run: python benchmarks/rollout.py [--rate 500]
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eagleray import bundle, code, storage
from eagleray.engines.torch import Torch
from eagleray.learn import features, models, schema
from eagleray.state.models import Registry
from eagleray.state.rollouts import Evidence, Plan, Rollout, Rollouts

NAME, MOVES, CONNECTIONS, SETTLED_S = "bench", 20, 16, 3.0
PLAN = Plan(bake_s=60, deadline_s=240)
NET = """
import time
import torch

class Net(torch.nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        wide = 1024
        self.first = torch.nn.Linear(shape.numeric, wide)
        self.second = torch.nn.Linear(wide, wide)
        self.last = torch.nn.Linear(wide, outputs)

    def forward(self, inputs):
        x = inputs["numeric"]
        for _ in range({repeats}):
            y = self.last(torch.relu(self.second(torch.relu(self.first(x)))))
        {fault}
        return y
"""
FAULTS = {
    "raises on 5 % of the rows": {"fault": "assert not (x[:, 0] > 5).any()"},
    "is 3 times slower": {"repeats": 3},
    "always predicts one class": {"bias": 50.0},
    "gives NaN on 5 % of the rows": {"fault": "y[x[:, 0] > 5] = float('nan')"},
}


def version(*, fault: str = "pass", repeats: int = 1, bias: float = 0.0) -> dict[str, bytes]:
    """The files of a model of ten numbers; all have the same weights but for `bias`."""
    import numpy as np
    import torch

    columns = {f"x{number}": np.random.default_rng(number).normal(size=64) for number in range(10)}
    known = schema.Schema(
        columns=tuple(schema.Column(name=name, type="numeric") for name in columns),
        target=schema.Target(name="y", task="binary", classes=("no", "yes")),
    )
    transforms = features.Transforms.fit(known, {}, columns)
    own = code.Code("net:Net", NET.format(fault=fault, repeats=repeats))
    options = models.parse({"type": "net:Net"})
    torch.manual_seed(0)
    model: Any = models.build(options, transforms.shape, 2, custom=own)
    with torch.no_grad():
        model.last.bias[-1] += bias
    made = bundle.Bundle(
        schema=known, transforms=transforms, engine=Torch(options, model, own), scale={}
    )
    golden = {name: values[:8].tolist() for name, values in columns.items()}
    return bundle.pack(made, golden, {})


def bodies(count: int = 1000) -> list[bytes]:
    """Requests of one row; 5 % have a value that the bad versions stumble over."""
    chance, made = random.Random(0), []
    for _ in range(count):
        row = {f"x{number}": round(chance.gauss(0, 1), 4) for number in range(10)}
        row["x0"] = 9.0 if chance.random() < 0.05 else row["x0"]
        body = json.dumps({"instances": [row]}).encode()
        head = f"POST /predict HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n"
        made.append(f"{head}content-type: application/json\r\n\r\n".encode() + body)
    return made


@dataclass
class Client:
    """Asks at fixed times until the block ends; `answers` has time and version, or what failed."""

    port: int
    rate: float
    answers: list[tuple[float, str]] = field(default_factory=list)

    async def __aenter__(self) -> "Client":
        self._requests, self._began, self._over = bodies(), time.monotonic(), False
        self._tasks = [asyncio.create_task(self._ask(one)) for one in range(CONNECTIONS)]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    def since(self, began: float) -> Counter[str]:
        """Versions that answered, and failures, since a time."""
        return Counter(said for at, said in self.answers if at >= began)

    @property
    def failed(self) -> int:
        return sum(not said.isdecimal() for _, said in self.answers)

    async def _ask(self, place: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        number = place
        while not self._over:
            await asyncio.sleep(self._began + number / self.rate - time.monotonic())
            try:
                writer.write(self._requests[number % len(self._requests)])
                said = await asyncio.wait_for(_answer(reader), 30)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as cause:
                said = repr(cause)
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            self.answers.append((time.monotonic(), said))
            number += CONNECTIONS
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> str:
    """The version that answered; the status if it is another than 200."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    await reader.readexactly(int(fields["content-length"]))
    status = head.split(" ", 2)[1]
    return fields["x-eagleray-version"] if status == "200" else f"status {status}"


async def moves(client: Client, registry: Registry) -> float:
    """Move the alias forth and back; the seconds until the last answer of the version before."""
    longest = 0.0
    for _ in range(MOVES):
        for move in (lambda: registry.promote(NAME, 2), lambda: registry.rollback(NAME)):
            began = time.monotonic()
            moved = await asyncio.to_thread(move)
            await asyncio.sleep(SETTLED_S + 1)
            wanted = str(moved.values["champion"])
            others = [at for at, said in client.answers if at >= began and said != wanted]
            longest = max([longest, *(at - began for at in others)])
    return longest


async def rollout(client: Client, rollouts: Rollouts, number: int) -> tuple[Rollout, float, float]:
    """Roll a version out; how it ended, its seconds, the share of requests it answered."""
    began = time.monotonic()
    await asyncio.to_thread(rollouts.start, NAME, number, plan=PLAN)
    while (now := await asyncio.to_thread(rollouts.current, NAME)).open:
        await asyncio.sleep(0.5)
    await asyncio.sleep(SETTLED_S)
    said = client.since(began)
    return now, time.monotonic() - began - SETTLED_S, said[str(number)] / said.total()


async def measure(port: int, folder: Path, rate: float) -> None:
    store = storage.open(folder.as_uri())
    registry, rollouts = Registry(store), Rollouts(store)
    async with Client(port, rate) as client:
        longest = await moves(client, registry)
        while len(client.answers) < 100_000:
            await asyncio.sleep(1)
    asked = len(client.answers)
    text = f"failed of {asked} requests through {MOVES} promotions and {MOVES} rollbacks"
    claim(text, client.failed, 0, holds=client.failed == 0 and asked >= 100_000)
    claim("seconds until every answer is the new version's, the longest", longest, SETTLED_S)
    for number, fault in enumerate(FAULTS, 3):
        async with Client(port, rate) as client:
            await asyncio.sleep(2)
            ended, seconds, exposed = await rollout(client, rollouts, number)
        print(f"{fault}: {ended.status} at {ended.share:.0%}: {ended.decisions[-1].why}")
        stopped = ended.status == "stopped"
        claim(
            f"seconds until a version that {fault} is stopped",
            seconds,
            60,
            holds=stopped and seconds < 60,
        )
        claim(f"share of the requests it answered meanwhile: {fault}", exposed, 0.1)
        claim(f"failed requests meanwhile: {fault}", client.failed, 0)


def equal_versions(count: int = 50, rate: int = 200) -> int:
    """How many of so many rollouts of an equal version are stopped."""
    from serving import rollout as decisions
    from serving.routing import Tally

    stopped = 0
    for seed in range(count):
        chance, tallies = random.Random(seed), (Tally(), Tally())
        made = Rollout(
            id=str(seed), model=NAME, alias="champion", stable=1, candidate=2, by="", plan=PLAN
        ).decided("started", "")
        while made.open:
            for _ in range(2 * rate):
                tally = tallies[chance.random() < made.share]
                if chance.random() < 0.002:
                    tally.failed()
                else:
                    outcome = "yes" if chance.random() < 0.3 else "no"
                    tally.answered(chance.lognormvariate(-6, 0.6), outcome)
            seen = Evidence(stable=tallies[0].counts(), candidate=tallies[1].counts())
            made = decisions.step(made, seen, 2.0)
        stopped += made.status != "promoted"
    return stopped


def claim(text: str, ours: float, bound: float, holds: bool | None = None) -> None:
    found = {"claim": text, "ours": round(ours, 4), "peer": bound, "target": bound}
    found |= {"ratio": round(ours / bound, 4) if bound else ours}
    print(json.dumps({**found, "holds": ours <= bound if holds is None else holds}), flush=True)


@contextlib.contextmanager
def endpoint(folder: Path) -> Iterator[int]:
    """`eagleray serve` with one replica; yields its port."""
    from serving import environment

    (port,) = environment.free_ports(1)
    options = ["--storage", folder.as_uri(), "--port", str(port), "--max", "1", "--json"]
    command = [sys.executable, "-m", "eagleray", "serve", NAME, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    rate = parser.parse_args().rate
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry = Registry(storage.open(folder.as_uri()))
        for options in ({}, {}, *FAULTS.values()):
            registry.register(NAME, version(**options), {})  # type: ignore[arg-type]
        registry.promote(NAME, 1)
        with endpoint(folder) as port:
            asyncio.run(measure(port, folder, rate))
    stopped = equal_versions()
    claim("of 50 rollouts of an equal version, stopped ones", stopped, 2)


if __name__ == "__main__":
    main()
