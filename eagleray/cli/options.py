"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Kubernetes = Annotated[bool, typer.Option("--kubernetes", help="A RayJob on Kubernetes.")]
Namespace = Annotated[
    str | None, typer.Option(help="Its namespace; else that of the current context.")
]
Release = Annotated[
    str | None, typer.Option(help="Kubernetes: whose release, if there are several.")
]
RayCluster = Annotated[
    str | None, typer.Option("--cluster", help="Kubernetes: a RayCluster that is there already.")
]
Queue = Annotated[str | None, typer.Option(help="Kubernetes: a LocalQueue of Kueue.")]
Priority = Annotated[str | None, typer.Option(help="Kubernetes: PriorityClass of its pods.")]
Suspend = Annotated[bool, typer.Option("--suspend", help="Kubernetes: create it, do not start it.")]
Deadline = Annotated[
    int | None, typer.Option(min=1, help="Kubernetes: seconds after which it is ended.")
]
Keep = Annotated[
    int | None, typer.Option(min=0, help="Kubernetes: seconds to keep its cluster after it.")
]
Retries = Annotated[
    int | None, typer.Option(min=0, help="Kubernetes: how often a failed run is tried again.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Storage = Annotated[
    str,
    typer.Option(
        "--storage", help="s3://bucket[/prefix] or file:///path.", envvar="EAGLERAY_STORAGE"
    ),
]
EMBEDDED = "s3://eagleray"
"""The bucket of the server that `eagleray local up` starts."""
