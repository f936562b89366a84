"""gRPC calls of one replica: on our path, by Ray Serve's own way, past HAProxy, and REST beside it.

The four are asked in turns with the same tensors of one row, through one endpoint with one replica.
A machine's speed drifts: only numbers of one run compare, and medians of several rounds count. The
client, in Python as the replica, takes more time than it; so the replica's own time counts.

    python -m benchmarks.rpc [--rounds 5] [--seconds 3]
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx

from eagleray import ray_compat, storage
from eagleray.state.models import Registry
from serving import environment
from serving.wire.inference_messages import SERVICE, message

NAME, OWN_WAY = "left", "bench.OwnWay"
CLIENTS, TARGET = 16, 1.2
PORTS = range(40_000, 41_000)
"""Where Ray Serve opens the gRPC servers of replicas."""

ROOT, SESSION = Path(__file__).parents[1], f"EAGLERAY_BENCHMARK={os.getpid()}"
OWN = dict([SESSION.split("=")])
"""A variable that tells this run's replica from those of others."""

Ask = Callable[[], Awaitable[Any]]


def add_own_way(_: object, server: Any) -> None:
    """The same method by Ray Serve's own way: its servers replace the handler."""
    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(None)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(OWN_WAY, methods),))


@contextlib.contextmanager
def endpoint(folder: Path) -> Iterator[tuple[int, int]]:
    """The ports of HTTP and gRPC of an endpoint of one replica."""
    from ray import serve

    from serving import app
    from tests import bundles

    models = Registry(storage.open(folder.as_uri()))
    models.register(NAME, bundles.files(), {})
    models.promote(NAME, 1)
    http, port = environment.free_ports(2)
    options = environment.grpc_options(port)
    options["grpc_servicer_functions"].append("benchmarks.rpc.add_own_way")
    own = environment.private_paths(folder) | environment.haproxy_program(folder)
    variables = environment.FAST | environment.GRPC | own
    with ray_compat.connected(None, variables | {"PYTHONPATH": str(ROOT), **OWN}):
        serve.start(http_options={"host": "127.0.0.1", "port": http}, grpc_options=options)
        settings = {"name": NAME, "storage": folder.as_uri(), "max_replicas": 1}
        serve.run(app.build(settings), name=NAME, route_prefix="/")
        yield http, port
        serve.shutdown()


@contextlib.asynccontextmanager
async def ways(http: int, port: int) -> AsyncIterator[dict[str, Ask]]:
    """By name, what asks once for a prediction of one row."""
    request = message("ModelInferRequest")(model_name=NAME)
    request.inputs.add(name="age", datatype="FP64", shape=[1], contents={"fp64_contents": [41.0]})
    city = {"bytes_contents": [b"Bern"]}
    request.inputs.add(name="city", datatype="BYTES", shape=[1], contents=city)
    body = request.SerializeToString()
    url = f"http://127.0.0.1:{http}/v2/models/{NAME}/infer"
    header = {"content-type": "application/x-protobuf"}
    async with contextlib.AsyncExitStack() as stack:

        async def method(service: str, at: int) -> Ask:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{at}"))
            call = channel.unary_unary(f"/{service}/ModelInfer")
            return lambda: call(body, timeout=30)

        client = await stack.enter_async_context(httpx.AsyncClient(timeout=30))
        ours, own = await method(SERVICE, port), await method(OWN_WAY, port)
        past = await method(SERVICE, listening())
        rest = lambda: client.post(url, content=body, headers=header)  # noqa: E731
        yield {"ours": ours, "ray_serve": own, "past_haproxy": past, "rest_httpx": rest}


def listening() -> int:
    """The port of the replica's gRPC server: the one of `PORTS` that its process has opened."""
    links = {str(one.readlink()) for one in (replica() / "fd").iterdir()}
    lines = [one.split() for one in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    opened = (one for one in lines if one[3] == "0A" and f"socket:[{one[9]}]" in links)
    (port,) = {int(one[1].rpartition(":")[2], 16) for one in opened}.intersection(PORTS)
    return port


def replica() -> Path:
    """What the system says of the replica's process."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            own = (process / "cmdline").read_bytes().startswith(b"ray::ServeReplica:left")
            if own and SESSION.encode() in (process / "environ").read_bytes():
                return process
    raise LookupError("a replica must run")


def replica_s() -> float:
    """The seconds of a processor that the replica has taken."""
    ticks = (replica() / "stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


async def measure(ask: Ask, seconds: float) -> dict[str, float]:
    """Many clients: requests a second, the replica's time for one; one client: median time."""
    began_s = replica_s()
    end, times, count = time.perf_counter() + seconds, [], 0

    async def client() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await ask()
            count += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    cpu_ms, rate = 1000 * (replica_s() - began_s) / count, count / seconds
    end = time.perf_counter() + seconds / 2
    while (began := time.perf_counter()) < end:
        await ask()
        times.append(time.perf_counter() - began)
    return {"cpu_ms": cpu_ms, "rate": rate, "p50_ms": 1000 * statistics.median(times)}


async def compare(http: int, port: int, rounds: int, seconds: float) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {}
    async with ways(http, port) as asks:
        for turn in range(rounds + 1):  # the first warms up
            for name, ask in asks.items():
                measured = await measure(ask, seconds)
                if turn:
                    found.setdefault(name, []).append(measured)
    return {
        name: {key: round(statistics.median(one[key] for one in each), 2) for key in each[0]}
        for name, each in found.items()
    }


def main(rounds: int, seconds: float) -> None:
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="er-", ignore_cleanup_errors=True)
        ports = stack.enter_context(endpoint(Path(stack.enter_context(temporary))))
        found = asyncio.run(compare(*ports, rounds, seconds))
    ratio = round(found["ray_serve"]["cpu_ms"] / found["ours"]["cpu_ms"], 2)
    claim = "the replica's time for a gRPC call, Ray Serve's own way to ours"
    shown = {"claim": claim, "ours": found["ours"], "peer": found["ray_serve"], "ratio": ratio}
    others = {key: found[key] for key in ("past_haproxy", "rest_httpx")}
    load = os.getloadavg()[0]
    print(json.dumps({**shown, "target": TARGET, "holds": ratio >= TARGET, **others, "load": load}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    main(**vars(parser.parse_args()))
