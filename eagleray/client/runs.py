"""Runs: experiments and batches sent to a backend, attempt after attempt, until one succeeds.

What belongs here: which attempt to attach to and when to make another, the same for every backend.
What does not: the backends `client.ray_jobs` (Ray's job server), `k8s.backend` (Kubernetes) and
`client.local` (searches on record in storage).
"""

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from eagleray import errors, names
from eagleray.state.runs import Run

State = Literal["waiting", "running", "unfinished", "succeeded", "failed", "stopped"]
"""`unfinished`: storage has no result, and no sign of a living driver."""
LIMIT = 47
"""Most letters of an attempt's id: KubeRay takes no longer name for a RayJob."""
RESUME = "the same command goes on from there"


@dataclass(frozen=True)
class Attempt:
    """One try at a run on a backend.

    Attributes:
        id: the backend's name for it; a DNS label.
        number: counted from 1.
        why: the backend's reason for its state.
        started: in ISO 8601; empty before it starts.
        exit_code: the driver's, if known.
        storage: URI of the storage that keeps the run's search, if known.
    """

    id: str
    name: str
    run: str
    number: int
    state: State
    why: str = ""
    started: str = ""
    exit_code: int | None = None
    storage: str = ""

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "running", "unfinished")


class Backend(Protocol):
    """Where drivers run. Every method raises `errors.UserError` and `errors.ClusterError`."""

    options: str
    """The options of the command line that select this backend."""

    def attempts(self) -> Sequence[Attempt]:
        """All attempts that the backend remembers."""

    def log(self, attempt: Attempt, *, follow: bool) -> Iterator[str]:
        """Pieces of the driver's output so far; with `follow`, until the attempt has ended."""

    def stop(self, attempt: Attempt) -> None:
        """End an attempt that is active."""


class Cluster(Backend, Protocol):
    """A backend that drivers can be sent to."""

    def most(self) -> Sequence[Mapping[str, float]] | None:
        """Resources of the nodes that trials can have at the most; None where that is unknown."""

    def plan(self, run: Run, number: int) -> str:
        """What `start` would send, as YAML."""

    def start(self, run: Run, number: int) -> None:
        """Make an attempt; ConflictError when this number is taken."""


def attempt_id(run: Run, number: int) -> str:
    """A DNS label of at most `LIMIT` letters; the run's id keeps shortened names apart."""
    end = f"-{run.id}-{number}"
    return run.name[: LIMIT - len(end)].rstrip("-") + end


def entrypoint(run: Run) -> str:
    """The command that drives a run inside the cluster; it holds no secret."""
    words = ["python", "-m", "eagleray", "runs", "drive", run.name, run.id]
    return shlex.join([*words, "--storage", run.storage])


def submit(cluster: Cluster, run: Run) -> Attempt:
    """Attach to the active attempt, or make the next one; concurrent calls make only one."""
    latest, number = _latest(cluster, run)
    if latest is not None and latest.active:
        return latest
    with contextlib.suppress(errors.ConflictError):  # another process was quicker
        cluster.start(run, number)
    started, _ = _latest(cluster, run)
    if started is None:
        raise errors.ClusterError(
            f"{attempt_id(run, number)}: the cluster accepted this attempt, but does not list it"
        )
    return started


def plan(cluster: Cluster, run: Run) -> str:
    """What `submit` would send, as YAML; a comment if it would attach."""
    latest, number = _latest(cluster, run)
    if latest is not None and latest.active:
        return f"# {latest.id}: {latest.state} already"
    return cluster.plan(run, number)


def find(backend: Backend, reference: str) -> Attempt:
    """The latest attempt whose id, run or experiment is `reference`, else NotFoundError."""
    known = sorted(backend.attempts(), key=lambda one: (one.started, one.number))
    called = [one for one in known if reference in (one.id, one.run, one.name)]
    if not called:
        near = names.near(reference, [name for one in known for name in (one.name, one.id)])
        raise errors.NotFoundError(f"run: no run is called {reference!r}{near}")
    return called[-1]


def raise_for_state(backend: Backend, attempt: Attempt) -> None:
    """Raise unless the attempt succeeded: UserError for a user's mistake, else ClusterError."""
    now = find(backend, attempt.id)
    if now.state == "succeeded":
        return
    users = now.exit_code == errors.UserError.exit_code
    why = f" ({now.why})" if now.why else ""
    error = errors.UserError if users else errors.ClusterError
    raise error(f"{now.id}: {now.state}{why}; {RESUME}")


def _latest(backend: Backend, run: Run) -> tuple[Attempt | None, int]:
    """The latest attempt at a run, and the number of the next."""
    same = [one for one in backend.attempts() if (one.name, one.run) == (run.name, run.id)]
    latest = max(same, key=lambda one: one.number, default=None)
    return latest, latest.number + 1 if latest else 1
