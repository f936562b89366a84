"""`eagleray simulate`: what autoscaling makes of a load, without an endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eagleray.cli import options
from eagleray.cli.output import emit


def simulate(
    name: Annotated[
        str | None, typer.Argument(help="An experiment file, whose `serve` section counts.")
    ] = None,
    load: Annotated[str, typer.Option(help="steady, diurnal, spike or ramp.")] = "spike",
    trace: Annotated[
        Path | None, typer.Option(help="CSV of timestamps or of seconds,rate, in place of --load.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0, help="Most requests per second.")] = 200.0,
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the load.")] = 30.0,
    service_ms: Annotated[
        float, typer.Option(min=0.001, help="Mean time that a request takes a replica.")
    ] = 10.0,
    variation: Annotated[
        float, typer.Option(min=0, help="Standard deviation of that time, divided by the mean.")
    ] = 1.0,
    start_s: Annotated[
        float, typer.Option(min=0, help="Time that a replica takes to start.")
    ] = 6.0,
    p95_ms: Annotated[
        float | None, typer.Option(help="Time within which 95 % of requests are answered.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="steady, bursty or cheap.")] = None,
    min_replicas: Annotated[
        int | None, typer.Option("--min", min=0, help="Fewest replicas.")
    ] = None,
    max_replicas: Annotated[int | None, typer.Option("--max", min=1, help="Most replicas.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a replica hour.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what comes by chance.")] = 0,
    picture: Annotated[
        Path | None, typer.Option(help="Draw load, replicas and latency to this PNG or SVG.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Simulate autoscaling on a load, with the policy of the endpoint."""
    from eagleray.api import endpoints, simulation

    given = {
        "p95_ms": p95_ms,
        "preset": preset,
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
    }
    done = simulation.simulate(
        simulation.Load(shape=load, trace=trace, rate=rate, minutes=minutes, seed=seed),
        endpoints.read(name or "simulated", given),
        replica=simulation.Replica(service_ms=service_ms, variation=variation, start_s=start_s),
        price=price,
    )
    if picture is not None:
        done.draw(picture)
    if not as_json:
        print(done, end="\n\n")
    rows = [(f"{one.at / 60:.1f}", one.wanted, one.reason or "-") for one in done.changes]
    changes = [{"at_s": one.at, "replicas": one.wanted, "why": one.reason} for one in done.changes]
    emit(
        done.facts | {"changes_made": changes}, as_json, table=[("MINUTE", "WANTED", "WHY"), *rows]
    )
