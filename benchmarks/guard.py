"""What keys, rates, capture and a split cost a request: the application itself, without a socket.

Run: python benchmarks/guard.py
"""

import asyncio
import json
import statistics
import tempfile
import time
import timeit
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from eagleray import apikeys, bundle, storage
from eagleray.engines.torch import Torch
from eagleray.learn import features, models, schema
from eagleray.state import aliases
from serving import (
    batching,
    capture,
    correlation,
    deadlines,
    guard,
    keys,
    metrics,
    predictor,
    rates,
    routing,
    web,
)

ROUNDS, REQUESTS, KEYS = 21, 1000, 10
TOGETHER = 21  # requests that a batch of 64 busy connections has
TARGET = 1.1  # of the time of a request with all of it off
ROW = {"age": 41, "city": "Bern"}
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"benchmark"),
    (b"accept", b"*/*"),
    (b"content-type", b"application/json"),
]


def loaded() -> bundle.Bundle:
    columns = (
        schema.Column(name="age", type="numeric"),
        schema.Column(name="city", type="categorical", categories=("Bern", "Oslo")),
    )
    target = schema.Target(name="left", task="binary", classes=("no", "yes"))
    known = schema.Schema(columns=columns, target=target)
    raw: dict[str, list[Any]] = {
        "age": [float(age) for age in range(20, 60)],
        "city": ["Bern", "Oslo"] * 20,
    }
    transforms = features.Transforms.fit(known, {}, schema.parse(known, raw))
    options = models.parse({"type": "mlp", "hidden": [16]})
    model = models.build(options, transforms.shape, 2)
    scale = {"mean": 0.0, "deviation": 1.0}
    engine = Torch(options, model)
    made = bundle.Bundle(schema=known, transforms=transforms, engine=engine, scale=scale)
    made.name, made.number = "left", 1
    made.golden = bundle.Golden({name: values[:1] for name, values in raw.items()}, [[0.5, 0.5]])
    return made


def application(folder: Path, observer: metrics.Metrics, share: float) -> web.Application:
    made = web.Application("left", observer)
    (folder / "storage").mkdir(exist_ok=True)
    store = storage.open((folder / "storage").as_uri())
    samples = None
    if share:
        privacy = capture.Privacy()
        samples = capture.Capture(store, "left", share, privacy=privacy, observer=observer)
        samples.start()
        made.samples = samples
    made.predictor = version(observer, 1, samples=samples)
    return made


def version(observer: metrics.Metrics, number: int, **more: Any) -> predictor.Predictor:
    made = loaded()
    made.number = number
    return predictor.Predictor(made, batching.Limits(), ThreadPoolExecutor(1), observer, **more)


def with_keys(folder: Path) -> tuple[keys.Keys, bytes]:
    """A file of several keys, and the last one of them."""
    made = [apikeys.new(f"team-{number}", ["predict"]) for number in range(KEYS)]
    (folder / "keys").write_text("\n".join(key.line() for _, key in made))
    return keys.Keys(folder / "keys"), made[-1][0].encode()


async def seconds(
    app: web.Application, headers: list[tuple[bytes, bytes]], together: int = 1
) -> float:
    """CPU seconds per request, the mean of `REQUESTS`; `together` are in progress at a time."""
    body = json.dumps({"instances": [ROW]}).encode()
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200, message

    async def client() -> None:
        for _ in left:
            await app(scope, receive, send)

    left, began = iter(range(REQUESTS)), time.thread_time()
    await asyncio.gather(*(client() for _ in range(together)))
    return (time.thread_time() - began) / REQUESTS


async def measure(folder: Path) -> dict[str, list[float]]:
    observer = metrics.Metrics(folder / "metrics", "left")
    known, key = with_keys(folder)
    keyed = [*HEADERS, (b"authorization", b"Bearer " + key)]
    off, by_key, full = (application(folder, observer, share) for share in (0.0, 0.0, 0.1))
    by_key.guard = guard.Guard(known)
    full.guard = guard.Guard(known, rates.Rates(1e9, 1e9))
    cases = {"off": (off, HEADERS), "keys": (by_key, keyed), "all": (full, keyed)}
    found: dict[str, list[float]] = {name: [] for name in cases}
    for app, headers in cases.values():
        await seconds(app, headers)  # warm up
    for _ in range(ROUNDS):
        for name, (app, headers) in cases.items():
            found[name].append(await seconds(app, headers))
    return found


async def split(folder: Path) -> dict[str, float]:
    """Minimum microseconds of a request among `TOGETHER`, without and with a split of 5 %."""
    observer, schedule = metrics.Metrics(folder / "split", "left"), batching.Schedule(0.001)
    off, on = web.Application("left", observer), web.Application("left", observer)
    stable, control, candidate = (version(observer, one, schedule=schedule) for one in (1, 1, 2))
    off.predictor = on.predictor = stable
    on.split = routing.Split("r1", on.capacity, stable.outcome, schedule)
    route = aliases.Route(rollout="r1", candidate=2, share=0.05)
    on.split.follow(stable, control, candidate, route)
    found: dict[str, list[float]] = {"off": [], "on": []}
    for number in range(ROUNDS + 3):
        for name, app in (("off", off), ("on", on)):
            took = await seconds(app, HEADERS, TOGETHER)
            found[name] += [took] if number >= 3 else []  # the first ones warm up
    return {name: round(1e6 * min(values), 1) for name, values in found.items()}


async def parts(folder: Path) -> dict[str, float]:
    """The least microseconds that each part takes of a request."""
    known, key = with_keys(folder)
    limits, departures = rates.Rates(1e9, 1e9), deadlines.Departures()
    headers = dict([*HEADERS, (b"authorization", b"Bearer " + key)])

    def watch() -> None:
        departures.watch(receive)
        departures.end()

    async def receive() -> dict[str, object]:
        return {}

    def entry() -> None:
        correlation.request_id(headers)
        deadlines.seconds(headers)

    cases = {
        "keys": lambda: known.check("/predict", headers),
        "rate": lambda: limits.check("team-1"),
        "client watched": watch,
        "id and deadline": entry,
    }
    repeated = {name: timeit.repeat(one, number=2000, repeat=20) for name, one in cases.items()}
    return {name: round(min(found) / 2000 * 1e6, 2) for name, found in repeated.items()}


def main() -> None:
    torch.set_num_threads(1)  # as in a replica
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder)))
        least = asyncio.run(parts(Path(folder)))
        shared = asyncio.run(split(Path(folder)))
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = {
        name: statistics.median(
            one / off for one, off in zip(found[name], found["off"], strict=True)
        )
        for name in ("keys", "all")
    }
    print(json.dumps({"parts_us": least}))
    print(json.dumps({"split_us": shared}))
    claim = (
        f"microseconds of a processor for a request with {KEYS} keys, a rate and capture at 10 %;"
        " the peer has all of them off, `keys` has keys alone (medians of interleaved rounds)"
    )
    figures = {
        "ours": round(1e6 * medians["all"], 1),
        "peer": round(1e6 * medians["off"], 1),
        "ratio": round(ratios["all"], 3),
        "keys": round(ratios["keys"], 3),
    }
    holds = ratios["all"] <= TARGET
    print(json.dumps({"claim": claim, **figures, "target": TARGET, "holds": holds}))


if __name__ == "__main__":
    main()
