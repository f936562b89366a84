"""The refit: the winner's configuration trained anew on the rows of training and validation.

It trains for the winner's best epoch, with folds for the mean one, and keeps its last epoch: no
rows are left to choose one by. It is a trial of its own in the same search, number
`searches.REFIT`, and so is recorded, saved, retried and resumed like any other.
"""

from dataclasses import dataclass
from typing import NoReturn

from eagleray import errors
from eagleray.state import searches
from ray_jobs import bundles, checkpoints, folded, search, tuning, waiting


@dataclass(frozen=True)
class Refit:
    """A refit, done or not: a search of one trial, and its record."""

    search: search.Search
    record: searches.Record
    begun: bool = True  # on record
    damaged: str = ""  # what is wrong with the weights of one that is on record

    @property
    def done(self) -> bool:
        return self.record.status == "finished" and bool(self.record.weights)

    @property
    def rows(self) -> int:
        """Rows that it trains on."""
        return len(self.search.dataset.split.train)


def of(searched: search.Search, winner: searches.Record) -> Refit:
    """The refit of this winner as it is on record; a new one, also where its weights are damaged.

    Raises:
        StorageUnavailableError: storage does not answer.
    """
    until, found, damaged = epochs(winner), searched.records.refit(), ""
    if found is not None and (found.values, found.until) == (winner.values, until):
        known = Refit(_alone(searched, found), found)
        damaged = _damage(known) if known.done else ""
        if not damaged:
            return known
    new = searches.Record(number=searches.REFIT, values=winner.values, until=until)
    return Refit(_alone(searched, new), new, begun=False, damaged=damaged)


def run(refit: Refit, queue: waiting.Queue | None = None, *, grows: bool = True) -> None:
    """Train what is left, on the cluster that this process is connected to.

    Raises:
        SearchError: it failed, or lost its worker again and again.
        LeaseLostError, StorageError: see `tuning.run`.
    """
    searched, record = refit.search, refit.record
    if not refit.begun:  # what is there is of another winner
        searched.records.remove_state(record.number)
    trials = {record.number: record}
    try:
        tuning.run(searched, trials, lambda _: None, queue=queue, grows=grows)
    except errors.SearchError as cause:
        _refuse(refit, cause)
    if not refit.done:
        _refuse(refit, None)


def epochs(winner: searches.Record) -> int:
    """For how many epochs a winner is trained anew."""
    return folded.best_epoch(winner.history) if winner.folds > 1 else winner.best_epoch


def _alone(searched: search.Search, record: searches.Record) -> search.Search:
    """A search of one trial that is compared with no other, and has all the time it needs."""
    single = {"trials": 1, "folds": 1, "search": "random", "scheduler": "none", "pack": 1}
    limits = {"budget": None, "cost": None, "warm_start": False, "tolerance": 0.0}
    tune = searched.experiment.tune.model_copy(update=single | limits)
    return searched.anew(searched.experiment.model_copy(update={"tune": tune}), record)


def _damage(refit: Refit) -> str:
    """What is wrong with the weights of a refit that is done; empty if they can be read."""
    try:
        with bundles.weights(refit.search, refit.record):
            return ""
    except checkpoints.UNFIT as cause:
        return str(cause)


def _refuse(refit: Refit, cause: errors.SearchError | None) -> NoReturn:
    record = refit.record
    why = record.failure or record.status
    law = f"the winner must be trained anew on {refit.rows:,} rows (tune.refit), but {why}"
    raise errors.SearchError(law) from cause
