"""An experiment submitted to a cluster: packed, started, followed, and its result read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eagleray import spec
from eagleray.api import backends
from eagleray.api.results import Result
from eagleray.client import package, runs
from eagleray.client.runs import Attempt, Backend, Cluster
from eagleray.errors import ClusterError, DataError
from eagleray.state import runs as records

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Submission:
    """A run on a cluster.

    Attributes:
        attempt: the one that was started or is under way; None where the run has ended before.
    """

    backend: Cluster
    run: records.Run
    attempt: Attempt | None

    @property
    def attach(self) -> str:
        """The command that follows it."""
        return attach(self.backend, self.attempt) if self.attempt else ""

    def follow(self, out: Console) -> None:
        """Print its log until it has ended; see `follow` below."""
        if self.attempt is not None:
            with backends.reaching(self.backend):
                follow(self.backend, self.attempt, out)

    def result(self) -> Result:
        """What came of it, once it has ended.

        Raises:
            ClusterError: it left no result.
        """
        with backends.reaching(self.backend):
            found = records.result(self.run)
        if found is None:
            raise ClusterError(f"run {self.run.id}: must have left a result, but has none")
        return Result(found.summary, found.page, self.run.storage)


def plan(experiment: spec.Experiment, backend: Cluster) -> str:
    """Return what `submit` would send, as YAML."""
    with backends.reaching(backend):
        _check(experiment)
        return runs.plan(backend, package.pack(experiment).run)


def submit(experiment: spec.Experiment, backend: Cluster, out: Console) -> Submission:
    """Send an experiment to a cluster, or attach to the attempt that is under way.

    Raises:
        UserError: what the driver would refuse there is refused here.
    """
    with backends.reaching(backend):
        _check(experiment)
        packed = package.pack(experiment)
        if packed.settled and records.result(packed.run) is not None:
            out.print(f"run {packed.run.id} has ended before: this is its result")
            return Submission(backend, packed.run, None)
        package.put(packed)
        attempt = runs.submit(backend, packed.run)
    out.print(f"run {attempt.id}: {attempt.state}", soft_wrap=True)
    return Submission(backend, packed.run, attempt)


def follow(backend: Backend, attempt: Attempt, out: Console) -> None:
    """Print what the driver prints until the attempt has ended; Ctrl-C leaves it running.

    Raises:
        EagleRayError: the attempt did not succeed.
    """
    from eagleray.client import screen

    with _leaving(backend, attempt), screen.following(attempt, out) as write:
        for text in screen.shown(backend.log(attempt, follow=True), out.file):
            write(text)
    runs.ended(backend, attempt)


def attach(backend: Backend, attempt: Attempt) -> str:
    """The command that follows an attempt."""
    return f"eagleray runs attach {attempt.id} {backend.options}"


@contextmanager
def _leaving(backend: Backend, attempt: Attempt) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        again = attach(backend, attempt)
        print(f"\ndetached: the run goes on; attach again with: {again}", file=sys.stderr)
        raise


def _check(experiment: spec.Experiment) -> None:
    """Refuse here what the driver would refuse there; objects in S3 are left to the driver."""
    from eagleray.tabular import files
    from ray_jobs.data import prepare

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
