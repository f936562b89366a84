"""`eagleray runs …`: what was sent to a cluster, and how it fares."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli import output, places
from eagleray.cli.output import emit

if TYPE_CHECKING:
    from eagleray.client.runs import Attempt, Backend
    from ray_jobs import finish

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Runs on clusters and on this machine.",
)

Reference = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or the experiment's name for its latest.")
]
Address = Annotated[
    str | None, typer.Option(help="Ray's dashboard, http://head:8265; else this machine.")
]
Storage = Annotated[
    str, typer.Option("--storage", envvar="EAGLERAY_STORAGE", help="Where this machine's runs are.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
HERE = "s3://eagleray"


@app.command("list")
def list_(
    address: Address = None,
    kubernetes: places.Kubernetes = False,
    namespace: places.Namespace = None,
    storage: Storage = HERE,
    as_json: Json = False,
) -> None:
    """List all attempts, the latest last."""
    place = _place(address, kubernetes, namespace, storage)
    known = sorted(place.attempts(), key=lambda one: (one.started, one.id))
    heading = ("RUN", "EXPERIMENT", "STATE", "STARTED")
    rows = [(one.id, one.name, one.state, one.started) for one in known]
    emit(known, as_json, table=[heading, *rows])


@app.command()
def status(
    run: Reference,
    address: Address = None,
    kubernetes: places.Kubernetes = False,
    namespace: places.Namespace = None,
    storage: Storage = HERE,
    as_json: Json = False,
) -> None:
    """Tell the state of a run's latest attempt, and why."""
    found = _found(run, address, kubernetes, namespace, storage)[1]
    why = f": {found.why}" if found.why else ""
    emit(found, as_json, table=[[f"{found.id}: {found.state}{why}"]])


@app.command()
def logs(
    run: Reference,
    address: Address = None,
    kubernetes: places.Kubernetes = False,
    namespace: places.Namespace = None,
    storage: Storage = HERE,
) -> None:
    """Print what the driver has printed so far."""
    place, found = _found(run, address, kubernetes, namespace, storage)
    for text in output.shown(place.log(found, follow=False), sys.stdout):
        sys.stdout.write(text)


@app.command()
def attach(
    run: Reference,
    address: Address = None,
    kubernetes: places.Kubernetes = False,
    namespace: places.Namespace = None,
    storage: Storage = HERE,
) -> None:
    """Follow a run until it has ended; Ctrl-C leaves it running."""
    from eagleray.cli.run import follow

    follow(*_found(run, address, kubernetes, namespace, storage))


@app.command()
def stop(
    run: Reference,
    address: Address = None,
    kubernetes: places.Kubernetes = False,
    namespace: places.Namespace = None,
    storage: Storage = HERE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Stop a run; submitted again, it goes on from there."""
    place, found = _found(run, address, kubernetes, namespace, storage)
    if not found.active:
        typer.echo(f"{found.id}: {found.state} already")
        return
    if not dry_run:
        place.stop(found)
    typer.echo(f"{found.id}: {'would be stopped' if dry_run else 'stopped'}")


@app.command(hidden=True)
def drive(name: str, run: str, storage: Annotated[str, typer.Option("--storage")]) -> None:
    """Be the driver of a run on the cluster that this process is in."""
    from rich.console import Console

    from eagleray import spec
    from eagleray.client import package
    from eagleray.state import runs
    from ray_jobs import finish

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped: what is under way is kept
    sent = runs.Run(name, run, storage)
    with tempfile.TemporaryDirectory(prefix="eagleray-run-") as folder:
        experiment = spec.load(package.fetch(sent, Path(folder)))
        out = Console(highlight=False)
        address = os.environ.get("RAY_ADDRESS", "auto")
        ended = finish.experiment(
            experiment, out, address, began=lambda search_id: runs.begin(sent, search_id)
        )
        page = _page(ended)
        runs.finish(sent, {"summary": ended.summary(), "page": page})
    typer.echo(page)


def _page(ended: finish.Ended) -> str:
    from rich.console import Console

    from eagleray.cli.run import show

    text = io.StringIO()
    show(ended, Console(file=text, width=100, highlight=False))
    return text.getvalue().rstrip()


def _found(
    reference: str, address: str | None, kubernetes: bool, namespace: str | None, storage: str
) -> tuple[Backend, Attempt]:
    from eagleray.client import runs

    place = _place(address, kubernetes, namespace, storage)
    return place, runs.find(place, reference)


def _place(address: str | None, kubernetes: bool, namespace: str | None, storage: str) -> Backend:
    from eagleray.errors import UserError

    place = places.cluster(address, kubernetes=kubernetes, namespace=namespace)
    if place is not None:
        return place
    if address is not None:
        raise UserError(
            f"--address: must be http://host:8265 of Ray's dashboard, but got {address}"
        )
    from ray_jobs import here

    return here.Here(storage)
