"""A search: an experiment, its data, and what storage knows of it.

Crash-only: what matters is in storage as it happens, and the same file and data have the same
search id. Run again, a search that was interrupted goes on, and one that ended gives its result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple

from eagleray import errors, spec, storage
from eagleray.learn import features, metrics
from eagleray.spec import space
from eagleray.state import leases, searches
from ray_jobs import searcher
from ray_jobs.data import encoded, prepare

REDUCTION = 3
"""ASHA keeps one trial in this many at each rung (Li et al. 2018, arXiv:1810.05934)."""


class Finished(NamedTuple):
    """A search that leaves nothing to be run.

    Attributes:
        trials: all of them, the best first.
        result: its end, where it has been evaluated and no trial was run since.
    """

    trials: list[searches.Record]
    result: searches.Result | None


class Search:
    """An experiment that can be searched: its data is read once, its storage opened once.

    Raises:
        EagleRayError: whatever is wrong with file, code, data or storage.
    """

    def __init__(self, experiment: spec.Experiment) -> None:
        self.experiment, self.own = experiment, experiment.code()
        self.dataset = prepare.dataset(experiment)
        for misfit in prepare.misfits(experiment, self.dataset):
            raise errors.DataError(misfit)
        self.metric = experiment.metric(self.dataset.schema.target.task)
        code = sorted(one.sha256 for one in self.own.values())
        self.id = experiment.search_id(" ".join([self.dataset.fingerprint, *code]))
        self.storage = storage.open(experiment.storage)
        self.records = searches.Records(self.storage, experiment.name, self.id)
        self._transforms: dict[str, features.Transforms] = {}

    @property
    def mode(self) -> Literal["max", "min"]:
        """Whether more of the metric is better, or less."""
        return metrics.REGISTRY[self.metric].mode

    def hold(self, lease: leases.Lease) -> None:
        """Write under a lease from now on, and adopt what the drivers before have written."""
        self.records = searches.Records(self.storage, self.experiment.name, self.id, lease)
        self.records.adopt()

    def encode(self, configuration: spec.Configuration) -> encoded.Encoded:
        """The data as the configuration's features make it; its transforms are remembered."""
        made = encoded.encode(self.dataset, configuration.features)
        self._transforms[encoded.key(configuration.features)] = made.transforms
        return made

    def transforms(self, configuration: spec.Configuration) -> features.Transforms:
        """The transforms of a configuration, fitted on the training part."""
        key = encoded.key(configuration.features)
        if key not in self._transforms:
            training = encoded.take(self.dataset, self.dataset.split.train)
            self._transforms[key] = features.Transforms.fit(
                self.dataset.schema, configuration.features, training
            )
        return self._transforms[key]

    def suggestions(self, known: list[searches.Record]) -> searcher.Searcher:
        """What to try next, when these trials are known."""
        return searcher.Searcher(self.experiment, self.mode, known)

    def finished(self) -> Finished | None:
        """The end of the search, where it has come to one.

        With more trials, or a longer budget, than a search was given when it ended, it goes on.
        With fewer, what is there stands.

        Raises:
            SearchError: it has ended before without a model; says how to try again.
        """
        known, result, tune = self.records.trials(), self.records.result(), self.experiment.tune
        if result is None or not result.covers(tune.trials, tune.minutes):
            if not self.suggestions(known).exhausted:
                return None
            result = None
        try:
            return Finished(self.ranked(known), result)
        except errors.SearchError as cause:
            raise errors.SearchError(
                f"search {self.id} has ended before: {cause}; change the file or the code at "
                "fault, or try again as another search with "
                f"--set tune.seed={self.experiment.tune.seed + 1}"
            ) from cause

    def ranked(self, trials: list[searches.Record]) -> list[searches.Record]:
        """The trials, the best on the validation part first.

        Raises:
            SearchError: none gave a model.
        """
        sign = -1 if self.mode == "max" else 1
        able = [record for record in trials if record.status != "failed"]
        scored = [record for record in able if record.score is not None and record.weights]
        if not scored:
            raise errors.SearchError(f"no trial gave a model: {_reasons(trials)}")
        rest = [record for record in trials if record not in scored]
        return sorted(scored, key=lambda record: sign * (record.score or 0.0)) + rest


def feature_settings(experiment: spec.Experiment) -> Iterator[spec.Configuration]:
    """Every setting of `features`, or none where there are endlessly many."""
    searched = {k: drawn for k, drawn in experiment.space.items() if k.startswith("features.")}
    if any(drawn.size() == float("inf") for drawn in searched.values()):
        return
    rest = {k: drawn.default() for k, drawn in experiment.space.items() if k not in searched}
    for point in itertools.product(*(drawn.grid() for drawn in searched.values())):
        yield experiment.configuration(rest | dict(zip(searched, point, strict=True)))


def rungs(experiment: spec.Experiment) -> tuple[int, list[int]]:
    """The most epochs that a trial may train, and the epochs at which ASHA compares trials."""
    epochs = _most_epochs(experiment)
    first = max(1, epochs // REDUCTION**2)
    steps = itertools.takewhile(
        lambda epoch: epoch <= epochs, (first * REDUCTION**power for power in itertools.count())
    )
    return epochs, list(steps) if experiment.tune.scheduler == "asha" else []


def _most_epochs(experiment: spec.Experiment) -> int:
    drawn: space.Distribution | None = experiment.space.get("train.epochs")
    if drawn is None:
        return experiment.default().train.epochs
    return max(int(str(value)) for _, value in drawn.ends())


def _reasons(trials: list[searches.Record]) -> str:
    """Why trials failed: failures that are alike once, all others each."""
    failed = [record for record in trials if record.failure]
    if not failed:
        return "none was run"
    causes = {record.cause for record in failed}
    if len(failed) >= searcher.ALIKE and len(causes) == 1 and None not in causes:
        return f"{len(failed)} trials failed alike, and no other was tried: {failed[0].failure}"
    return "; ".join(sorted({str(record.failure) for record in failed}))
