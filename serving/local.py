"""A model served from this machine: a Ray cluster of one node, or one that is already there.

Starts and stops all that it needs; the command line, the demo and the tests go through here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from eagleray import bundle, errors, ray_compat, storage
from eagleray.state.models import Registry
from serving import environment, openapi
from serving.settings import Settings


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers.

    Attributes:
        url: of the HTTP server, without a path.
        name: the model's.
        version: the number that the alias names.
        example: a request's body, with a real row.
    """

    url: str
    name: str
    version: int
    example: bytes

    @property
    def curl(self) -> str:
        """A command that asks for a prediction."""
        body = shlex.quote(self.example.decode())
        header = "-H 'content-type: application/json'"
        return f"curl -s {self.url}/v1/models/{self.name}:predict {header} -d {body}"


@contextlib.contextmanager
def serving(
    settings: Settings, *, host: str = "127.0.0.1", port: int = 8000, address: str | None = None
) -> Iterator[Endpoint]:
    """Serve a model until the block ends; then stop all that was started.

    Args:
        settings: which model, and how.
        host: to listen on.
        port: to listen on.
        address: of a Ray cluster to run on; its nodes need `environment.FAST`. Else one is started.

    Raises:
        NotFoundError: there is no such model or alias.
        ServingError: the version does not reproduce its golden rows, or Ray Serve fails.
        UserError: the port is taken.
    """
    loaded = check(settings)
    assert loaded.golden is not None
    example = msgspec.json.encode({"instances": [openapi.row(loaded.golden.rows)]})
    if address is None:
        _check_port(host, port)
    with _cluster(address), _deployed(settings, host, port, alone=address is None):
        shown = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound
        yield Endpoint(f"http://{shown}:{port}", settings.name, loaded.number, example)


def check(settings: Settings) -> bundle.Bundle:
    """The version that the alias names, its golden rows reproduced."""
    models = Registry(storage.open(settings.storage))
    loaded = bundle.load(models, models.resolve(settings.name, settings.alias))
    loaded.verify()
    return loaded


def cpus(replicas: int) -> float:
    """Logical CPUs for each of so many replicas, so that this machine holds them all."""
    return min(1.0, int(100 * (os.cpu_count() or 1) / replicas) / 100)


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="er-"))
    settings = {}
    if address is None:
        settings = environment.FAST | environment.private(folder) | environment.bound(folder)
    try:
        with (
            ray_compat.connected(address, settings),
            _interrupted_by(signal.SIGINT, signal.SIGTERM),
        ):
            yield
    finally:
        _end_haproxy(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Each of the signals raises KeyboardInterrupt; Ray's own handlers leave processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _deployed(settings: Settings, host: str, port: int, *, alone: bool) -> Iterator[None]:
    from ray import serve

    from serving import app

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": host, "port": port})
    try:
        serve.run(app.build(settings.model_dump()), name=settings.name, route_prefix="/")
        yield
    except RuntimeError as cause:
        raise errors.ServingError(
            f"{settings.name} must come up, but Ray Serve says: {cause}"
        ) from cause
    finally:
        with contextlib.redirect_stdout(
            io.StringIO()
        ):  # Ray reports its own parts' end as failures
            if alone:
                serve.shutdown()
            else:
                serve.delete(settings.name)


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as cause:
            raise errors.UserError(f"--port must be free, but {host}:{port} is taken") from cause


def _end_haproxy(folder: Path) -> None:
    """End the HAProxy processes that Ray left behind, which happens when it is killed."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{folder}/".encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
