"""`eagleray run`: from an experiment file to a registered version, here or on a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli import options, overrides
from eagleray.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from eagleray import spec
    from eagleray.client.runs import Cluster


def run(
    file: Annotated[Path, typer.Argument(help="The experiment file.")],
    assignments: overrides.Set = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray's dashboard (http://head:8265) to submit to, or a Ray cluster to join "
            "(host:6379); else one on this machine."
        ),
    ] = None,
    kubernetes: options.Kubernetes = False,
    namespace: options.Namespace = None,
    release: options.Release = None,
    cluster: options.RayCluster = None,
    queue: options.Queue = None,
    priority: options.Priority = None,
    suspend: options.Suspend = False,
    deadline: options.Deadline = None,
    keep: options.Keep = None,
    retries: options.Retries = None,
    detach: Annotated[bool, typer.Option("--detach", help="Submit, and do not follow.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be submitted, as YAML.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Search hyperparameters, evaluate the winner on the test part, and register it.

    Run again, the same file and data go on where an interrupted search was, or give the result.
    """
    from rich.console import Console

    from eagleray import spec
    from eagleray.api import backends

    experiment = spec.load(file, overrides.parse(assignments))
    asked = {
        "cluster": cluster,
        "queue": queue,
        "priority": priority,
        "suspend": suspend or None,
        "deadline_s": deadline,
        "keep_s": keep,
        "retries": retries,
    }
    backend = backends.select(
        address, kubernetes=kubernetes, namespace=namespace, release=release, asked=asked
    )
    out = Console(stderr=as_json or dry_run, highlight=False)
    if backend is None and (detach or dry_run):
        option = "--detach" if detach else "--dry-run"
        raise UserError(f"{option}: must stand beside --kubernetes or --address http://…")
    if backend is None:
        _run(experiment, out, address, as_json)
    elif dry_run:
        from eagleray.api import submissions

        typer.echo(submissions.plan(experiment, backend))
    else:
        _submit(experiment, backend, out, detach=detach, as_json=as_json)


def _run(experiment: spec.Experiment, out: Console, address: str | None, as_json: bool) -> None:
    from ray_jobs import pipeline
    from ray_jobs.report import page

    outcome = pipeline.run(experiment, out, address)
    if as_json:
        typer.echo(json.dumps(outcome.summary(), indent=2))
    else:
        page.show(outcome, out)


def _submit(
    experiment: spec.Experiment, backend: Cluster, out: Console, *, detach: bool, as_json: bool
) -> None:
    from eagleray.api import submissions

    sent = submissions.submit(experiment, backend, out)
    if detach and sent.attempt is not None:
        out.print(f"follow it with: {sent.attach}", soft_wrap=True)
        return
    sent.follow(out)
    if as_json:
        typer.echo(json.dumps(sent.result().summary, indent=2))
    elif sent.attempt is None:
        typer.echo(sent.result().page)
