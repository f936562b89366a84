"""Requests a second and latency of `eagleray serve`, beside default Ray Serve and Starlette.

The three serve the same weights, a small MLP on 30 numbers, and are driven by wrk in turns. A
machine's speed drifts: only numbers of one run compare, and medians of several rounds count.

    python benchmarks/serve.py [--rounds 5] [--seconds 4]

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
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eagleray import bundle, storage
from eagleray.state.models import Registry

NAME = "bench"
WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = io.open("{body}"):read("*a")
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  print(string.format('{{"rate": %f, "p50_ms": %f, "failed": %d}}',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000, failed))
end
"""


@dataclass(frozen=True)
class Server:
    """One of the three, and its measurements: a round each; failed requests are counted in all."""

    name: str
    url: str
    rates: list[float] = field(default_factory=list)
    p50s_ms: list[float] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)

    def measure(self, seconds: int, folder: Path, *, warming_up: bool) -> None:
        """One round; what fails while it warms up counts too."""
        many = drive(self.url, 64, seconds, folder)
        one = drive(self.url, 1, max(1, seconds // 2), folder)
        self.failed.append(int(many["failed"] + one["failed"]))
        if not warming_up:
            self.rates.append(many["rate"])
            self.p50s_ms.append(one["p50_ms"])


def main() -> None:
    """Measure, print a table, and end with one line of JSON for each claim."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--peer", choices=["ray", "starlette"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peer == "ray":
        serve_ray(asked.folder, asked.port)
    elif asked.peer == "starlette":
        serve_starlette(asked.folder, asked.port)
    elif shutil.which("wrk") is None:
        sys.exit("wrk is needed to measure, but is not installed; try: apt-get install wrk")
    else:
        compare(asked.rounds, asked.seconds)


def compare(rounds: int, seconds: int) -> None:
    """Start all three, check that they agree, measure them in turns, and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        register(folder)
        with contextlib.ExitStack() as running:
            servers = [running.enter_context(started(kind, folder)) for kind in COMMANDS]
            agree(servers, (folder / "body.json").read_bytes())
            for number in range(rounds + 1):
                turn = number % len(servers)
                for server in servers[turn:] + servers[:turn]:
                    server.measure(seconds, folder, warming_up=number == 0)
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
    versions.register(NAME, bundle.pack(made, golden, {}), {})
    versions.promote(NAME, 1)
    row = {name: values[0] for name, values in golden.items()}
    (folder / "body.json").write_text(json.dumps({"instances": [row]}))
    (folder / "wrk.lua").write_text(WRK.format(body=folder / "body.json"))


COMMANDS = {
    "eagleray": [
        "-m",
        "eagleray",
        "serve",
        NAME,
        "--max",
        "1",
        "--storage",
        "{uri}",
        "--port",
        "{port}",
    ],
    "starlette": [__file__, "--peer", "starlette", "--folder", "{folder}", "--port", "{port}"],
    "ray serve": [__file__, "--peer", "ray", "--folder", "{folder}", "--port", "{port}"],
}


@contextlib.contextmanager
def started(kind: str, folder: Path) -> Iterator[Server]:
    """A server in a process of its own, once it answers."""
    from serving import environment

    (port,) = environment.free_ports(1)
    words = {"uri": folder.as_uri(), "folder": folder, "port": port}
    command = [word.format(**words) for word in COMMANDS[kind]]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_SERVE")}
    print(f"starting {kind} …", flush=True)
    with subprocess.Popen(
        [sys.executable, *command], env=plain, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        server = Server(kind, f"http://127.0.0.1:{port}/predict")
        try:
            wait(server.url, (folder / "body.json").read_bytes(), process)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait(url: str, body: bytes, process: subprocess.Popen[bytes]) -> None:
    """Until the server answers; ends the benchmark when it does not within two minutes."""
    for _ in range(240):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            ask(url, body)
            return
        if process.poll() is not None:
            break
        time.sleep(0.5)
    sys.exit(f"{url} must answer, but does not")


def ask(url: str, body: bytes) -> list[float]:
    """The probabilities of a row."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return list(json.load(answer)["predictions"][0]["probabilities"].values())


def agree(servers: list[Server], body: bytes) -> None:
    """All serve the same model."""
    answers = [ask(server.url, body) for server in servers]
    furthest = max(abs(a - b) for other in answers for a, b in zip(answers[0], other, strict=True))
    assert furthest < 1e-5, f"answers differ by {furthest}"


def drive(url: str, connections: int, seconds: int, folder: Path) -> dict[str, float]:
    """Load from so many connections, each of which asks again once it is answered."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "-s",
        str(folder / "wrk.lua"),
        url,
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    measured: dict[str, float] = json.loads(said.strip().splitlines()[-1])
    return measured


def report(servers: list[Server]) -> None:
    """A table, then the claims."""
    heads = f"{'requests/s at 64':>18}{'p50 at 1 (ms)':>15}{'requests failed':>17}"
    print(f"\nmedians of {len(servers[0].rates)} {heads}")
    rate = {server.name: statistics.median(server.rates) for server in servers}
    p50 = {server.name: statistics.median(server.p50s_ms) for server in servers}
    for server in servers:
        name, failed = server.name, sum(server.failed)
        print(f"{name:13}{rate[name]:18.0f}{p50[name]:15.2f}{failed:17}")
    ours = rate["eagleray"]
    later_ms = p50["eagleray"] - p50["starlette"]
    claim("requests/s at 64 connections against default Ray Serve", ours, rate["ray serve"], 12.0)
    claim("requests/s at 64 connections against Starlette", ours, rate["starlette"], 0.6)
    said = "p50 in ms at one connection, at most so much above Starlette's"
    claim(said, p50["eagleray"], p50["starlette"], 1.5, holds=later_ms <= 1.5)


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


class Plain:
    """The same model as a person would put it behind a web framework, without batches."""

    def __init__(self, folder: Path) -> None:
        import torch

        torch.set_num_threads(1)
        versions = Registry(storage.open(folder.as_uri()))
        loaded = bundle.load(versions, versions.version(NAME, 1))
        self._model = loaded.engine.module  # type: ignore[attr-defined]
        self._names = [column.name for column in loaded.schema.columns]
        self._classes = loaded.schema.target.classes

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        rows = [[row[name] for name in self._names] for row in body["instances"]]
        with torch.inference_mode():
            logits_BC = self._model({"numeric": torch.tensor(rows, dtype=torch.float32)})
            probabilities = torch.softmax(logits_BC, 1).tolist()
        answers = [dict(zip(self._classes, row, strict=True)) for row in probabilities]
        predictions = [
            {
                "label": max(row, key=lambda name: row[name]),
                "probability": max(row.values()),
                "probabilities": row,
            }
            for row in answers
        ]
        return {"model": NAME, "version": 1, "predictions": predictions}


def serve_starlette(folder: Path, port: int) -> None:
    """One process, uvicorn as it comes, no access log."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    plain = Plain(folder)

    async def predict(request: Request) -> JSONResponse:
        return JSONResponse(plain.predict(await request.json()))

    application = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    uvicorn.run(application, port=port, access_log=False, log_level="warning")


def serve_ray(folder: Path, port: int) -> None:
    """One replica with Ray Serve's defaults."""
    import ray
    from ray import serve
    from starlette.requests import Request

    class Predict:
        def __init__(self, folder: Path) -> None:
            self._plain = Plain(folder)

        async def __call__(self, request: Request) -> dict[str, Any]:
            return self._plain.predict(await request.json())

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve.start(http_options={"port": port})
    try:
        deployed: Any = serve.deployment(Predict)
        serve.run(deployed.bind(folder), route_prefix="/predict")
        signal.pause()
    except KeyboardInterrupt:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
