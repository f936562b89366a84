"""Requests a second and latency of `eagleray serve`, beside other servers: see `peers`.

All serve the same weights, a small MLP on 30 numbers, and are driven by wrk in turns: with 64
connections, with one, and with 64 that pause between requests, so that together they ask for about
half of what the first ones got: p99 is claimed to be at most 3 times p50 there. A machine's speed
drifts: only numbers of one run compare, and medians of several rounds count.

    python -m benchmarks.serve [--rounds 5] [--seconds 4] [--peers starlette mosec …]

Legend: B rows, F columns.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.peers.plain import KEY, NAME
from eagleray import bundle, storage
from eagleray.state.models import Registry

OURS, ALL_ON = "eagleray", "eagleray with all on"
TARGETS = {
    "starlette": 2.0,
    "litserve": 12.0,
    "bentoml": 12.0,
    "mlserver": 12.0,
    "ray serve": 12.0,
    "uvicorn alone": 0.9,
    "mosec": 0.8,
}
"""Least ratio of our requests a second to a peer's; granian is measured without one."""
LATER_MS = 0.5
TAIL = 3.0
"""Largest ratio of our p99 to our p50 at half load."""
CONNECTIONS = 64
WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.body = io.open("{body}"):read("*a")
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  print(string.format('{{"rate": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}}',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, failed))
end
"""
PAUSE = """
function delay()
  return math.floor(-math.log(1 - math.random()) * {mean_ms} + 0.5)
end
"""
"""Whole milliseconds before each request of a connection, exponentially distributed."""


@dataclass(frozen=True)
class Server:
    """One of them, and its measurements: a round each; failed requests are counted in all."""

    name: str
    url: str
    request: Path  # of its files: the body (.json), and the script by which wrk sends it (.lua)
    process: int  # leads a group of its own
    rates: list[float] = field(default_factory=list)
    p50s_ms: list[float] = field(default_factory=list)
    halves: list[dict[str, float]] = field(default_factory=list)  # what `drive` gives at half load
    failed: list[int] = field(default_factory=list)

    def signal(self, number: signal.Signals) -> None:
        """Signal all of its processes; those of a Ray cluster lead groups of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process, number)

    def measure(self, seconds: int, *, warming_up: bool) -> None:
        """One round; what fails while it warms up counts too."""
        self.signal(signal.SIGCONT)
        many = drive(self, CONNECTIONS, seconds)
        one = drive(self, 1, max(1, seconds // 2))
        pause_ms = max(0.0, 2000 * CONNECTIONS / many["rate"] - one["p50_ms"])
        half = drive(self, CONNECTIONS, seconds, pause_ms=pause_ms)
        self.signal(signal.SIGSTOP)  # some poll without a pause
        self.failed.append(int(many["failed"] + one["failed"] + half["failed"]))
        if not warming_up:
            self.rates.append(many["rate"])
            self.p50s_ms.append(one["p50_ms"])
            self.halves.append(half | {"load": half["rate"] / many["rate"]})

    def at_half(self, name: str) -> float:
        """The median of what was measured at half load."""
        return statistics.median(one[name] for one in self.halves)


def main() -> None:
    """Measure, print a table, and end with one line of JSON for each claim."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--peers", nargs="+", choices=peers.PEERS, default=[*peers.PEERS])
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed to measure, but is not installed; try: apt-get install wrk")
    compare([OURS, ALL_ON, *asked.peers], asked.rounds, asked.seconds)


def compare(kinds: list[str], rounds: int, seconds: int) -> None:
    """Start all, check that they agree, measure them in turns, and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        register(folder)
        with contextlib.ExitStack() as running:
            servers = [running.enter_context(started(kind, folder)) for kind in kinds]
            agree(servers)
            for number in range(rounds + 1):
                turn = number % len(servers)
                for server in servers[turn:] + servers[:turn]:
                    server.measure(seconds, warming_up=number == 0)
                    if number:
                        print(f"round {number}: {server.name} {server.rates[-1]:.0f}/s", flush=True)
            report(servers)


def register(folder: Path) -> None:
    """A model of version 1 under alias champion, and the body of a request for one row."""
    import torch
    from sklearn.datasets import load_breast_cancer
    from sklearn.preprocessing import StandardScaler

    from eagleray import spec
    from eagleray.engines.torch import Torch
    from eagleray.learn import features, models, schema

    data = load_breast_cancer()
    x_BF = StandardScaler().fit_transform(data.data).round(6)
    columns = {str(name): x_BF[:, index] for index, name in enumerate(data.feature_names)}
    known = schema.Schema(
        columns=tuple(schema.Column(name=name, type="numeric") for name in columns),
        target=schema.Target(name="target", task="binary", classes=("malignant", "benign")),
    )
    plain = {name: spec.FeatureOptions(type="numeric", scale="none") for name in columns}
    transforms = features.Transforms.fit(known, plain, columns)
    options = models.parse({"type": "mlp", "hidden": [128, 64]})
    torch.manual_seed(0)
    made = bundle.Bundle(
        schema=known,
        transforms=transforms,
        engine=Torch(options, models.build(options, transforms.shape, 2)),
        scale={},
    )
    golden = {name: values[:8].tolist() for name, values in columns.items()}
    versions = Registry(storage.open(folder.as_uri()))
    for _ in range(2):
        versions.register(NAME, bundle.pack(made, golden, {}), {})
    versions.promote(NAME, 1)
    versions.promote(NAME, 1, alias="split")
    row = {name: values[0] for name, values in golden.items()}
    tensors = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in row.items()
    ]
    write_request(folder / "instances", {"instances": [row]})
    write_request(folder / "tensors", {"inputs": tensors})


def write_request(place: Path, body: dict[str, Any]) -> None:
    """The body of a request, and the script by which wrk sends it."""
    place.with_suffix(".json").write_text(json.dumps(body))
    place.with_suffix(".lua").write_text(WRK.format(body=place.with_suffix(".json"), key=KEY))


def command(kind: str, folder: Path, port: int) -> list[str]:
    """The command that starts a server."""
    if kind == ALL_ON:
        return [sys.executable, "-m", "benchmarks.peers.everything", str(folder), str(port)]
    if kind != OURS:
        return peers.command(kind, folder, port)
    options = ["--max", "1", "--storage", folder.as_uri(), "--port", str(port)]
    return [sys.executable, "-m", "eagleray", "serve", NAME, *options]


@contextlib.contextmanager
def started(kind: str, folder: Path) -> Iterator[Server]:
    """A server in a process of its own, once it answers."""
    from serving import environment

    (port,) = environment.free_ports(1)
    words = command(kind, folder, port)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_SERVE")}
    print(f"starting {kind} …", flush=True)
    with (
        (folder / f"{kind}.log").open("wb") as said,
        subprocess.Popen(
            words, env=plain, stdout=said, stderr=said, cwd=peers.ROOT, start_new_session=True
        ) as process,
    ):
        path, request = "predict", folder / "instances"
        if kind == "mlserver":
            path, request = f"v2/models/{NAME}/infer", folder / "tensors"
        server = Server(kind, f"http://127.0.0.1:{port}/{path}", request, process.pid)
        try:
            wait(server, process)
            yield server
        finally:
            server.signal(signal.SIGCONT)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            server.signal(signal.SIGKILL)  # those that do not end, and what some leave behind


def wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Until the server answers; ends the benchmark when it does not within two minutes."""
    cause: Exception | None = None
    for _ in range(240):
        try:
            ask(server)
        except OSError as error:
            cause = error
        else:
            return
        if process.poll() is not None:
            break
        time.sleep(0.5)
    log = server.request.with_name(f"{server.name}.log").read_text()
    sys.exit(f"{server.name} must answer, but does not: {cause}\n{log[-2000:]}")


def ask(server: Server) -> list[float]:
    """The probabilities of a row."""
    body = server.request.with_suffix(".json").read_bytes()
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(server.url, body, headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    if "outputs" in answer:
        return list(answer["outputs"][0]["data"])
    first = answer[0] if isinstance(answer, list) else answer["predictions"][0]
    return list(first["probabilities"].values())


def agree(servers: list[Server]) -> None:
    """All serve the same model."""
    answers = [ask(server) for server in servers]
    furthest = max(abs(a - b) for other in answers for a, b in zip(answers[0], other, strict=True))
    assert furthest < 1e-5, f"answers differ by {furthest}"


def drive(
    server: Server, connections: int, seconds: int, *, pause_ms: float | None = None
) -> dict[str, float]:
    """Load from so many connections, each of which asks again once it is answered.

    With `pause_ms`, each waits before it asks, so long on average.
    """
    options = ["-t1", f"-c{connections}", f"-d{seconds}s"]
    script = server.request.with_suffix(".lua")
    if pause_ms is not None:
        plain, script = script.read_text(), server.request.with_suffix(".paused.lua")
        script.write_text(plain + PAUSE.format(mean_ms=pause_ms))
    command = ["wrk", *options, "-s", str(script), server.url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured: dict[str, float] = json.loads(said.strip().splitlines()[-1])
    return measured


def report(servers: list[Server]) -> None:
    """A table, then the claims."""
    heads = f"{'requests/s at 64':>18}{'p50 at 1 (ms)':>15}"
    heads += f"{'half load':>11}{'p50 (ms)':>10}{'p99 (ms)':>10}{'requests failed':>17}"
    print(f"\n{f'medians of {len(servers[0].rates)}':22}{heads}")
    rate = {server.name: statistics.median(server.rates) for server in servers}
    p50 = {server.name: statistics.median(server.p50s_ms) for server in servers}
    for server in servers:
        name, failed = server.name, sum(server.failed)
        half = f"{server.at_half('load'):11.2f}{server.at_half('p50_ms'):10.2f}"
        half += f"{server.at_half('p99_ms'):10.2f}"
        print(f"{name:22}{rate[name]:18.0f}{p50[name]:15.2f}{half}{failed:17}")
    ours = rate[OURS]
    for peer, target in TARGETS.items():
        if peer in rate:
            claim(f"requests/s at 64 connections against {peer}", ours, rate[peer], target)
    if ALL_ON in rate:
        said = "requests/s at 64 connections with keys, a capture of 10 % and a split of 5 %"
        claim(f"{said}, against all off", rate[ALL_ON], ours, 0.9)
    if "starlette" in rate:
        later_ms = p50[OURS] - p50["starlette"]
        said = "p50 in ms at one connection, at most so much above Starlette's"
        claim(said, p50[OURS], p50["starlette"], LATER_MS, holds=later_ms <= LATER_MS)
    for server in servers:
        if server.name == OURS:
            p50_ms, p99_ms = server.at_half("p50_ms"), server.at_half("p99_ms")
            said = "p99 in ms at half load, at most 3 times the p50 there"
            claim(said, p99_ms, p50_ms, TAIL, holds=p99_ms <= TAIL * p50_ms)


def claim(text: str, ours: float, peer: float, target: float, holds: bool | None = None) -> None:
    """One line of JSON."""
    kept = ours / peer >= target if holds is None else holds
    numbers: dict[str, Any] = {"ours": round(ours, 3), "peer": round(peer, 3)}
    print(
        json.dumps(
            {
                "claim": text,
                **numbers,
                "ratio": round(ours / peer, 3),
                "target": target,
                "holds": kept,
            }
        )
    )


if __name__ == "__main__":
    main()
