"""An experiment from its file to its registered version: what `eagleray run` does.

One driver a search: who holds the search's lease drives it; the others show what it does, from
storage, and may take over.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich import console

from eagleray import errors, spec
from eagleray.client import screen
from eagleray.state import leases, searches
from eagleray.state.models import Registry
from ray_jobs import cluster, search, tuning, winner
from ray_jobs.report import live

POLL_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """An experiment that has come to its end.

    Attributes:
        search: what was searched.
        trials: all of them, the best first.
        result: the winner, evaluated.
        champion: the version that answers requests now.
        why: what was done with the alias, and why, for people.
    """

    search: search.Search
    trials: list[searches.Record]
    result: searches.Result
    champion: int
    why: str

    @property
    def winner(self) -> searches.Record:
        """The trial with the best score on the validation part."""
        return self.trials[0]

    def summary(self) -> dict[str, Any]:
        """The whole as JSON may hold it."""
        best = self.winner
        return {
            "name": self.search.experiment.name,
            "search": self.search.id,
            "version": self.result.version,
            "champion": self.champion,
            "why": self.why,
            "metric": self.search.metric,
            "winner": {"trial": best.number, "values": best.values, "validation": best.best},
            **self.result.model_dump(include={"test", "confusion", "confused", "warnings"}),
            "trials": [
                one.model_dump(include={"number", "status", "score", "epoch", "failure", "values"})
                for one in self.trials
            ],
        }

    def next_steps(self) -> list[str]:
        """The commands that one would want next."""
        name, version = self.search.experiment.name, self.result.version
        at = f"--storage {self.search.experiment.storage}"
        if self.champion == version:
            return [f"eagleray serve {name} {at}"]
        return [
            f"eagleray models diff {name} {self.champion} {version} {at}",
            f"eagleray models promote {name} {version} {at}",
        ]


def run(
    experiment: spec.Experiment,
    out: console.Console,
    address: str | None = None,
    *,
    began: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Search, evaluate and register; a search that has ended before gives its result.

    One that ended with fewer trials than are asked for now goes on from these. While another driver
    is at the same search this one watches, gives the same result, and takes over should the other
    come to nothing.

    Args:
        experiment: what is searched.
        out: where progress is printed.
        address: of the Ray cluster; else one on this machine.
        began: called with the search's id before it starts.

    Raises:
        EagleRayError: see `eagleray.errors`; nothing is half-registered.
    """
    searched = search.Search(experiment)
    for note in [*searched.dataset.notes, *_limits(experiment)]:
        out.print(f"note: {note}", soft_wrap=True)
    began(searched.id)
    if (outcome := _finished(searched)) is not None:
        out.print(f"search {searched.id} has ended before: this is its result")
        return outcome
    watcher = searched.records.watcher()
    while True:
        lease = _take(searched, watcher, out)
        try:
            with _holding(lease):
                return _finished(searched) or _drive(searched, lease, out, address)
        except errors.LeaseLostError:
            out.print("this search was taken over by another driver", soft_wrap=True)


def _finished(searched: search.Search) -> Outcome | None:
    """The outcome of a search that was finished and evaluated before."""
    found = searched.finished()
    if found is None or found.result is None:
        return None
    return _promote(searched, found.trials, found.result)


def _drive(
    searched: search.Search, lease: leases.Lease, out: console.Console, address: str | None
) -> Outcome:
    """Search under the lease where there is something left to try, evaluate and register."""
    searched.hold(lease)
    found = searched.finished()
    trials = found.trials if found else _tune(searched, out, address)
    evaluated = winner.evaluate(searched, trials[0])
    lease.verify()
    return _promote(searched, trials, winner.register(searched, trials[0], evaluated))


def _tune(
    searched: search.Search, out: console.Console, address: str | None
) -> list[searches.Record]:
    experiment, publish = searched.experiment, searched.records.save
    epochs, _ = search.rungs(experiment)
    out.print(f"starting Ray {f'at {address}' if address else 'on this machine'}")
    try:
        with (
            cluster.connected(address),
            live.watch(experiment, searched.metric, epochs, out, publish=publish) as watcher,
        ):
            return tuning.run(searched, watcher)
    except KeyboardInterrupt:
        out.print("interrupted: the same command goes on from here")
        raise


def _limits(experiment: spec.Experiment) -> Iterator[str]:
    if 1 < experiment.trials < experiment.tune.trials:
        yield (
            f"tune.trials: {experiment.tune.trials} asked for, but the space has "
            f"{experiment.trials} configurations: each is tried once"
        )


def _promote(
    searched: search.Search, trials: list[searches.Record], result: searches.Result
) -> Outcome:
    """The first version of a model becomes its champion; a later one waits for a person.

    Of two searches that end together one makes the champion, and the other is told.
    """
    registry, name = Registry(searched.storage), searched.experiment.name
    with contextlib.suppress(errors.ConflictError):
        registry.promote(
            name, result.version, why="the first version", by="eagleray run", expect=None
        )
    aliases = registry.aliases(name)
    champion = aliases.values["champion"]
    if champion != result.version:
        why = f"version {champion} stays champion until you promote this one"
    elif aliases.history.get("champion"):
        why = "it is the champion"
    else:
        why = "it is the champion, as the first version of this model"
    return Outcome(searched, trials, result, champion, why)


def _take(searched: search.Search, watcher: leases.Watcher, out: console.Console) -> leases.Lease:
    """Take the lease of a search; show the search as long as another driver holds it."""
    lease = watcher.acquire()
    if lease is not None:
        return lease
    holder = watcher.document.owner
    out.print(f"{holder} drives this search: watching it; Ctrl-C leaves it alone", soft_wrap=True)
    with screen.trials(searched.records, out) as refresh:
        while lease is None:
            time.sleep(POLL_S)
            with contextlib.suppress(errors.StorageUnavailableError):
                lease = watcher.acquire()
                refresh()
    return lease


@contextlib.contextmanager
def _holding(lease: leases.Lease) -> Iterator[None]:
    """Renew a lease in the background, and leave it to the next at the end."""
    with screen.beating(leases.BEAT_S, lease.beat):
        try:
            yield
        finally:
            with contextlib.suppress(errors.StorageError):  # then it runs out by itself
                lease.release()
