"""Predictions of files on Ray: on this machine, on a cluster that is joined, or as a run of one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eagleray import errors, storage
from eagleray.api import clusters
from eagleray.state import batches, runs
from eagleray.state.models import Registry, Version
from eagleray.tabular import sources

if TYPE_CHECKING:
    from rich.console import Console

    from eagleray.client.runs import Cluster
    from ray_jobs.batch.parts import Job

NAME = "predict-{model}"
"""The name of a run that predicts files."""
_LONGEST = 63  # letters of a DNS label


@dataclass(frozen=True)
class Places:
    """URIs: of the storage that has the model, of the files to predict, and of the output."""

    storage: str
    source: str
    output: str


def predict(
    version: Version,
    places: Places,
    options: batches.Options,
    *,
    address: str | None,
    cluster: Cluster | None,
    out: Console | None,
) -> batches.Result:
    """Predict files here, or on the cluster at the address; see `Model.predict_files`."""
    from rich import console

    target = cluster or clusters.cluster(address)
    job, out = make(version, places, options), out or console.Console(quiet=True)
    if target is None:
        return run(job, options.max_errors, address, out=out)
    result = submit(job, options.max_errors, target, out=out)
    assert result is not None  # it is followed
    return result


def make(version: Version, places: Places, options: batches.Options) -> Job:
    """Check what is to be predicted; nothing is written. Raises what `plan.make` raises."""
    from eagleray import compatibility
    from ray_jobs.batch import plan
    from ray_jobs.batch.limit import Limit
    from ray_jobs.batch.parts import Job

    Limit.parse(options.max_errors)
    known = compatibility.schema(Registry(storage.open(places.storage)), version)
    if known is None:
        law = "a version that can be loaded is needed"
        raise errors.ServingError(f"{version.name} version {version.number}: {law}")
    output = plan.place(places.output)
    return Job(plan.make(known, version, places.source, output, options), places.storage, output)


def run(job: Job, max_errors: str, address: str | None, *, out: Console) -> batches.Result:
    """Predict files with this process as the driver; see `Model.predict_files`."""
    from ray_jobs.batch import driver, plan
    from ray_jobs.batch.limit import Limit

    plan.make_folder(job.output)
    return driver.run(job, Limit.parse(max_errors), out, address)


def plan_run(job: Job, max_errors: str, cluster: Cluster) -> str:
    """What `submit` would send, as YAML; UserError where the cluster cannot reach the files."""
    from eagleray.client import runs as attempts

    _check_remote(job, cluster)
    return attempts.plan(cluster, _run(job, max_errors))


def submit(
    job: Job, max_errors: str, cluster: Cluster, *, out: Console, detach: bool = False
) -> batches.Result | None:
    """Send a batch to a cluster, or attach to its active attempt, and follow it to its end.

    A batch that has ended is not sent again: its result is returned. With `detach`, any other
    returns None at once.

    Raises:
        UserError: the cluster cannot reach the files.
        ConflictError: the output has predictions of another plan.
        EagleRayError: the attempt did not succeed.
    """
    from ray_jobs.batch.limit import Limit

    _check_remote(job, cluster)
    sent = _run(job, max_errors)
    with clusters.storage_reached(cluster):
        batch = batches.Batch(storage.open(job.output))
        batch.begin(job.plan)
        if (earlier := batch.result()) is not None:
            out.print("these predictions are finished already", soft_wrap=True)
            Limit.parse(max_errors).check(earlier.rows, earlier.errors, "", ended=True)
            return earlier
        runs.put(sent, batches.Request(output=job.output, max_errors=max_errors))
        if not clusters.drive(sent, cluster, out, detach=detach):
            return None
        result = batch.result()
    if result is None:
        raise errors.ClusterError(f"run {sent.id}: succeeded, but {job.output} has no result of it")
    return result


def _run(job: Job, max_errors: str) -> runs.Run:
    """The run of a batch: the same input, version, options and output find it again."""
    facts = [job.plan.model_dump(mode="json"), job.output, max_errors]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    name = NAME.format(model=job.plan.model)[:_LONGEST].rstrip("-")
    return runs.Run(name, digest[:12], job.storage)


def _check_remote(job: Job, cluster: Cluster) -> None:
    """UserError if only this machine has the model, the files or the output."""
    places = {"--storage": job.storage, "--input": job.plan.inputs[0].name, "--output": job.output}
    for option, uri in places.items():
        if not uri.startswith(sources.SCHEME):
            law = f"must be s3://… to be predicted with {cluster.options}"
            raise errors.UserError(f"{option}: {law}, but got {uri}")
