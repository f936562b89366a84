"""Runs: an experiment on this machine or sent to a cluster, and why a run waits."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from eagleray import errors, spec
from eagleray.api import clusters
from eagleray.api.results import Result
from eagleray.client.runs import Attempt, Cluster
from eagleray.findings import Explanation
from eagleray.state import runs as records

if TYPE_CHECKING:
    from rich.console import Console


def plan(experiment: spec.Experiment, cluster: Cluster) -> str:
    """Return what `submit` would send, as YAML."""
    from eagleray.client import package, runs

    with clusters.storage_reached(cluster):
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

    with clusters.storage_reached(cluster):
        _check(experiment, cluster)
        packed = package.pack(experiment)
        run = packed.run
        if packed.settled and (earlier := records.find(run, records.Result)):
            out.print(f"run {run.id} has already ended; returning its result")
            if show:
                out.out(earlier.page, highlight=False)
            return Result(earlier.summary, earlier.page, run.storage)
        package.put(packed)
        if not clusters.drive(run, cluster, out, detach=detach):
            return None
        result = records.find(run, records.Result)
    if result is None:
        raise errors.ClusterError(f"run {run.id}: succeeded, but storage has no result of it")
    return Result(result.summary, result.page, run.storage)


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
        there = clusters.backend(address, kubernetes=False, namespace=None, storage="")
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
