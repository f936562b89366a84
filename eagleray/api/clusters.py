"""Clusters that runs are sent to, and what is under way there."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from eagleray import errors
from eagleray.client.runs import Attempt, Backend, Cluster
from eagleray.state.runs import Run

if TYPE_CHECKING:
    from rich.console import Console


def cluster(
    address: str | None = None,
    *,
    kubernetes: bool = False,
    namespace: str | None = None,
    release: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Cluster | None:
    """The cluster to submit to; None for this machine, or for a cluster to join.

    Args:
        address: of Ray's dashboard, or of a cluster to join.
        kubernetes: whether to make a RayJob.
        namespace: of the RayJob.
        release: of the chart, whose RayJob skeleton is used.
        options: fields of `k8s.rayjob.Options`; None for those that were not given.

    Raises:
        UserError: options that contradict each other.
    """
    if address is not None and kubernetes:
        raise errors.UserError("--address: cannot stand beside --kubernetes")
    fields = {name: value for name, value in (options or {}).items() if value is not None}
    if kubernetes:
        from k8s import rayjob
        from k8s.backend import Kubernetes

        return Kubernetes(namespace, rayjob.Options(**fields), release)
    for name, value in {"namespace": namespace, "release": release, **fields}.items():
        if value is not None:
            option = name.removesuffix("_s")
            raise errors.UserError(f"--{option}: must stand beside --kubernetes")
    if address is not None and address.startswith(("http://", "https://")):
        from eagleray.client.ray_jobs import RayJobs

        return RayJobs(address)
    return None


def backend(
    address: str | None, *, kubernetes: bool, namespace: str | None, storage: str
) -> Backend:
    """Where to look for runs: a cluster, or storage; UserError for a cluster to join."""
    if found := cluster(address, kubernetes=kubernetes, namespace=namespace):
        return found
    if address is not None:
        raise errors.UserError(
            f"--address: must be http://host:8265 of Ray's dashboard, but got {address}"
        )
    from eagleray.client.local import LocalRuns

    return LocalRuns(storage)


def drive(run: Run, cluster: Cluster, out: Console, *, detach: bool) -> bool:
    """Make an attempt at a run that was sent, or attach to the active one; follow it to its end.

    False with `detach`, at once; raises as `follow`.
    """
    from eagleray.client import runs

    attempt = runs.submit(cluster, run)
    out.print(f"run {attempt.id}: {attempt.state}", soft_wrap=True)
    if detach:
        out.print(f"follow it with: {_attach(cluster, attempt)}", soft_wrap=True)
        return False
    follow(cluster, attempt, out)
    return True


def follow(backend: Backend, attempt: Attempt, out: Console) -> None:
    """Print an attempt's log until it ends; raise unless it succeeded. Ctrl-C leaves it running."""
    from eagleray.client import runs, screen

    try:
        screen.print_log(backend.log(attempt, follow=True), attempt, out)
    except KeyboardInterrupt:
        again = _attach(backend, attempt)
        print(f"\ndetached: the run goes on; attach again with: {again}", file=sys.stderr)
        raise
    runs.raise_for_state(backend, attempt)


@contextlib.contextmanager
def storage_reached(cluster: Cluster | None) -> Iterator[None]:
    """Add to a storage error the command that reaches storage inside a cluster."""
    try:
        yield
    except (errors.AccessDeniedError, errors.StorageUnavailableError) as cause:
        if cluster is None:
            raise
        from k8s.backend import Kubernetes

        tunnel = cluster.tunnel() if isinstance(cluster, Kubernetes) else None
        if tunnel is None or "AWS_ENDPOINT_URL_S3" in os.environ:
            raise
        raise type(cause)(
            "storage: must be reachable from here too, but it is inside the cluster; forward its "
            f"port: {tunnel}"
        ) from cause


def _attach(backend: Backend, attempt: Attempt) -> str:
    return f"eagleray runs attach {attempt.id} {backend.options}"
