"""Runs on a backend: Ray's job server, Kubernetes, or what a storage has on record."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagleray import errors, spec
from eagleray.api.results import Result
from eagleray.client.runs import Attempt, Backend, Cluster
from eagleray.findings import Explanation
from eagleray.state import runs as records

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


def plan(experiment: spec.Experiment, cluster: Cluster) -> str:
    """Return what `submit` would send, as YAML."""
    from eagleray.client import package, runs

    with storage_reached(cluster):
        _check(experiment, cluster)
        return runs.plan(cluster, package.pack(experiment).run)


def run_local(
    experiment: spec.Experiment, out: Console, address: str | None = None, *, show: bool = False
) -> Result:
    """Run the driver in this process, on local Ray or on the cluster at `address`."""
    from ray_jobs import pipeline

    outcome = pipeline.run(experiment, out, address)
    if show:
        outcome.show(out)
    return Result(outcome.summary(), outcome.page(), experiment.storage)


def submit(
    experiment: spec.Experiment,
    cluster: Cluster,
    out: Console,
    *,
    detach: bool = False,
    show: bool = False,
) -> Result | None:
    """Send an experiment to a cluster, or attach to its active attempt, and follow it to its end.

    A run that has a result is not sent again: the result is returned, and printed with `show`. With
    `detach`, a run without a result returns None at once.

    Raises:
        UserError: the file, or the data that can be read here, is at fault.
        EagleRayError: the attempt did not succeed.
    """
    from eagleray.client import package

    with storage_reached(cluster):
        _check(experiment, cluster)
        packed = package.pack(experiment)
        run = packed.run
        if packed.settled and (earlier := records.find(run, records.Result)):
            out.print(f"run {run.id} has already ended; returning its result")
            if show:
                out.out(earlier.page, highlight=False)
            return Result(earlier.summary, earlier.page, run.storage)
        package.put(packed)
        if not drive(run, cluster, out, detach=detach):
            return None
        result = records.find(run, records.Result)
    if result is None:
        raise errors.ClusterError(f"run {run.id}: succeeded, but storage has no result of it")
    return Result(result.summary, result.page, run.storage)


def drive(run: records.Run, cluster: Cluster, out: Console, *, detach: bool) -> bool:
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


def explain(
    name: str,
    address: str | None = None,
    *,
    namespace: str | None = None,
    storage: str | None = None,
) -> list[Explanation]:
    """Why a run or its trials wait or failed, or a model does not answer.

    Kubernetes is asked, and storage: `storage`, or the embedded one while it runs.

    Args:
        name: of an attempt, run, search, experiment, release, RayService or model.
        address: of Ray's dashboard, which alone is asked then.
        namespace: on Kubernetes; kubectl's by default.
        storage: where searches and models are.

    Raises:
        NotFoundError: nothing is called so.
        UserError: there is neither a cluster to ask nor a storage.
    """
    from eagleray.client import local, runs
    from eagleray.storage import EMBEDDED, server

    if address is not None:
        there = backend(address, kubernetes=False, namespace=None, storage="")
        return [_explained(runs.find(there, name))]
    place = storage or (EMBEDDED if server.default_environment() else None)
    recorded = None
    with contextlib.suppress(errors.NotFoundError, errors.StorageError):
        recorded = runs.find(local.LocalRuns(place), name) if place and not namespace else None
    try:
        found = _on_kubernetes(name, namespace, storage)
    except errors.UserError:
        if recorded is None:
            raise
        found = []
    if recorded is None or any(one.kind == "RayJob" for one in found):
        return found
    found = [one for one in found if one.kind != "Cluster"]  # no answer
    return [_explained(recorded), *found] if recorded.active or not found else found


def _explained(attempt: Attempt) -> Explanation:
    from eagleray.client import screen, waits

    return waits.explain(attempt, screen.view(attempt), time.time())


def _on_kubernetes(name: str, namespace: str | None, storage: str | None) -> list[Explanation]:
    from k8s import api, diagnose
    from k8s.diagnose import snapshot

    return [diagnose.explain(one) for one in snapshot.read(api.Api(namespace), name, storage)]


def _attach(backend: Backend, attempt: Attempt) -> str:
    return f"eagleray runs attach {attempt.id} {backend.options}"


def _check(experiment: spec.Experiment, target: Cluster) -> None:
    """Check an experiment as the driver will; objects in S3 are left to the driver."""
    from eagleray.tabular import files
    from ray_jobs import cluster, search

    if (nodes := target.most()) is not None:
        cluster.fit(nodes, experiment.compute)
    if experiment.data.source.startswith("s3://"):
        return
    for column in search.Search(experiment).dataset.schema.columns:
        if column.kind.holds_paths and files.is_delimited(Path(experiment.data.source)):
            raise errors.DataError(
                f"data.source: pictures must be in the table itself to travel to a cluster (bytes "
                f"in a Parquet file), but {column.name} names files"
            )
