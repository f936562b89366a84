"""`eagleray run`: from an experiment file to a registered version, on this machine or a cluster."""

import json
from pathlib import Path
from typing import Annotated

import typer

from eagleray.cli import options

Keep = Annotated[
    int | None, typer.Option(min=0, help="Kubernetes: seconds to keep its cluster after it.")
]


def run(
    file: Annotated[Path, typer.Argument(help="The experiment file.")],
    assignments: options.Set = None,
    address: options.Target = None,
    kubernetes: options.Kubernetes = False,
    namespace: options.Namespace = None,
    release: options.Release = None,
    cluster: options.Cluster = None,
    queue: options.Queue = None,
    priority: options.Priority = None,
    suspend: options.Suspend = False,
    deadline: options.Deadline = None,
    keep: Keep = None,
    retries: options.Retries = None,
    detach: options.Detach = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Search hyperparameters, evaluate the winner on the test part, and register it.

    Run again, the same file and data go on where an interrupted search was, or give the result.
    """
    from rich.console import Console

    from eagleray import spec
    from eagleray.api import clusters, runs

    experiment = spec.load(file, options.overrides(assignments))
    fields = {
        "cluster": cluster,
        "queue": queue,
        "priority": priority,
        "suspend": suspend or None,
        "deadline_s": deadline,
        "keep_s": keep,
        "retries": retries,
    }
    target = clusters.cluster(
        address, kubernetes=kubernetes, namespace=namespace, release=release, options=fields
    )
    if target is None:
        options.check_submitted(detach=detach, dry_run=dry_run)
    if target is not None and dry_run:
        typer.echo(runs.plan(experiment, target))
        return
    out, show = Console(stderr=as_json, highlight=False, markup=False), not as_json
    result = (
        runs.run_local(experiment, out, address, show=show)
        if target is None
        else runs.submit(experiment, target, out, detach=detach, show=show)
    )
    if as_json and result is not None:
        typer.echo(json.dumps(result.summary, indent=2))
