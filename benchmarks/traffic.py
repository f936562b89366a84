"""What the programs about traffic share: a model, an endpoint, and a client with an open loop.

The client sends at fixed times, however late answers are, over connections that stay open.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eagleray import bundle, code
from eagleray.engines.torch import Torch
from eagleray.learn import features, models, schema

NAME, CONNECTIONS = "bench", 64
MODEL_S = 0.02  # that a batch takes, asleep: many replicas fit on few cores
NET = """
import time
import torch

class Net(torch.nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(shape.numeric, outputs)

    def forward(self, inputs):
        x = inputs["numeric"]
        time.sleep({seconds})
        y = self.layer(x)
        {fault}
        return y
"""


def version(
    *, fault: str = "pass", seconds: float = MODEL_S, slower: float = 1.0, bias: float = 0.0
) -> dict[str, bytes]:
    """The files of a model of ten numbers; all have the same weights but for `bias`."""
    import numpy as np
    import torch

    columns = {f"x{number}": np.random.default_rng(number).normal(size=64) for number in range(10)}
    known = schema.Schema(
        columns=tuple(schema.Column(name=name, type="numeric") for name in columns),
        target=schema.Target(name="y", task="binary", classes=("no", "yes")),
    )
    transforms = features.Transforms.fit(known, {}, columns)
    own = code.Code("net:Net", NET.format(fault=fault, seconds=seconds * slower))
    options = models.parse({"type": "net:Net"})
    torch.manual_seed(0)
    model: Any = models.build(options, transforms.shape, 2, custom=own)
    with torch.no_grad():
        model.layer.bias[-1] += bias
    made = bundle.Bundle(
        schema=known, transforms=transforms, engine=Torch(options, model, own), scale={}
    )
    golden = {name: values[:8].tolist() for name, values in columns.items()}
    return bundle.pack(made, golden, {})


def bodies(count: int = 1000) -> list[bytes]:
    """Requests of one row; 5 % have a value that bad versions stumble over."""
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
    def failures(self) -> Counter[str]:
        return Counter(said for _, said in self.answers if not said.isdecimal())

    async def _ask(self, place: int) -> None:
        number, streams, asked = place, await asyncio.open_connection("127.0.0.1", self.port), 0
        while not self._over:
            await asyncio.sleep(self._began + number / self.rate - time.monotonic())
            last = True  # whether it is the last answer of this connection
            try:
                streams[1].write(self._requests[number % len(self._requests)])
                said, last = await asyncio.wait_for(_answer(streams[0]), 30)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as cause:
                said = f"{type(cause).__name__} after {asked} answers of the connection"
            self.answers.append((time.monotonic(), said))
            if last:  # as HAProxy says to each client when it has a new configuration
                streams[1].close()
                streams, asked = await asyncio.open_connection("127.0.0.1", self.port), -1
            asked += 1
            number += CONNECTIONS
        streams[1].close()


async def _answer(reader: asyncio.StreamReader) -> tuple[str, bool]:
    """The version that answered, or a status other than 200; whether the connection ends."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    await reader.readexactly(int(fields["content-length"]))
    status = head.split(" ", 2)[1]
    said = fields["x-eagleray-version"] if status == "200" else f"status {status}"
    return said, fields.get("connection") == "close"


@contextlib.contextmanager
def endpoint(
    store: Path, *, replicas: int = 1, scratch: Path | None = None
) -> Iterator[tuple[int, int]]:
    """`eagleray serve` with so many replicas; yields its port and the id of its process.

    Files of its run go below `scratch`, a path of few letters, since sockets are among them.
    """
    from serving import environment

    (port,) = environment.free_ports(1)
    bounds = ["--min", str(replicas), "--max", str(replicas)]
    options = ["--storage", store.as_uri(), "--port", str(port), *bounds, "--json"]
    command = [sys.executable, "-m", "eagleray", "serve", NAME, *options]
    variables = os.environ | ({"TMPDIR": str(scratch)} if scratch else {})
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def claim(text: str, ours: float, bound: float, holds: bool | None = None) -> None:
    """Print a claim whose peer is a bound; it holds at most at the bound."""
    found = {"claim": text, "ours": round(ours, 4), "peer": bound, "target": bound}
    found |= {"ratio": round(ours / bound, 4) if bound else ours}
    print(json.dumps({**found, "holds": ours <= bound if holds is None else holds}), flush=True)
