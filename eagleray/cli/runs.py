"""`eagleray runs …`: runs on clusters and on this machine, and their state."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from eagleray.cli import options
from eagleray.cli.output import emit
from eagleray.client import runs
from eagleray.client.runs import Attempt, Backend
from eagleray.state.searches import Records
from eagleray.storage import open as open_storage

app = options.group("Runs on clusters and on this machine.")

Reference = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or the experiment's name for its latest.")
]


@app.command("list")
def list_(
    address: options.Address = None,
    kubernetes: options.Kubernetes = False,
    namespace: options.Namespace = None,
    storage: options.Storage = options.EMBEDDED,
    as_json: options.Json = False,
) -> None:
    """List all attempts, the latest last."""
    backend = _backend(address, kubernetes, namespace, storage)
    known = sorted(backend.attempts(), key=lambda one: (one.started, one.id))
    heading = ("RUN", "EXPERIMENT", "STATE", "STARTED")
    rows = [(one.id, one.name, one.state, one.started) for one in known]
    emit(known, as_json, table=[heading, *rows])


@app.command()
def status(
    run: Reference,
    address: options.Address = None,
    kubernetes: options.Kubernetes = False,
    namespace: options.Namespace = None,
    storage: options.Storage = options.EMBEDDED,
    as_json: options.Json = False,
) -> None:
    """Tell the state of a run's latest attempt, and why."""
    _, found = _find(run, address, kubernetes, namespace, storage)
    why = f": {found.why}" if found.why else ""
    emit(found, as_json, table=[[f"{found.id}: {found.state}{why}"]])


@app.command()
def logs(
    run: Reference,
    address: options.Address = None,
    kubernetes: options.Kubernetes = False,
    namespace: options.Namespace = None,
    storage: options.Storage = options.EMBEDDED,
) -> None:
    """Print what the driver has printed so far."""
    from eagleray.client import screen

    backend, found = _find(run, address, kubernetes, namespace, storage)
    pieces = backend.log(found, follow=False)
    sys.stdout.writelines(screen.without_colours(pieces, sys.stdout))


@app.command()
def attach(
    run: Reference,
    address: options.Address = None,
    kubernetes: options.Kubernetes = False,
    namespace: options.Namespace = None,
    storage: options.Storage = options.EMBEDDED,
) -> None:
    """Follow a run until it has ended; Ctrl-C leaves it running."""
    from rich.console import Console

    from eagleray.api.clusters import follow

    found = _find(run, address, kubernetes, namespace, storage)
    follow(*found, Console(highlight=False, markup=False))


@app.command()
def stop(
    run: Reference,
    address: options.Address = None,
    kubernetes: options.Kubernetes = False,
    namespace: options.Namespace = None,
    storage: options.Storage = options.EMBEDDED,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Stop a run; submitted again, it goes on from there."""
    backend, found = _find(run, address, kubernetes, namespace, storage)
    if not found.active:
        typer.echo(f"{found.id}: {found.state} already")
        return
    if not dry_run:
        backend.stop(found)
    typer.echo(f"{found.id}: {'would be stopped' if dry_run else 'stopped'}")


@app.command()
def tensorboard(
    run: Reference,
    out: Annotated[Path, typer.Option(help="A new folder; then: tensorboard --logdir FOLDER.")],
    storage: options.Storage = options.EMBEDDED,
) -> None:
    """Write the curves of a run's trials for TensorBoard, also while it is running."""
    from eagleray.client import curves
    from eagleray.client.local import LocalRuns

    found = runs.find(LocalRuns(storage), run)
    records = Records(open_storage(storage), found.name, found.run)
    trials = records.trials()
    curves.write_events(trials, out, records.layers)
    typer.echo(f"{len(trials)} trials of {found.name}: tensorboard --logdir {out}")


@app.command()
def mlflow(run: Reference, storage: options.Storage = options.EMBEDDED) -> None:
    """Send a run's trials to the MLflow at MLFLOW_TRACKING_URI; what it has stays."""
    from eagleray.client import tracking
    from eagleray.client.local import LocalRuns

    found = runs.find(LocalRuns(storage), run)
    records = Records(open_storage(storage), found.name, found.run)
    sent, trials, url = tracking.send(records, found.state)
    typer.echo(f"{sent} of {trials} trials of {found.name} sent: {url}")


@app.command(hidden=True)
def drive(name: str, run: str, storage: Annotated[str, typer.Option("--storage")]) -> None:
    """Run the driver process inside the cluster."""
    from eagleray.state import batches
    from eagleray.state import runs as records
    from ray_jobs import pipeline
    from ray_jobs.batch import driver

    sent = records.Run(name, run, storage)
    if (batch := records.find(sent, batches.Request)) is not None:
        driver.drive(sent, batch)
    else:
        pipeline.drive(sent)


def _find(
    reference: str, address: str | None, kubernetes: bool, namespace: str | None, storage: str
) -> tuple[Backend, Attempt]:
    backend = _backend(address, kubernetes, namespace, storage)
    return backend, runs.find(backend, reference)


def _backend(address: str | None, kubernetes: bool, namespace: str | None, storage: str) -> Backend:
    from eagleray.api.clusters import backend

    return backend(address, kubernetes=kubernetes, namespace=namespace, storage=storage)
