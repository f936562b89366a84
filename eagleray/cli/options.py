"""Options that several commands take."""

from typing import Annotated

import typer

from eagleray.errors import UserError
from eagleray.storage import EMBEDDED as EMBEDDED

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: --set tune.trials=4"),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Storage = Annotated[
    str,
    typer.Option(
        "--storage", help="s3://bucket[/prefix] or file:///path.", envvar="EAGLERAY_STORAGE"
    ),
]
Address = Annotated[
    str | None, typer.Option(help="Ray's dashboard, http://head:8265; else this machine.")
]
Target = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Ray's dashboard (http://head:8265) to submit to, or a Ray cluster to join "
        "(host:6379); else one on this machine.",
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Submit, and do not follow.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted, as YAML.")]
Kubernetes = Annotated[bool, typer.Option("--kubernetes", help="A RayJob on Kubernetes.")]
Namespace = Annotated[
    str | None, typer.Option(help="Its namespace; else that of the current context.")
]
Release = Annotated[
    str | None, typer.Option(help="Kubernetes: release of the chart, if there are several.")
]
Cluster = Annotated[
    str | None, typer.Option(help="Kubernetes: a RayCluster that is there already.")
]
Queue = Annotated[str | None, typer.Option(help="Kubernetes: a LocalQueue of Kueue.")]
Priority = Annotated[str | None, typer.Option(help="Kubernetes: PriorityClass of its pods.")]
Suspend = Annotated[bool, typer.Option("--suspend", help="Kubernetes: create it, do not start it.")]
Deadline = Annotated[
    int | None, typer.Option(min=1, help="Kubernetes: seconds after which it is ended.")
]
Retries = Annotated[
    int | None, typer.Option(min=0, help="Kubernetes: how often a failed run is tried again.")
]


def group(about: str) -> typer.Typer:
    """A group of commands; typer would turn a group of one into a plain command."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=about)
    app.callback()(lambda: None)
    return app


def check_submitted(*, detach: bool, dry_run: bool) -> None:
    """UserError if a run that goes to no cluster is to be detached from, or only planned."""
    if detach or dry_run:
        option = "--detach" if detach else "--dry-run"
        raise UserError(f"{option}: must stand beside --kubernetes or --address http://…")


def overrides(assignments: list[str] | None) -> dict[str, str]:
    """Split `--set key=value` into YAML text by dotted key; the last value of a key wins."""
    texts = {}
    for assignment in assignments or []:
        key, sign, value = assignment.partition("=")
        if not (key and sign):
            raise UserError(f"--set: must be key=value, but got {assignment}")
        texts[key.strip()] = value
    return texts
