"""Promotions, rollbacks and rollouts under load: what clients notice of them.

`eagleray serve` with one replica answers a client with an open loop (`benchmarks/traffic.py`).

- `switch`: the alias is moved 20 times forth and 20 times back: none of at least 100,000 requests
  may fail, and within 3 s of each move all answers come from its version.
- `bad`: rollouts of bad versions must be stopped within 60 s, with less than 10 % of the requests
  of that time exposed to the candidate, and none failed: one that raises on 5 % of the rows, one
  that is 3 times slower, one that always predicts one class, one that gives NaN on 5 % of the rows,
  one that eats memory.
- `equal`: of 50 rollouts of an equal version at most 2 may be stopped: under load with one short
  step, as many as end in 200 s, and 50 with all steps, decided on simulated requests.

What it is compared with are the bounds.

With `--model-ms` below 2 batches are quick: they run on the event loop, in turns.

    python -m benchmarks.rollout [--parts switch bad equal] [--rate 600] [--model-ms 20]
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import traffic
from benchmarks.traffic import NAME, Client, claim
from eagleray import storage
from eagleray.state.evidence import Evidence
from eagleray.state.models import Registry
from eagleray.state.rollouts import Plan, Rollout, Rollouts

MOVES, SETTLED_S, LEAST, EQUAL_S = 20, 3.0, 100_000, 200.0
PLAN = Plan(bake_s=60, deadline_s=240)
BAD = PLAN.model_copy(update={"deadline_s": 70})
SHORT = Plan(steps=(0.3,), bake_s=1, least=100, deadline_s=60)
FAULTS: dict[str, dict[str, Any]] = {
    "raises on 5 % of the rows": {"fault": "assert not (x[:, 0] > 5).any()"},
    "is 3 times slower": {"slower": 3.0},
    "always predicts one class": {"bias": 50.0},
    "gives NaN on 5 % of the rows": {"fault": "y[x[:, 0] > 5] = float('nan')"},
    "eats memory": {"fault": "self.held = [*getattr(self, 'held', []), torch.ones(2**19)]"},
}


async def switch(client: Client, registry: Registry) -> None:
    """Move the alias forth and back, and ask on until there are enough requests."""
    longest = 0.0
    for _ in range(MOVES):
        for move in (lambda: registry.promote(NAME, 2), lambda: registry.rollback(NAME)):
            began = time.monotonic()
            moved = await asyncio.to_thread(move)
            await asyncio.sleep(SETTLED_S + 1)
            wanted = str(moved.values["champion"])
            others = [at for at, said in client.answers if at >= began and said != wanted]
            longest = max([longest, *(at - began for at in others)])
    while len(client.answers) < LEAST:
        await asyncio.sleep(1)
    asked, failed = len(client.answers), client.failures
    text = f"failed of {asked} requests through {MOVES} promotions and {MOVES} rollbacks {failed}"
    claim(text, failed.total(), 0)
    claim("seconds until every answer is the new version's, the longest", longest, SETTLED_S)


async def bad(client: Client, rollouts: Rollouts) -> None:
    """Roll each bad version out."""
    for number, fault in enumerate(FAULTS, 3):
        client.answers.clear()
        began = time.monotonic()
        ended = await roll_out(rollouts, number, BAD)
        seconds = time.monotonic() - began
        exposed = ended.seen.candidate.requests / client.since(began).total()
        print(f"{fault}: {ended.status} at {ended.share:.0%}: {ended.decisions[-1].why}")
        soon = ended.status == "stopped" and seconds < 60
        claim(f"seconds until a version that {fault} is stopped", seconds, 60, holds=soon)
        claim(f"share of the requests of that time exposed to one that {fault}", exposed, 0.1)
        claim(f"failed requests meanwhile: {fault}", client.failures.total(), 0)
        await asyncio.sleep(SETTLED_S)


async def equal(client: Client, rollouts: Rollouts) -> None:
    """Roll equal versions out, one after another, forth and back."""
    began, stopped, count, why = time.monotonic(), 0, 0, ""
    while count < 50 and time.monotonic() - began < EQUAL_S:
        ended = await roll_out(rollouts, 2 - count % 2, SHORT)
        if ended.status != "promoted":
            stopped, why = stopped + 1, f"; the last: {ended.decisions[-1].why}"
            await asyncio.to_thread(Registry(rollouts.store).promote, NAME, 2 - count % 2)
        count += 1
    text = f"of {count} rollouts of an equal version under load, stopped ones{why}"
    claim(text, stopped, 2, holds=stopped <= 2 * count / 50)
    claim("failed requests meanwhile: equal versions", client.failures.total(), 0)


async def roll_out(rollouts: Rollouts, number: int, plan: Plan) -> Rollout:
    """Roll a version out; how it ended."""
    await asyncio.to_thread(rollouts.start, NAME, number, plan=plan)
    while (now := await asyncio.to_thread(rollouts.current, NAME)).open:
        await asyncio.sleep(0.2)
    return now


def simulated(count: int = 50, rate: int = 200) -> int:
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


async def measure(part: str, port: int, store: storage.Storage, rate: float) -> None:
    async with Client(port, rate) as client:
        await asyncio.sleep(2)
        if part == "switch":
            await switch(client, Registry(store))
        elif part == "bad":
            await bad(client, Rollouts(store))
        else:
            await equal(client, Rollouts(store))


def main() -> None:
    parts = ("switch", "bad", "equal")
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--rate", type=float, default=600.0, help="requests a second")
    parser.add_argument("--model-ms", type=float, default=1000 * traffic.MODEL_S, help="of a batch")
    asked = parser.parse_args()
    for part in asked.parts:
        with tempfile.TemporaryDirectory() as name:
            store = storage.open(Path(name).as_uri())
            registry = Registry(store)
            faults = FAULTS.values() if part == "bad" else ()
            for options in ({}, {}, *faults):
                made = traffic.version(seconds=asked.model_ms / 1000, **options)
                registry.register(NAME, made, {})
            registry.promote(NAME, 1)
            with traffic.endpoint(Path(name)) as (port, _):
                print(f"{part}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
                asyncio.run(measure(part, port, store, asked.rate))
        if part == "equal":
            claim("of 50 rollouts of an equal version, simulated, stopped ones", simulated(), 2)


if __name__ == "__main__":
    main()
