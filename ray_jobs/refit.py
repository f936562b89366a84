"""Refits: trials of the winner, trained anew on the rows of training and validation.

A refit trains for its trial's best epoch, with folds for the mean one, and keeps its last epoch: no
rows are left to choose one by. It is a trial of its own in the same search, `searches.REFIT` above
its trial, and so is recorded, saved, retried and resumed like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eagleray import bundle, errors
from eagleray.spec import auto
from eagleray.state import searches
from ray_jobs import bundles, checkpoints, folded, search, tuning, waiting


@dataclass(frozen=True)
class Refits:
    """The refits of some trials, done or not, by the numbers of these trials."""

    search: search.Search  # of them alone
    records: Mapping[int, searches.Record]
    new: frozenset[int]  # not on record yet
    damaged: Mapping[int, str]  # what is wrong with weights that are on record

    @property
    def done(self) -> bool:
        return all(map(_done, self.records.values()))

    @property
    def rows(self) -> int:
        """Rows that each of them trains on."""
        return len(self.search.dataset.split.train)

    @property
    def epochs(self) -> int:
        """Epochs of the longest refit."""
        return max(record.until for record in self.records.values())

    def model(self, trial: searches.Record) -> bundle.Bundle | None:
        """The model of a trial's refit, None for any other; raises what `bundles.of` raises."""
        record = self.records.get(trial.number)
        return None if record is None else bundles.of(self.search, record)


def selected(searched: search.Search, members: Sequence[searches.Record]) -> list[searches.Record]:
    """The members of the winner that `tune.refit` trains anew (docs/adr/0049)."""
    experiment, refit = searched.experiment, searched.experiment.tune.refit
    if refit is True or searched.dataset.folds:
        return [*members]
    if refit is False or not auto.family(members[0].values) or experiment.data.split.time:
        return []
    return [one for one in members if experiment.configuration(one.values).model.refits]


def of(searched: search.Search, trials: Sequence[searches.Record]) -> Refits:
    """The refits of these trials as they are on record; new ones, also where weights are damaged.

    Raises:
        StorageUnavailableError: storage does not answer.
    """
    known = searched.records.trials_by_number([_number(trial.number) for trial in trials])
    records, new, damaged = dict[int, searches.Record](), set[int](), dict[int, str]()
    alone = _alone(searched, len(trials))
    for trial in trials:
        number, until = trial.number, epochs(trial)
        found = known.get(_number(number))
        if found is not None and (found.values, found.until) == (trial.values, until):
            records[number], why = found, _damage(alone, found) if _done(found) else ""
            if not why:
                continue
            damaged[number] = why
        records[number] = searches.Record(number=_number(number), values=trial.values, until=until)
        new.add(number)
    made = alone.anew(alone.experiment, [*records.values()])
    return Refits(made, records, frozenset(new), damaged)


def run(refits: Refits, queue: waiting.Queue | None = None, *, grows: bool = True) -> None:
    """Train what is left, on the cluster that this process is connected to.

    Raises:
        SearchError: one failed, or lost its worker again and again.
        LeaseLostError, StorageError: see `tuning.run`.
    """
    searched = refits.search
    for number in refits.new:  # what is there is of another winner
        searched.records.remove_state(_number(number))
    trials = {record.number: record for record in refits.records.values()}
    cause: errors.SearchError | None = None
    try:
        tuning.run(searched, trials, lambda _: None, queue=queue, grows=grows)
    except errors.SearchError as failure:
        cause = failure
    for number, record in refits.records.items():
        if not _done(record):
            law = f"trial {number} must be trained anew on {refits.rows:,} rows (tune.refit)"
            raise errors.SearchError(f"{law}, but {record.failure or record.status}") from cause


def epochs(trial: searches.Record) -> int:
    """The number of epochs of a trial's refit."""
    return folded.best_epoch(trial.history) if trial.folds > 1 else trial.best_epoch


def _number(trial: int) -> int:
    """The number of a trial's refit."""
    return searches.REFIT + trial


def _done(record: searches.Record) -> bool:
    return record.status == "finished" and bool(record.weights)


def _alone(searched: search.Search, count: int) -> search.Search:
    """A search of `count` refits, without a scheduler, folds, packs or a budget."""
    single = {"trials": count, "folds": 1, "search": "random", "scheduler": "none", "pack": 1}
    limits = {"budget": None, "cost": None, "warm_start": False, "tolerance": 0.0}
    tune = searched.experiment.tune.model_copy(update=single | limits)
    return searched.anew(searched.experiment.model_copy(update={"tune": tune}), [])


def _damage(searched: search.Search, record: searches.Record) -> str:
    """What is wrong with the weights of a refit that is done; empty if they can be read."""
    try:
        with bundles.weights(searched, record):
            return ""
    except checkpoints.UNFIT as cause:
        return str(cause)
