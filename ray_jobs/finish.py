"""An experiment from its file to its registered version: what `eagleray run` does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich import console

from eagleray import code, errors, spec, storage
from eagleray.state import leases, searches
from eagleray.state.models import Registry
from ray_jobs import cluster, drivers, search, winner
from ray_jobs.data import prepare
from ray_jobs.report import live


@dataclass(frozen=True)
class Ended:
    """An experiment that has come to its end.

    Attributes:
        outcome: the search.
        result: the winner, judged.
        champion: the version that answers requests now.
        why: what was done with the alias, and why, for people.
    """

    outcome: search.Outcome
    result: searches.Result
    champion: int
    why: str

    def summary(self) -> dict[str, Any]:
        """The whole as JSON may hold it."""
        best = self.outcome.winner
        return {
            "name": self.outcome.experiment.name,
            "search": self.outcome.search_id,
            "version": self.result.version,
            "champion": self.champion,
            "why": self.why,
            "metric": self.outcome.metric,
            "winner": {"trial": best.number, "values": best.values, "validation": best.best},
            **self.result.model_dump(include={"test", "confusion", "confused", "warnings"}),
            "trials": [
                one.model_dump(include={"number", "status", "score", "epoch", "failure", "values"})
                for one in self.outcome.trials
            ],
        }

    def next_steps(self) -> list[str]:
        """The commands that one would want next."""
        experiment, version = self.outcome.experiment, self.result.version
        at = f"--storage {experiment.storage}"
        serve = f"eagleray serve {experiment.name} {at}"
        if self.champion == version:
            return [serve]
        name = experiment.name
        return [
            f"eagleray models diff {name} {self.champion} {version} {at}",
            f"eagleray models promote {name} {version} {at}",
        ]


@dataclass(frozen=True)
class _Task:
    """What is searched, and where it is told how that goes."""

    chosen: spec.Experiment
    dataset: prepare.Dataset
    own: dict[str, code.Code]
    out: console.Console
    address: str | None


def experiment(
    chosen: spec.Experiment,
    out: console.Console,
    address: str | None = None,
    *,
    began: Callable[[str], None] = lambda _: None,
) -> Ended:
    """Search, judge and register; a search that has ended before gives its result.

    One that ended with fewer trials than are asked for now goes on from these. While another driver
    is at the same search this one watches, gives the same result, and takes over should the other
    come to nothing.

    Args:
        chosen: the experiment.
        out: where to tell how it goes.
        address: of the Ray cluster; else one on this machine.
        began: is told the search's id before it starts.

    Raises:
        EagleRayError: see `eagleray.errors`; nothing is half-registered.
    """
    own = chosen.code()
    dataset = prepare.dataset(chosen)
    for misfit in prepare.misfits(chosen, dataset):
        raise errors.DataError(misfit)
    for note in [*dataset.notes, *_limits(chosen)]:
        out.print(f"note: {note}", soft_wrap=True)
    search_id, kept = search.on_record(chosen, dataset, own)
    began(search_id)
    task = _Task(chosen, dataset, own, out, address)
    ended = _ended(task)
    if ended is not None:
        out.print(f"search {search_id} has ended before: this is its result")
        return ended
    watcher = kept.watcher()
    while True:
        lease = drivers.wait(kept, watcher, out)
        try:
            with drivers.holding(lease):
                return _ended(task) or _driven(task, lease)
        except errors.LeaseLostError:
            out.print("this search was taken over by another driver", soft_wrap=True)


def _ended(task: _Task) -> Ended | None:
    """What came of the search, where it has come to its end."""
    outcome = search.ended(task.chosen, task.dataset, task.own)
    if outcome is None or outcome.result is None:
        return None
    return _promoted(outcome, outcome.result)


def _driven(task: _Task, lease: leases.Lease) -> Ended:
    """Search under the lease where there is something left to try, judge and register."""
    _, kept = search.on_record(task.chosen, task.dataset, task.own, lease)
    kept.adopt()
    outcome = search.ended(task.chosen, task.dataset, task.own) or _searched(task, kept)
    judged = winner.judge(outcome, task.own)
    lease.verify()
    result = winner.record(outcome, judged, winner.register(outcome, judged), kept)
    return _promoted(outcome, result)


def _searched(task: _Task, kept: searches.Records) -> search.Outcome:
    chosen, dataset, own, out = task.chosen, task.dataset, task.own, task.out
    metric = chosen.metric(dataset.schema.target.task)
    epochs, _ = search.rungs(chosen)
    out.print(f"starting Ray {f'at {task.address}' if task.address else 'on this machine'}")
    try:
        with (
            cluster.connected(task.address),
            live.watch(chosen, metric, epochs, out, publish=kept.show) as watcher,
        ):
            return search.run(chosen, dataset, own, watcher, kept)
    except KeyboardInterrupt:
        out.print("interrupted: the same command goes on from here")
        raise


def _limits(chosen: spec.Experiment) -> Iterator[str]:
    if 1 < chosen.trials < chosen.tune.trials:
        yield (
            f"tune.trials: {chosen.tune.trials} asked for, but the space has {chosen.trials} "
            "configurations: each is tried once"
        )


def _promoted(outcome: search.Outcome, result: searches.Result) -> Ended:
    """The first version of a model becomes its champion; a later one waits for a person.

    Of two searches that end together one makes the champion, and the other is told.
    """
    chosen = outcome.experiment
    registry = Registry(storage.open(chosen.storage))
    with contextlib.suppress(errors.ConflictError):
        registry.promote(
            chosen.name, result.version, why="the first version", by="eagleray run", expect=None
        )
    aliases = registry.aliases(chosen.name)
    champion = aliases.values["champion"]
    if champion != result.version:
        why = f"version {champion} stays champion until you promote this one"
    elif aliases.history.get("champion"):
        why = "it is the champion"
    else:
        why = "it is the champion, as the first version of this model"
    return Ended(outcome, result, champion, why)
