"""`eagleray deploy`: a release of the chart on Kubernetes, installed, updated, or shown."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli import options
from eagleray.cli.output import emit
from eagleray.errors import UserError

if TYPE_CHECKING:
    from k8s import api
    from k8s.deploy import Deployed, Wanted
    from k8s.status import Status

Wait = Annotated[
    int | None, typer.Option(min=1, help="Seconds to become ready in, else it is undone.")
]


def deploy(
    release: Annotated[str, typer.Argument(help="The release's name.")] = "eagleray",
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Deploy to Kubernetes (required).")
    ] = False,
    namespace: options.Namespace = None,
    model: Annotated[str | None, typer.Option(help="The model to serve.")] = None,
    storage: Annotated[str | None, typer.Option(help="Where its versions are: s3://….")] = None,
    values: Annotated[list[Path] | None, typer.Option(help="A file of the chart's values.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="One value: key=value.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget earlier values.")] = False,
    wait: Wait = None,
    force: Annotated[
        bool, typer.Option("--force-conflicts", help="Take over fields that others have set.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the objects, and change nothing.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Show its state.")] = False,
    as_json: options.Json = False,
) -> None:
    """Install or update a release of the chart by helm, or show its state."""
    if not kubernetes:
        raise UserError(
            "deploy: needs --kubernetes; on this machine a model is served by: eagleray serve NAME"
        )
    changes = {
        "--model": model,
        "--values": values,
        "--set": sets,
        "--reset": reset,
        "--wait": wait,
        "--force-conflicts": force,
    }
    given = next((name for name, value in changes.items() if value), None)
    if status and given:
        raise UserError(f"{given}: cannot stand beside --status, which changes nothing")
    from k8s import api
    from k8s import deploy as releases
    from k8s import status as state

    cluster = api.Api(namespace)
    if status:
        _show(state.summarize(release, state.read(cluster, release, storage)), as_json)
        return
    named = {"model.name": model, "storage.uri": storage}
    wanted = releases.Wanted(
        files=values or (),
        pairs=sets or (),
        named={key: text for key, text in named.items() if text},
        reset=reset,
        wait_s=wait,
        force=force,
    )
    done = _deployed(cluster, release, wanted, dry_run=dry_run)
    if dry_run and not as_json:
        typer.echo(_preview(done))
        return
    emit(done, as_json, table=[[line] for line in _lines(done)])


def _deployed(cluster: api.Api, release: str, wanted: Wanted, *, dry_run: bool) -> Deployed:
    from k8s import deploy as releases

    if sys.stderr.isatty() and not dry_run:
        print(f"{release}: helm is running; Ctrl-C undoes what it has done", file=sys.stderr)
    try:
        return releases.deploy(cluster, release, wanted, dry_run=dry_run)
    except KeyboardInterrupt:
        print(f"{release}: interrupted; nothing has changed, or it was undone", file=sys.stderr)
        raise


def _lines(done: Deployed) -> list[str]:
    head = f"{done.release}: {done.action}, revision {done.revision}, chart {done.chart}"
    return [f"{head}; {_counted(done)}", *done.notes.splitlines()]


def _preview(done: Deployed) -> str:
    """The objects as YAML, under a comment with the action on each."""
    import yaml

    lines = [f"# {done.release}: would be {done.action} in {done.namespace}; {_counted(done)}"]
    lines += [f"# {one.action} {one.kind} {one.name}" for one in done.changes]
    return "\n".join([*lines, yaml.safe_dump_all(done.manifest, sort_keys=False, width=1000)])


def _counted(done: Deployed) -> str:
    count = Counter(one.action for one in done.changes)
    order = ("created", "changed", "deleted", "kept")
    return ", ".join(f"{count[action]} {action}" for action in order if count[action])


def _show(found: Status, as_json: bool) -> None:
    emit(found, as_json, table=_facts(found))
    if not as_json:
        pods = [(one.name, one.part, "yes" if one.ready else "no", one.node) for one in found.pods]
        typer.echo()
        emit(found, as_json, table=[("POD", "PART", "READY", "NODE"), *pods])


def _facts(found: Status) -> list[tuple[str, object]]:
    versions = "storage is not reached from here"
    if found.aliases is not None:
        versions = " ".join(f"{name}={number}" for name, number in found.aliases.items()) or "none"
    return [
        ("release", f"{found.release}, {found.chart or '-'}, revision {found.revision or '-'}"),
        ("state", found.state),
        ("workers", f"{found.ready} ready of {'-' if found.wanted is None else found.wanted}"),
        ("model", f"{found.model or '-'}, following {found.alias or '-'}"),
        ("versions", versions),
        ("answering", found.answering),
        *(("endpoint", endpoint) for endpoint in found.endpoints),
        *((("cause", found.finding.message), ("fix", found.finding.fix)) if found.finding else ()),
    ]
