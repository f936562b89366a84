"""The model that wins: the best trial, or the mean of several where that is better beyond noise."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from eagleray import bundle, spec
from eagleray.evaluation import ensembles
from eagleray.learn import metrics, schema
from eagleray.state import searches
from eagleray.state.evaluations import Ensemble, Evaluation, Member, Price, Verdict
from ray_jobs import bundles, checkpoints, latency, search
from ray_jobs.data import prepare

MOST_ROWS, MOST_OUTPUTS = 20_000, 20_000_000
"""Validation rows, and outputs of all candidates for them; of more, fewer rows are looked at."""


@dataclasses.dataclass(frozen=True)
class Best:
    """What wins a search: trials, each with its weight, the heaviest first."""

    members: Sequence[tuple[searches.Record, int]]
    validation: Mapping[str, float]  # metrics there
    ensemble: Ensemble | None = None  # None where none was looked for

    @property
    def weights(self) -> dict[str, float]:
        """The share of each trial in the mean, by its number; empty for one trial alone."""
        kept = self.ensemble if self.ensemble and self.ensemble.kept else None
        return {number: one.weight for number, one in kept.members.items()} if kept else {}

    def model(self, of: Callable[[searches.Record], bundle.Bundle]) -> bundle.Bundle:
        """The model of its only member, or the weighted mean of its members' models."""
        models = [(of(trial), weight) for trial, weight in self.members]
        return bundles.mean(models) if len(models) > 1 else models[0][0]

    def with_refits(self, numbers: Collection[int]) -> "Best":
        """The same, in which members with these trial numbers are marked as refits."""
        if self.ensemble is None:
            return self
        members = {
            number: one.model_copy(update={"refit": int(number) in numbers})
            for number, one in self.ensemble.members.items()
        }
        ensemble = self.ensemble.model_copy(update={"members": members})
        return dataclasses.replace(self, ensemble=ensemble)

    def annotate(self, judged: Evaluation) -> Evaluation:
        """The evaluation with what was found of ensembles."""
        if self.ensemble is None:
            return judged
        notes = [f"this version {self.ensemble}", *judged.notes]
        return judged.model_copy(update={"ensemble": self.ensemble, "notes": notes})


def best(searched: search.Search, trials: Sequence[searches.Record]) -> Best:
    """The first trial, or an ensemble as `tune.ensemble` bounds it.

    Raises:
        StorageError: the weights of the first trial are missing or corrupt; an ensemble does
            without other trials whose weights are.
    """
    alone = Best([(trials[0], 1)], trials[0].best)
    if searched.experiment.members == 1:
        return alone
    candidates, damaged = _candidates(searched, trials)
    found, members = _look(_Pool.of(searched, candidates), searched.experiment)
    found = found.model_copy(update={"damaged": damaged})
    if not found.kept:
        return dataclasses.replace(alone, ensemble=found)
    return Best(members, found.metrics, found)


class _Candidate(NamedTuple):
    """A trial that may be a member; `kind` is the type of its model."""

    trial: searches.Record
    kind: str
    model: bundle.Bundle


@dataclasses.dataclass(frozen=True)
class _Pool:
    """Candidates, the best first, and what they predict for the validation part."""

    candidates: Sequence[_Candidate]
    predicted: ensembles.Candidates
    row: schema.Columns  # one, to measure with

    @classmethod
    def of(cls, searched: search.Search, candidates: Sequence[_Candidate]) -> "_Pool":
        dataset = searched.dataset
        outputs = len(candidates) * candidates[0].model.task.width
        most = max(1, min(MOST_ROWS, MOST_OUTPUTS // outputs))
        rows = prepare.evenly_spaced(dataset.split.validation, most)
        columns, truth_B = dataset.take(rows), dataset.targets[rows]
        outputs_K = [one.model.predict_columns(columns).outputs for one in candidates]
        predicted = ensembles.Candidates(dataset.schema.target, truth_B, outputs_K, searched.metric)
        return cls(candidates, predicted, dataset.take(rows[:1]))

    def mean(self, times: Sequence[int]) -> bundle.Bundle:
        """The model that has each candidate so many times."""
        return bundles.mean([(one.model, count) for one, count in self._taken(times)])

    def members(self, times: Sequence[int]) -> list[tuple[searches.Record, int]]:
        """The trials that were selected, and how many times."""
        return [(one.trial, count) for one, count in self._taken(times)]

    def price(self, model: bundle.Bundle) -> Price:
        size = sum(map(len, model.engine.files().values()))
        return Price(latency_ms=latency.milliseconds(model, self.row), size=size)

    def fields(self, times: Sequence[int], verdict: Verdict | None) -> dict[str, object]:
        """Fields of `Ensemble` on members that were selected so many times."""
        members = {
            str(one.trial.number): Member(
                epoch=one.trial.best_epoch,
                model=one.kind,
                weight=count / sum(times),
                score=one.trial.score or 0.0,
            )
            for one, count in self._taken(times)
        }
        truth_B, outputs = self.predicted.truth_B, self.predicted.mean(times)
        scores = metrics.score(self.predicted.target, truth_B, outputs)
        return {"members": members, "metrics": scores, "verdict": verdict}

    def _taken(self, times: Sequence[int]) -> list[tuple[_Candidate, int]]:
        """Those that are taken, the heaviest first."""
        pairs = [pair for pair in zip(self.candidates, times, strict=True) if pair[1]]
        return sorted(pairs, key=lambda pair: -pair[1])


def _candidates(
    searched: search.Search, trials: Sequence[searches.Record]
) -> tuple[list[_Candidate], list[str]]:
    """The trials that have weights, the best first, and those whose weights are damaged."""
    found, damaged = list[_Candidate](), list[str]()
    for trial in trials:
        if not trial.weights or trial.status == "failed":
            continue
        kind = searched.experiment.configuration(trial.values).model.type
        try:
            model = bundles.of(searched, trial)
        except checkpoints.UNFIT as cause:
            if not found:
                raise
            damaged.append(f"trial {trial.number}: {cause}")
            continue
        found.append(_Candidate(trial, kind, model))
    return found, damaged


def _look(
    pool: _Pool, experiment: spec.Experiment
) -> tuple[Ensemble, list[tuple[searches.Record, int]]]:
    """The largest ensemble that is better than the best trial and fast enough, and its members.

    Without one, why there is none.
    """
    bound, most = experiment.tune.ensemble.latency_ms, experiment.members
    single = pool.price(pool.candidates[0].model)
    found = Ensemble(rows=len(pool.predicted.truth_B), single=single)
    if len(pool.candidates) == 1:
        return found.model_copy(update={"why": _LONE}), []
    while most > 1:
        times = ensembles.select(pool.predicted, most)
        if (taken := sum(map(bool, times))) < 2:
            return found.model_copy(update={"why": _ALONE}), []
        verdict = ensembles.gain(pool.predicted, most)
        found = found.model_copy(update=pool.fields(times, verdict))
        if verdict is None or verdict.outcome != "better":
            return found.model_copy(update={"why": _not_better(taken, verdict)}), []
        price = pool.price(pool.mean(times))
        if bound is None or price.latency_ms <= bound:
            return found.model_copy(update={"price": price, "kept": True}), pool.members(times)
        found = found.model_copy(update={"larger_ms": found.larger_ms or price.latency_ms})
        most = taken - 1
    law = f"more than tune.ensemble.latency_ms: {bound:g}"
    why = f"with others one row takes {found.larger_ms:.2g} ms or more, {law}"
    return found.model_copy(update={"why": why}), []


_LONE = "no other one has its weights in storage"
_ALONE = "none of the others improves its predictions"


def _not_better(taken: int, verdict: Verdict | None) -> str:
    what = f"the mean of {taken} trials"
    if verdict is None:
        return f"{what} cannot be compared with it on the validation part"
    gap = verdict.difference
    how = "is worse" if verdict.outcome == "worse" else "is no better beyond noise"
    return f"{what} {how} ({verdict.metric} {gap.value:+.2g}{gap.between('.2g')})"
