"""A step from 1 to 8 times the load, and the first answer from zero replicas.

`simulated`: the policy for an objective beside Ray Serve's default one, in the simulation of
`eagleray simulate`. `real`: the same two on a Ray Serve application behind HAProxy, whose replicas
answer one request after another and sleep for it, so that many fit on few cores; beside it what the
simulation says of the same requests. `zero`: a real endpoint without replicas is asked.

    python -m benchmarks.autoscale [--parts simulated real zero] [--after 60] [--rounds 3]

p95 is back in the objective at the first second from which on the requests of 5 s keep it, by the
time at which they were sent. Figures of a busy machine are worth little: its load is printed too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import statistics
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from eagleray import ray_compat
from eagleray.api import endpoints
from serving import environment
from serving.autoscaling import policy, usage
from serving.settings import Settings
from serving.simulation import loads, replicas

TARGET_S, ZERO_TARGET_S, MOST_TURNS = 20.0, 10.0, 1
WINDOW_S = 5
PHASES = (0.0, 0.25, 0.5, 0.75)
"""When simulated replicas report within a second, one simulation each.

For real replicas it is not known, and what the policy wants after the step depends on it.
"""
NAME = "sleepy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """Requests by chance at a rate, and then at eight times that."""

    service_s: float
    busy: float  # utilization of the one replica that there is before
    objective: float  # divided by the time of service
    variation: float = 1.0
    before: int = 30
    after: int = 60
    seed: int = 0

    @property
    def objective_s(self) -> float:
        return self.objective * self.service_s

    def sent(self) -> loads.Times:
        rate = self.busy / self.service_s
        return loads.arrivals(rate * np.repeat([1.0, 8.0], [self.before, self.after]), self.seed)

    def settings(self, **more: Any) -> Settings:
        values = {"name": NAME, "max_replicas": 20, "p95_ms": 1000 * self.objective_s}
        return Settings.model_validate(values | more)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", nargs="+", default=["simulated", "real", "zero"])
    parser.add_argument("--after", type=int, default=60, help="seconds of the real run's step")
    parser.add_argument("--ours", action="store_true", help="run no peer of the real part")
    parser.add_argument("--rounds", type=int, default=3, help="first answers from zero")
    arguments = parser.parse_args()
    if "simulated" in arguments.parts:
        simulated()
    if "real" in arguments.parts:
        real(arguments.after, peer=not arguments.ours)
    if "zero" in arguments.parts:
        zero(arguments.rounds)


def simulated() -> None:
    """Medians and extremes over times of service, utilizations and seeds."""
    steps = [
        Step(service_s=service, busy=busy, objective=5, after=120, seed=seed)
        for service in (0.005, 0.02)
        for busy in (0.3, 0.5)
        for seed in range(3)
    ]
    found: dict[str, list[tuple[float, int, float]]] = {"eagleray": [], "ray serve": []}
    for step in steps:
        kind = replicas.Kind(service_s=step.service_s, variation=step.variation)
        scaler = policy.Scaler(step.settings().plan())
        ours = replicas.simulate(step.sent(), kind, scaler, replicas=1)
        with RayDefault(most=20) as default:
            slow = dataclasses.replace(kind, look_back_s=30.0)
            peer = replicas.simulate(step.sent(), slow, default, replicas=1)
        for name, outcome in (("eagleray", ours), ("ray serve", peer)):
            found[name].append((back_s(outcome, step), outcome.turns, late(outcome, step)))
    report("simulated", found)


def real(after: int, *, peer: bool = True) -> None:
    """One run of each policy; what simulations say of ours stands in a line of its own."""
    step = Step(service_s=0.1, busy=0.3, objective=5, variation=0.0, after=after)
    ours = run(step, default=False)
    starts = started_s(ours)
    compare(ours, [replayed(step, starts, phase) for phase in PHASES], step, starts)
    if not peer:
        return
    theirs = run(step, default=True)
    found = {
        name: [(back_s(outcome, step), outcome.turns, late(outcome, step))]
        for name, outcome in (("eagleray", ours), ("ray serve", theirs))
    }
    report("real", found)


def zero(rounds: int) -> None:
    """Ask an endpoint without replicas, wait until it has none again, and so on."""
    import httpx
    from ray import serve

    from eagleray import storage
    from eagleray.state.models import Registry
    from tests import bundles

    times = []
    with tempfile.TemporaryDirectory(prefix="eagleray-autoscale-") as name:
        models = Registry(storage.open(Path(name).as_uri()))
        models.register(NAME, bundles.files(), {})
        models.promote(NAME, 1)
        (port,) = environment.free_ports(1)
        options: dict[str, Any] = {
            "min_replicas": 0,
            "max_replicas": 1,
            "p95_ms": 100.0,
            "zero_delay_s": 1.0,
        }
        body = {"instances": bundles.instances(bundles.rows(1))}
        with endpoints.serve(NAME, Path(name).as_uri(), port=port, **options) as endpoint:
            for _ in range(rounds):
                while serve.status().applications[NAME].deployments[NAME].replica_states:
                    time.sleep(0.2)
                began = time.perf_counter()
                answer = httpx.post(f"{endpoint.url}/predict", json=body, timeout=120)
                times.append(time.perf_counter() - began)
                assert answer.status_code == 200, answer.text
                print(f"from zero: {times[-1]:.2f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    worst = max(times)
    claim("seconds to the first answer from zero, the slowest", worst, ZERO_TARGET_S)


def back_s(outcome: replicas.Outcome, step: Step) -> float:
    """Return the seconds from the step until p95 is back in the objective; infinite if never."""
    for second in range(step.before, step.before + step.after - WINDOW_S):
        sent = (outcome.sent >= second) & (outcome.sent < second + WINDOW_S)
        part = outcome.latencies[sent]
        if np.quantile(part, 0.95, method="inverted_cdf") <= step.objective_s:
            return float(second - step.before)
    return float("inf")


def late(outcome: replicas.Outcome, step: Step) -> float:
    """Return the share of requests that miss the objective from `TARGET_S` after the step on."""
    sent = outcome.sent >= step.before + TARGET_S
    return float(np.mean(outcome.latencies[sent] > step.objective_s))


def report(part: str, found: dict[str, list[tuple[float, int, float]]]) -> None:
    """A table, then the claims."""
    print(f"\n{part:12}{'back after (s)':>18}{'worst':>8}{'turns':>8}{'late then':>12}")
    for name, rows in found.items():
        back, turns, share = zip(*rows, strict=True)
        shown = f"{statistics.median(back):18.0f}{max(back):8.0f}{max(turns):8}"
        print(f"{name:12}{shown}{statistics.median(share):12.2%}")
    ours, peer = (
        [max(column) for column in list(zip(*rows, strict=True))[:2]] for rows in found.values()
    )
    said = f"{part}: seconds until p95 is back after a step to 8 times the load, the slowest"
    claim(said, ours[0], TARGET_S, peer[0])
    claim(f"{part}: most changes of direction", ours[1], MOST_TURNS, peer[1])


def replayed(step: Step, starts: list[float], phase: float) -> replicas.Outcome:
    """Simulate the requests of a real run, with the start times of its replicas."""
    sent, longest = step.sent(), max(starts, default=0.0)
    kind = replicas.Kind(service_s=step.service_s, variation=step.variation, start_s=longest)
    scaler = policy.Scaler(step.settings(max_replicas=8).plan())
    said = replicas.simulate(sent + phase, kind, scaler, replicas=1, starts=starts)
    return dataclasses.replace(said, sent=sent)


def compare(
    measured: replicas.Outcome, said: list[replicas.Outcome], step: Step, starts: list[float]
) -> None:
    """One line of JSON: what was measured, and what simulations say of the same requests."""
    facts = {
        "start_s": [round(start, 1) for start in starts],
        "load": round(os.getloadavg()[0], 1),
        "measured": figures(measured, step),
        "simulated": [figures(one, step) for one in said],
    }
    print(json.dumps({"comparison": facts}), flush=True)


def figures(outcome: replicas.Outcome, step: Step) -> dict[str, float]:
    steady = outcome.latencies[outcome.sent >= step.before + TARGET_S]
    return {
        "back_s": back_s(outcome, step),
        "most": max(moment.wanted for moment in outcome.moments),
        "turns": outcome.turns,
        "p50_ms": round(1000 * float(np.median(steady)), 1),
        "p95_ms": round(1000 * float(np.quantile(steady, 0.95)), 1),
        "replica_s": round(outcome.replica_s),
    }


def claim(text: str, ours: float, target: float, peer: float | None = None) -> None:
    """One line of JSON; less is better."""
    numbers = {
        "ours": round(ours, 2),
        "peer": None if peer is None else _finite(peer),
        "ratio": round(ours / peer, 3) if peer else None,
        "target": target,
    }
    print(json.dumps({"claim": text, **numbers, "holds": ours <= target}), flush=True)


def _finite(value: float) -> float | str:
    return "never" if value == float("inf") else round(value, 2)


class RayDefault(contextlib.AbstractContextManager["RayDefault"]):
    """Ray Serve's default policy with its default delays, on the clock of the simulation."""

    def __init__(self, most: int) -> None:
        from ray.serve import autoscaling_policy
        from ray.serve.config import AutoscalingConfig

        self._config = AutoscalingConfig(min_replicas=1, max_replicas=most)
        wrap = autoscaling_policy._apply_autoscaling_config  # as the controller does
        self._policy: Any = wrap(self._config.policy.get_policy())
        self._state: dict[str, Any] = {}
        self._most, self._now = most, 0.0
        self._clock = types.SimpleNamespace(time=lambda: self._now)
        self._patched = mock.patch.object(autoscaling_policy, "time", self._clock)

    def __enter__(self) -> RayDefault:
        self._patched.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._patched.stop()

    def __call__(self, load: policy.Load, count: int, now: float) -> tuple[int, str]:
        self._now = now
        context = types.SimpleNamespace(
            current_num_replicas=len(load.mean),
            target_num_replicas=count,
            total_num_requests=sum(one.ongoing for one in load.mean) + load.waiting,
            policy_state=self._state,
            config=self._config,
        )
        wanted, self._state = self._policy(context)
        return max(1, min(self._most, int(np.ceil(wanted)))), "Ray Serve's default"


class Sleepy:
    """A replica that answers one request after another, and sleeps for each."""

    def __init__(self, service_s: float) -> None:
        self._service_s = service_s
        self._assigned = self._free_at = 0.0
        self._ongoing = usage.Ongoing()
        self._busy = usage.Busy(worked=self._worked)

    def __serve_build_asgi_app__(self) -> object:
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(routes=[Route("/", self._answer)])

    async def _answer(self, _: Any) -> Any:
        from starlette.responses import Response

        self._ongoing.add(1)
        now = time.perf_counter()
        self._free_at = max(self._free_at, now) + self._service_s
        self._assigned += self._service_s
        try:
            await asyncio.sleep(self._free_at - now)
            return Response("{}")
        finally:
            self._ongoing.add(-1)

    def record_autoscaling_stats(self) -> dict[str, float]:
        values = self._ongoing.average(), *self._ongoing.rates(), self._busy.share()
        return dict(zip(usage.METRICS, values, strict=True))

    def _worked(self) -> float:
        return self._assigned - max(0.0, self._free_at - time.perf_counter())


def run(step: Step, *, default: bool) -> replicas.Outcome:
    """Serve the step by real replicas."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig

    from serving import app

    settings = step.settings(max_replicas=8)
    config = app._autoscaling(settings, settings.plan())
    if default:
        config = AutoscalingConfig(min_replicas=1, max_replicas=8)
    deploy = serve.deployment(
        name=NAME,
        autoscaling_config=config,
        max_ongoing_requests=app.MAX_ONGOING,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_wait_loop_s=0.1,
    )
    (port,) = environment.free_ports(1)
    with cluster():
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(deploy(serve.ingress()(Sleepy)).bind(step.service_s), name=NAME)
        try:
            return drive(step, port)
        finally:
            serve.shutdown()


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="er-", ignore_cleanup_errors=True) as name:
        own = environment.private_paths(Path(name))
        own |= environment.haproxy_program(Path(name))
        with ray_compat.connected(None, environment.FAST | own, num_cpus=4):
            yield


def drive(step: Step, port: int) -> replicas.Outcome:
    """Send each request at its time, whether those before were answered or not."""
    moments: list[replicas.Moment] = []
    ended = threading.Event()
    began = time.perf_counter() + 1.0
    watcher = threading.Thread(target=watch, args=(moments, began, ended))
    watcher.start()
    sent = step.sent()
    try:
        latencies = asyncio.run(_ask_all(port, sent, began))
    finally:
        ended.set()
        watcher.join()
    there = [moment.wanted for moment in moments]
    return replicas.Outcome(sent, latencies, moments, statistics.mean(there) * moments[-1].at)


def started_s(outcome: replicas.Outcome) -> list[float]:
    """Seconds that each new replica took, from being wanted until as many ran."""
    times, wanted = [], outcome.moments[0].wanted
    for asked in outcome.moments:
        for number in range(wanted, asked.wanted):
            running = (later.at for later in outcome.moments if later.running > number)
            times.append(next((at for at in running if at > asked.at), np.inf) - asked.at)
        wanted = asked.wanted
    return times


def watch(moments: list[replicas.Moment], began: float, ended: threading.Event) -> None:
    """Note how many replicas there are, until the end."""
    from ray import serve

    while not ended.wait(0.5):
        states: Any = serve.status().applications[NAME].deployments[NAME].replica_states
        running = states.get("RUNNING", 0)
        wanted = running + states.get("STARTING", 0)
        at = time.perf_counter() - began
        if at > 0:
            moments.append(replicas.Moment(at, wanted, running, 0, ""))


async def _ask_all(port: int, sent: loads.Times, began: float) -> Any:
    """Ask with a connection each, by hand: a client library would take the replicas' processor."""
    latencies = np.full(len(sent), np.inf)

    async def ask(number: int) -> None:
        due = began + sent[number]
        await asyncio.sleep(due - time.perf_counter())
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 200 "):
                latencies[number] = time.perf_counter() - due

    async with asyncio.timeout(sent[-1] + 60):
        await asyncio.gather(*(ask(number) for number in range(len(sent))))
    return latencies


if __name__ == "__main__":
    main()
