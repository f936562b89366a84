"""Which backend runs an experiment: Ray's job server, Kubernetes, or none but this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from eagleray.errors import AccessDeniedError, StorageUnavailableError, UserError

if TYPE_CHECKING:
    from eagleray.client.runs import Backend, Cluster


def select(
    address: str | None = None,
    *,
    kubernetes: bool = False,
    namespace: str | None = None,
    release: str | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Cluster | None:
    """The cluster to submit to; None when it is this machine, or a cluster to join.

    Args:
        address: of Ray's dashboard, or of a cluster to join.
        kubernetes: whether it is a RayJob.
        namespace: of the RayJob.
        release: whose skeleton.
        asked: fields of `k8s.rayjob.Options`; None for those that were not given.

    Raises:
        UserError: options that contradict each other, or lead nowhere.
    """
    if address is not None and kubernetes:
        raise UserError("--address: cannot stand beside --kubernetes")
    fields = {name: value for name, value in (asked or {}).items() if value is not None}
    given = {"namespace": namespace, "release": release, **fields}
    alone = [name.removesuffix("_s") for name, value in given.items() if value is not None]
    if alone and not kubernetes:
        raise UserError(f"--{alone[0]}: must stand beside --kubernetes")
    if kubernetes:
        from k8s import rayjob
        from k8s.backend import Kubernetes

        return Kubernetes(namespace, rayjob.Options(**fields), release)
    if address is not None and address.startswith(("http://", "https://")):
        from eagleray.client import ray_jobs

        return ray_jobs.RayJobs(address)
    return None


def find(address: str | None, *, kubernetes: bool, namespace: str | None, storage: str) -> Backend:
    """Where runs are looked for: on a cluster, or among those that a storage has on record.

    Raises:
        UserError: an address that is no dashboard's.
    """
    backend = select(address, kubernetes=kubernetes, namespace=namespace)
    if backend is not None:
        return backend
    if address is not None:
        raise UserError(
            f"--address: must be http://host:8265 of Ray's dashboard, but got {address}"
        )
    from eagleray.client import local

    return local.LocalRuns(storage)


@contextmanager
def reaching(backend: Cluster) -> Iterator[None]:
    """Say how to reach a storage that is inside the cluster, where it could not be used."""
    try:
        yield
    except (AccessDeniedError, StorageUnavailableError) as cause:
        from k8s.backend import Kubernetes

        way = backend.tunnel() if isinstance(backend, Kubernetes) else None
        if way is None or "AWS_ENDPOINT_URL_S3" in os.environ:
            raise
        raise type(cause)(
            f"storage: must be reached from here too, but it is inside the cluster; lead a port to "
            f"it: {way}"
        ) from cause
