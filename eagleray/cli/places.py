"""Where runs are: what `--address`, `--kubernetes` and `--namespace` lead to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eagleray.errors import AccessDeniedError, StorageUnavailableError, UserError

if TYPE_CHECKING:
    from eagleray.client.runs import Cluster

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


@contextmanager
def reaching(there: Cluster) -> Iterator[None]:
    """Say how to get at a storage that is inside the cluster, where it could not be used."""
    try:
        yield
    except (AccessDeniedError, StorageUnavailableError) as cause:
        from k8s import place

        way = there.tunnel() if isinstance(there, place.Kubernetes) else None
        if way is None or "AWS_ENDPOINT_URL_S3" in os.environ:
            raise
        raise type(cause)(
            f"storage: must be reached from here too, but it is inside the cluster; lead a port to "
            f"it: {way}"
        ) from cause


def cluster(
    address: str | None,
    *,
    kubernetes: bool,
    namespace: str | None,
    asked: Mapping[str, Any] | None = None,
    release: str | None = None,
) -> Cluster | None:
    """The cluster to send to; None when it is this machine, or a cluster to join.

    Args:
        address: of Ray's dashboard, or of a cluster to join.
        kubernetes: whether it is a RayJob.
        namespace: of the RayJob.
        asked: fields of `k8s.rayjob.Options` that were given.
        release: whose skeleton.

    Raises:
        UserError: options that contradict each other, or lead nowhere.
    """
    if address is not None and kubernetes:
        raise UserError("--address: cannot stand beside --kubernetes")
    given = {"namespace": namespace, "release": release, **(asked or {})}
    alone = [name.removesuffix("_s") for name, value in given.items() if value is not None]
    if alone and not kubernetes:
        raise UserError(f"--{alone[0]}: must stand beside --kubernetes")
    if kubernetes:
        from k8s import place, rayjob

        return place.Kubernetes(namespace, rayjob.Options(**asked or {}), release)
    if address is not None and address.startswith(("http://", "https://")):
        from eagleray.client import ray_jobs

        return ray_jobs.RayJobs(address)
    return None
