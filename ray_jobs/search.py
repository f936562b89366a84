"""A search: an experiment, its data, and its records in storage.

The same file, code and data give the same search id: run again, an interrupted search resumes, and
one that has ended returns its result.
"""

import copy
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eagleray import errors, spec, storage
from eagleray.learn import features, metrics
from eagleray.spec import auto, reading
from eagleray.state import leases, searches
from ray_jobs.data import encoded, extent, prepare

MIN_FAILURES = 3
"""A search ends when this many trials have ended, all of them failed with the same cause."""


class Search:
    """An experiment with its data, read once, and its records.

    `size` is what `extent.measure` gave, if it was called. Data larger than memory are read on the
    Ray cluster that this process is connected to, else on one of this machine alone.

    Attributes:
        custom: the user's code by its name in the file.
        metric: compares trials; a name of `eagleray.learn.metrics`.
        mode: whether its "max" or its "min" is best.
        refits: the trials of a search that trains others anew, see `ray_jobs.refit`.

    Raises:
        EagleRayError: the data or the code is at fault, or does not fit the experiment.
    """

    def __init__(self, experiment: spec.Experiment, size: extent.Extent | None = None) -> None:
        self.dataset = _dataset(experiment, size or extent.measure(experiment))
        experiment = experiment.fitted(prepare.column_types(experiment, self.dataset))
        self.experiment = experiment
        if misfits := list(prepare.misfits(experiment, self.dataset)):
            raise errors.DataError(*misfits)
        self.metric = experiment.metric(self.dataset.schema.target.task)
        self.mode = metrics.REGISTRY[self.metric].mode
        self.custom = experiment.code()
        self.id = self._id(experiment)
        self.refits: Sequence[searches.Record] = ()
        self._transforms: dict[str, features.Transforms] = {}

    @functools.cached_property
    def storage(self) -> storage.Storage:
        return storage.open(self.experiment.storage)

    @functools.cached_property
    def records(self) -> searches.Records:
        return searches.Records(self.storage, self.experiment.name, self.id)

    def resumed(self) -> "Search":
        """This search, or the one that an earlier release began of a file that names no model."""
        before, made = self.experiment.with_earlier_model(), copy.copy(self)
        if before is self.experiment:
            return self
        made.experiment, made.id = before, self._id(before)
        made.records = searches.Records(self.storage, before.name, made.id)
        known = searches.all_of(self.storage, before.name)
        return made if made.id in {one.search_id for one in known} else self

    def write_under(self, lease: leases.Lease) -> None:
        """Write records under this lease from now on, and adopt those of earlier drivers."""
        self.records = searches.Records(self.storage, self.experiment.name, self.id, lease)
        self.records.adopt()
        self.records.define(self.definition)

    @property
    def definition(self) -> searches.Definition:
        code = {name: one.sha256 for name, one in self.custom.items()}
        settings, rows = self.experiment.counted(), self.dataset.fingerprint
        return searches.Definition(settings=settings, rows=rows, code=code)

    def predecessors(self) -> dict[str, list[str]]:
        """Unfinished searches of this name by id, and in what this one differs from each."""
        found = {}
        for one in searches.all_of(self.storage, self.experiment.name):
            then = None if one.search_id == self.id or one.result() else one.definition()
            if then is not None:
                found[one.search_id] = self.definition.differences(then)
        return found

    def transforms(self, configuration: spec.Configuration) -> features.Transforms:
        """The transforms of a configuration; fitted once for each setting of `features`."""
        key = encoded.key(configuration.features)
        if key not in self._transforms:
            self._transforms[key] = self.dataset.fit(configuration.features)
        return self._transforms[key]

    def anew(self, experiment: spec.Experiment, refits: Sequence[searches.Record]) -> "Search":
        """The same with refits as its trials, and their rows."""
        made = copy.copy(self)
        made.experiment, made.refits = experiment, refits
        made.dataset, made._transforms = self.dataset.whole(), {}
        return made

    def finished(self) -> tuple[list[searches.Record], searches.Result | None] | None:
        """All trials, the best first, and the result; None while trials are left to run.

        The result is None unless it covers the trials and the budget of `tune`.

        Raises:
            SearchError: the search ended without a model; says how to try again.
        """
        known, result, experiment = self.records.trials(), self.records.result(), self.experiment
        tune, hours = experiment.tune, experiment.hours
        allowed = experiment.members, tune.ensemble.latency_ms
        if result is None or not (
            result.covers(tune.trials, tune.minutes, hours) and result.allows(*allowed)
        ):
            result = None
            if not exhausted(experiment, known):
                return None
        try:
            return self.ranked(known), result
        except errors.SearchError as cause:
            raise errors.SearchError(
                f"search {self.id} has already ended: {cause}; change the file or the code at "
                f"fault, or try again as another search with --set tune.seed={tune.seed + 1}"
            ) from cause

    def seconds(self) -> float:
        """How long earlier runs of this search took."""
        view = self.records.view()
        return view.earlier + view.gone if view else 0.0

    def earlier(self) -> list["Past"]:
        """Trials of earlier searches that `tune.warm_start` names, where they fit this one.

        Raises:
            UserError: there is no search of that id.
        """
        name, wanted = self.experiment.name, self.experiment.tune.warm_start
        if not wanted:
            return []
        known = [one for one in searches.all_of(self.storage, name) if one.search_id != self.id]
        found = [one for one in known if wanted in (True, one.search_id)]
        if not found and wanted is not True:
            ids = ", ".join(one.search_id for one in known) or "none"
            raise errors.UserError(
                f"tune.warm_start: must be an earlier search of {name} in "
                f"{self.experiment.storage} ({ids}), but got {wanted}"
            )
        trials = [self._past(record) for one in found for record in one.trials()]
        return [one for one in trials if one is not None]

    def ranked(self, trials: list[searches.Record]) -> list[searches.Record]:
        """The trials, the best on the validation part first; with folds, those of the most folds.

        Under `tune.cost` the cheapest of those within `tune.tolerance` of the best stands first.

        Raises:
            SearchError: none gave a model.
        """
        able = self.able(trials)
        if not able:
            raise errors.SearchError(f"no trial gave a model: {_reasons(trials)}")
        if self.experiment.tune.cost is not None:
            tolerance = self._tolerance(able[0])
            near = [one for one in able if self._gap(one, able[0]) <= tolerance]
            able.insert(0, able.pop(able.index(min(near, key=self._cost))))
        listed = {record.number for record in able}
        rest = [*self.scored(trials), *(record for record in trials if record.score is None)]
        return able + [record for record in rest if record.number not in listed]

    def front(self, trials: list[searches.Record]) -> list[searches.Point]:
        """The Pareto front of score and cost, the best score first; empty without a cost."""
        found: list[searches.Point] = []
        for record in sorted(self.able(trials), key=self._cost):
            score, cost = record.score or 0.0, self._cost(record)
            better = not found or self._sign * (score - found[-1].score) > 0
            if better and cost < math.inf:
                found.append(searches.Point(number=record.number, score=score, cost=cost))
        return found[::-1]

    def scored(self, trials: list[searches.Record]) -> list[searches.Record]:
        """The trials that have a score, the best first; with folds, those of more folds first.

        Of equal scores the one with the lower loss stands first.
        """
        scores = [record for record in trials if record.score is not None]

        def key(one: searches.Record) -> tuple[float, float, float]:
            folds = one.best_epoch if one.folds > 1 else 0
            return -folds, -self._sign * (one.score or 0.0), metrics.tie_breaker(one.best)

        return sorted(scores, key=key)

    def able(self, trials: list[searches.Record]) -> list[searches.Record]:
        """The trials that may win, the best first: those with weights, and of the most folds."""
        able = [one for one in self.scored(trials) if one.weights and one.status != "failed"]
        if self.experiment.tune.folds == 1:
            return able
        return [one for one in able if one.best_epoch == able[0].best_epoch]

    def leading(self, trials: list[searches.Record], count: int) -> list[searches.Record]:
        """The best few trials that have a score, of each model of `model.type: auto`."""
        found: dict[str, list[searches.Record]] = {}
        for record in self.scored(trials):
            found.setdefault(auto.family(record.values), []).append(record)
        return [record for own in found.values() for record in own[:count]]

    def _id(self, experiment: spec.Experiment) -> str:
        """The id of a search of this data and code."""
        hashes = sorted(one.sha256 for one in self.custom.values())
        return experiment.search_id(" ".join([self.dataset.fingerprint, *hashes]))

    @property
    def _sign(self) -> int:
        return 1 if self.mode == "max" else -1

    def _tolerance(self, best: searches.Record) -> float:
        """How far from the best a score may be."""
        chosen = self.experiment.tune.tolerance
        return chosen if isinstance(chosen, float) else best.standard_error or 0.0

    def _gap(self, record: searches.Record, best: searches.Record) -> float:
        return self._sign * ((best.score or 0.0) - (record.score or 0.0))

    def _cost(self, record: searches.Record) -> float:
        return record.costs.get(self.experiment.tune.cost or "", math.inf)

    def _past(self, record: searches.Record) -> "Past | None":
        """A trial as the sampler takes it; None if it has no score or does not fit the space."""
        space, cost = self.experiment.space, self._cost(record)
        able = record.status != "failed" and self.metric in record.best
        if not able or record.values.keys() != space.keys():
            return None
        if self.experiment.tune.cost and cost == math.inf:
            return None
        try:
            values = {key: drawn.parameter(record.values[key]) for key, drawn in space.items()}
        except ValueError:
            return None
        return Past(values, record.best[self.metric], cost)


class Past(NamedTuple):
    """A trial of an earlier search."""

    parameters: dict[str, object]  # in the sampler's terms
    score: float
    cost: float  # infinite if it is unknown


def _dataset(experiment: spec.Experiment, size: extent.Extent | None) -> prepare.Dataset:
    if size is None or not size.streamed:
        return prepare.dataset(experiment)
    from ray_jobs.data import streamed

    return streamed.dataset(experiment, size)


def exhausted(experiment: spec.Experiment, trials: list[searches.Record]) -> bool:
    """Whether no trial is left to run."""
    causes = [record.cause for record in trials if not record.unfinished]
    return len(causes) >= experiment.trials or hopeless(causes)


def hopeless(causes: Sequence[str | None]) -> bool:
    """Whether all ended trials, at least `MIN_FAILURES`, failed with one cause that recurs.

    A cause is None for a trial that has not failed, or whose failure may not recur. One trial is
    enough where its machine lacks a module.
    """
    cause = causes[0] if causes else None
    if cause is None or len(set(causes)) > 1:
        return False
    return len(causes) >= MIN_FAILURES or cause.startswith(searches.MISSING)


def feature_settings(experiment: spec.Experiment) -> Iterator[spec.Configuration]:
    """Yield a configuration for each way to encode rows; none if there are infinitely many."""
    searched = experiment.encodings
    if any(drawn.size() == float("inf") for drawn in searched.values()):
        return
    rest = {k: drawn.default() for k, drawn in experiment.space.items() if k not in searched}
    for point in itertools.product(*(drawn.grid() for drawn in searched.values())):
        yield experiment.configuration(rest | dict(zip(searched, point, strict=True)))


def length(experiment: spec.Experiment) -> int:
    """The largest number of epochs that a trial can train; with folds, their number."""
    if experiment.tune.folds > 1:
        return experiment.tune.folds
    return int(max(reading.options(experiment.searched, "epochs")))


def _reasons(trials: list[searches.Record]) -> str:
    """Why trials failed; a cause that all share is given once."""
    failed = [record for record in trials if record.failure]
    if not failed:
        over = "tune.budget ended before the first epoch of a trial; with a larger one they go on"
        return over if trials else "no trial has run"
    count = len(failed)
    if count > 1 and hopeless([record.cause for record in failed]):
        return f"all {count} trials that ran failed with the same cause: {failed[0].failure}"
    return "; ".join(sorted({str(record.failure) for record in failed}))
