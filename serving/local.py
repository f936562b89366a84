"""Serve a model from this machine: on a Ray cluster of one node, or on a running cluster."""

import contextlib
import logging
import os
import shlex
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from eagleray import bundle, errors, process, ray_compat, storage
from eagleray.state.models import Registry
from eagleray.storage import cache
from serving import environment, guard, openapi, trust
from serving.settings import Settings


@contextlib.contextmanager
def serving(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    grpc_port: int = 0,
    address: str | None = None,
) -> Iterator[tuple[str, bundle.Bundle]]:
    """Serve a model until the block ends; then stop all that was started. `grpc_port` 0: no gRPC.

    Yields the URL of the HTTP server, without a path, and the version that the alias names. Without
    `address`, a Ray cluster of one node is started; nodes at `address` need `environment.FAST`.
    `eagleray.api.endpoints.serve` lists the errors.
    """
    models = Registry(storage.open(settings.storage), local=cache.default())
    version = models.resolve(settings.name, settings.alias)
    trust.Trust.of(settings).check(version)
    loaded = bundle.load(models, version)
    loaded.verify()
    if address is None:
        guard.Guard.of(settings)  # raises for a file of keys that cannot be read
        _check_free("--port", host, port)
        _check_free("--grpc-port", host, grpc_port)  # 0 is any one
    http: dict[str, object] = {"host": host, "port": port}
    with _cluster(address), _deployed(settings, http, grpc_port, alone=address is None):
        reachable = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound
        yield f"http://{reachable}:{port}", loaded


def cpus(replicas: int) -> float:
    """Return how many CPUs each replica may reserve so that this machine holds them all."""
    return min(1.0, int(100 * (os.cpu_count() or 1) / replicas) / 100)


def curl(url: str, loaded: bundle.Bundle, *, keys: bool = False) -> str:
    """Return a command that predicts a golden row; with `keys` it has the one of EAGLERAY_KEY."""
    body = shlex.quote(msgspec.json.encode(openapi.example(loaded)).decode())
    key = ' -H "authorization: Bearer $EAGLERAY_KEY"' if keys else ""
    headers = f"-H 'content-type: application/json'{key}"
    return f"curl -s {url}/v1/models/{loaded.name}:predict {headers} -d {body}"


def _check_free(option: str, host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as cause:
        raise errors.UserError(f"{option} must be free, but {host}:{port} is taken") from cause


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="er-", ignore_cleanup_errors=True) as name:
        folder, variables = Path(name), {}
        if address is None:
            own = environment.private_paths(folder) | environment.haproxy_program(folder)
            own |= environment.ALONE | environment.MEMORY
            variables = environment.FAST | environment.GRPC | own
        with (
            ray_compat.connected(address, variables),
            # Ray's own handlers leave processes behind.
            process.signals(signal.default_int_handler, signal.SIGINT, signal.SIGTERM),
        ):
            yield


@contextlib.contextmanager
def _deployed(
    settings: Settings, http: dict[str, object], grpc_port: int, *, alone: bool
) -> Iterator[None]:
    from ray import serve

    from serving import app

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    grpc = environment.grpc_options(grpc_port) if grpc_port else None
    serve.start(http_options=http, grpc_options=grpc)
    try:
        serve.run(app.build(settings.model_dump()), name=settings.name, route_prefix="/")
        yield
    except RuntimeError as cause:
        message = f"Ray Serve must start {settings.name}, but failed: {cause}"
        raise errors.ServingError(message) from cause
    finally:
        with ray_compat.quiet():
            if alone:
                serve.shutdown()
            else:
                serve.delete(settings.name)
