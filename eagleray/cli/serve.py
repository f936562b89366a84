"""`eagleray serve`: a model's endpoint on this machine, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from eagleray.api.endpoints import Endpoint
    from serving.settings import Settings

GrpcPort = Annotated[int, typer.Option(min=0, max=65535, help="Port for gRPC; 0 opens none.")]
Models = Annotated[
    list[str] | None,
    typer.Option(help="Another model to load on demand; repeatable, '*' for all."),
]
Keys = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="API keys that are asked for, see `eagleray keys new`."),
]
Fewest = Annotated[int | None, typer.Option("--min", min=0, help="Fewest replicas.")]
Most = Annotated[int | None, typer.Option("--max", min=1, help="Most replicas.")]
Objective = Annotated[
    float | None, typer.Option(help="Time within which 95 % of requests are answered.")
]
Preset = Annotated[
    str | None, typer.Option(help="How replicas follow the load: steady, bursty, cheap.")
]
Target = Annotated[float | None, typer.Option(help="Requests in progress at a replica to aim for.")]
Up = Annotated[float | None, typer.Option(help="Seconds of load before replicas are added.")]
Down = Annotated[float | None, typer.Option(help="Seconds of calm before one is drained.")]
Address = Annotated[
    str | None, typer.Option(help="A Ray cluster to run on; else one on this machine.")
]


def serve(
    name: Annotated[str, typer.Argument(help="A model, or the experiment file that made it.")],
    storage: Annotated[
        str | None, typer.Option(help="Where the model is.", envvar="EAGLERAY_STORAGE")
    ] = None,
    alias: Annotated[str, typer.Option(help="The alias to follow.")] = "champion",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    grpc_port: GrpcPort = 0,
    models: Models = None,
    keys: Keys = None,
    min_replicas: Fewest = None,
    max_replicas: Most = None,
    p95_ms: Objective = None,
    preset: Preset = None,
    target: Target = None,
    scale_up_after: Up = None,
    scale_down_after: Down = None,
    address: Address = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON once it answers.")
    ] = False,
) -> None:
    """Serve a model until Ctrl-C; the version that answers follows the alias."""
    from eagleray.api import endpoints

    options = {
        "storage": storage,
        "alias": alias,
        "models": models or None,
        "keys_file": str(keys.absolute()) if keys is not None else None,
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "p95_ms": p95_ms,
        "preset": preset,
        "target_ongoing": target,
        "upscale_delay_s": scale_up_after,
        "downscale_delay_s": scale_down_after,
    }
    settings = endpoints.read(name, options, fit=address is None)
    _warn(settings, host)
    if not as_json:
        typer.echo(f"starting {settings.name}: Ray, HAProxy and the first replica …")
    try:
        where = {"host": host, "port": port, "grpc_port": grpc_port, "address": address}
        with endpoints.Endpoint(settings, **where) as endpoint:
            _print(endpoint, as_json)
            while True:  # a signal that another thread gets does not end a pause
                time.sleep(1)
    except KeyboardInterrupt:
        if not as_json:
            typer.echo("stopped")


def _warn(settings: Settings, host: str) -> None:
    """Say it where an endpoint is open to other machines, and asks for no key."""
    if not settings.keys_file and not _is_loopback(host):
        law = f"--host {host}: whoever reaches it may ask for predictions and metrics"
        typer.secho(f"{law}; --keys FILE asks for keys", fg="red", bold=True, err=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _print(endpoint: Endpoint, as_json: bool) -> None:
    if as_json:
        facts = {name: getattr(endpoint, name) for name in ("url", "name", "version", "curl")}
        print(json.dumps(facts), flush=True)
        return
    typer.echo(f"{endpoint.name} version {endpoint.version} answers at {endpoint.url}")
    typer.echo(f"documentation at {endpoint.url}/docs; Ctrl-C stops it\n\n{endpoint.curl}")
