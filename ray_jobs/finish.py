"""An experiment from its file to its registered version: what `eagleray run` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich import console

from eagleray import code, errors, spec, storage
from eagleray.registry import Registry
from ray_jobs import cluster, records, search, winner
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
    result: records.Result
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


def experiment(
    chosen: spec.Experiment,
    out: console.Console,
    address: str | None = None,
    *,
    began: Callable[[str], None] = lambda _: None,
) -> Ended:
    """Search, judge and register; a search that has ended before gives its result.

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
    for note in dataset.notes:
        out.print(f"note: {note}", soft_wrap=True)
    search_id, kept = search.on_record(chosen, dataset, own)
    began(search_id)
    outcome = search.ended(chosen, dataset, own)
    if outcome is None:
        outcome = _searched(chosen, dataset, own, out, address)
    else:
        out.print(f"search {search_id} has ended before: this is its result")
    result = kept.result() or _judged(outcome, own)
    return _promoted(outcome, result)


def _searched(
    chosen: spec.Experiment,
    dataset: prepare.Dataset,
    own: dict[str, code.Code],
    out: console.Console,
    address: str | None,
) -> search.Outcome:
    _, kept = search.on_record(chosen, dataset, own)
    metric = chosen.metric(dataset.schema.target.task)
    epochs, _ = search.rungs(chosen)
    out.print(f"starting Ray {f'at {address}' if address else 'on this machine'}")
    try:
        with (
            cluster.connected(address),
            live.watch(chosen, metric, epochs, out, publish=kept.show) as watcher,
        ):
            return search.run(chosen, dataset, own, watcher)
    except KeyboardInterrupt:
        out.print("interrupted: the same command goes on from here")
        raise


def _judged(outcome: search.Outcome, own: dict[str, code.Code]) -> records.Result:
    judged = winner.judge(outcome, own)
    return winner.record(outcome, judged, winner.register(outcome, judged))


def _promoted(outcome: search.Outcome, result: records.Result) -> Ended:
    """The first version of a model becomes its champion; a later one waits for a person."""
    chosen = outcome.experiment
    registry = Registry(storage.open(chosen.storage))
    champion = registry.aliases(chosen.name).values.get("champion")
    if champion is None:
        why = "it is the champion, as the first version of this model"
        try:
            registry.promote(
                chosen.name, result.version, why="the first version", by="eagleray run"
            )
        except errors.ConflictError:
            return _promoted(outcome, result)
        return Ended(outcome, result, result.version, why)
    if champion == result.version:
        return Ended(outcome, result, champion, "it is the champion")
    why = f"version {champion} stays champion until you promote this one"
    return Ended(outcome, result, champion, why)
