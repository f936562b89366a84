"""`eagleray run`: from an experiment file to a registered version, here or on a cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli import output, places
from eagleray.errors import DataError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from eagleray import spec
    from eagleray.client.runs import Attempt, Backend, Cluster
    from ray_jobs import finish


def run(
    file: Annotated[Path, typer.Argument(help="The experiment file.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: --set tune.trials=4")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray's dashboard (http://head:8265) to submit to, or a Ray cluster to join "
            "(host:6379); else one on this machine."
        ),
    ] = None,
    kubernetes: places.Kubernetes = False,
    namespace: places.Namespace = None,
    release: places.Release = None,
    cluster: places.RayCluster = None,
    queue: places.Queue = None,
    priority: places.Priority = None,
    suspend: places.Suspend = False,
    deadline: places.Deadline = None,
    keep: places.Keep = None,
    retries: places.Retries = None,
    detach: Annotated[bool, typer.Option("--detach", help="Submit, and do not follow.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be submitted, as YAML.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Search hyperparameters, judge the winner on the test part, and register it.

    Run again, the same file and data go on where an interrupted search was, or give the result.
    """
    from rich.console import Console

    from eagleray import spec
    from eagleray.cli import overrides

    experiment = spec.load(file, overrides.parse(assignments))
    options = {
        "cluster": cluster,
        "queue": queue,
        "priority": priority,
        "suspend": suspend or None,
        "deadline_s": deadline,
        "keep_s": keep,
        "retries": retries,
    }
    asked = {name: value for name, value in options.items() if value is not None}
    there = places.cluster(
        address, kubernetes=kubernetes, namespace=namespace, release=release, asked=asked
    )
    out = Console(stderr=as_json or dry_run, highlight=False)
    if there is not None:
        with places.reaching(there):
            _send(experiment, there, out, detach=detach, dry_run=dry_run, as_json=as_json)
        return
    if detach or dry_run:
        option = "--detach" if detach else "--dry-run"
        raise UserError(f"{option}: must stand beside --kubernetes or --address http://…")
    _run(experiment, out, address, as_json)


def show(ended: finish.Ended, out: Console) -> None:
    """What came of an experiment, for people."""
    from ray_jobs.report import tables

    outcome, result = ended.outcome, ended.result
    experiment, classes = outcome.experiment, outcome.dataset.schema.target.classes
    out.print(tables.leaderboard(outcome.trials, outcome.metric, out.width))
    if outcome.winner.values:
        values = tables.values(outcome.winner.values)
        out.print(f"trial {outcome.winner.number}: {values}", soft_wrap=True)
    out.print(tables.scores(outcome.winner.best, result.test))
    if result.confusion or result.confused:
        out.print(tables.confusion(result, classes, out.width))
    version = f"{experiment.name} version {result.version}"
    out.print(f"registered {version} in {experiment.storage}: {ended.why}", soft_wrap=True)
    for warning in result.warnings:
        out.print(f"WARNING: {version} {warning}", soft_wrap=True, style="bold red", markup=False)
    for command in ended.next_steps():
        out.print(f"  {command}", soft_wrap=True)


def follow(place: Backend, attempt: Attempt, *, to_stderr: bool = False) -> None:
    """Print what the driver prints until the attempt has ended; Ctrl-C leaves it running.

    Raises:
        EagleRayError: the attempt did not succeed.
    """
    from rich.console import Console

    from eagleray.client import runs
    from ray_jobs.report import far

    out = Console(stderr=to_stderr, highlight=False)
    with _leaving(place, attempt), far.screen(attempt, out) as write:
        for text in output.shown(place.log(attempt, follow=True), out.file):
            write(text)
    runs.ended(place, attempt)


def _run(experiment: spec.Experiment, out: Console, address: str | None, as_json: bool) -> None:
    from ray_jobs import finish

    ended = finish.experiment(experiment, out, address)
    if as_json:
        typer.echo(json.dumps(ended.summary(), indent=2))
    else:
        show(ended, out)


def _send(
    experiment: spec.Experiment,
    there: Cluster,
    out: Console,
    *,
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from eagleray.client import package, runs
    from eagleray.state import runs as records

    _check(experiment)
    packed = package.pack(experiment)
    if dry_run:
        typer.echo(runs.plan(there, packed.run))
        return
    found = records.result(packed.run) if packed.settled else None
    if found is None:
        package.put(packed)
        attempt = runs.submit(there, packed.run)
        out.print(f"run {attempt.id}: {attempt.state}", soft_wrap=True)
        if detach:
            out.print(f"follow it with: {_attach(there, attempt)}", soft_wrap=True)
            return
        follow(there, attempt, to_stderr=as_json)
        found = records.result(packed.run) if as_json else None
    else:
        out.print(f"run {packed.run.id} has ended before: this is its result")
        if not as_json:
            typer.echo(found["page"])
    if as_json and found is not None:
        typer.echo(json.dumps(found["summary"], indent=2))


def _check(experiment: spec.Experiment) -> None:
    """Refuse here what the driver would refuse there; objects in S3 are left to the driver."""
    from ray_jobs.data import files, prepare

    if experiment.data.source.startswith("s3://"):
        return
    dataset = prepare.dataset(experiment)
    for misfit in prepare.misfits(experiment, dataset):
        raise DataError(misfit)
    experiment.metric(dataset.schema.target.task)
    for column in dataset.schema.columns:
        if column.kind.holds_paths and files.is_delimited(Path(experiment.data.source)):
            raise DataError(
                f"data.source: pictures must be in the table itself to travel to a cluster (bytes "
                f"in a Parquet file), but {column.name} names files"
            )


@contextmanager
def _leaving(place: Backend, attempt: Attempt) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        again = _attach(place, attempt)
        print(f"\ndetached: the run goes on; attach again with: {again}", file=sys.stderr)
        raise


def _attach(place: Backend, attempt: Attempt) -> str:
    return f"eagleray runs attach {attempt.id} {place.options}"
