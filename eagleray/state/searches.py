"""The documents of a search, by which another run of the same experiment resumes it.

Only documents of the driver that holds the lease count. States are written by the worker that
trains, so that they do not depend on a report that may be lost. Weights and states are blobs.
"""

import math
from typing import Any, Literal, TypeVar

import pydantic

from eagleray.state import documents, guarded, keys, leases
from eagleray.storage import Storage, blobs

D = TypeVar("D", bound=documents.Document)


class Record(documents.Document):
    """One trial."""

    KIND = "trial"

    number: int  # its place in the search, from 1
    values: dict[str, Any]  # its configuration, by dotted key
    parameters: dict[str, Any] = {}  # the same in the sampler's terms
    # `stopped` early by the scheduler, `failed` by an error of its own, `lost` with its machine or
    # storage; `running` while no search runs: interrupted
    status: Literal["running", "finished", "stopped", "failed", "lost"] = "running"
    score: float | None = None  # the selecting metric at its best epoch, on the validation part
    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] = {}  # all metrics of the best epoch
    history: list[dict[str, float]] = []  # metrics of every epoch
    weights: blobs.Blob | None = None  # of the best epoch's weights
    costs: dict[str, float] = {}  # by `tune.cost`
    state_epoch: int = 0  # the epoch of its last whole state in storage; 0 before the first
    spent: float = 0.0  # seconds of all epochs trained, repeated ones too; 0: those of `history`
    failure: str | None = None  # why it failed
    cause: str | None = None  # equal for like failures; None: the next trial may do better

    @property
    def unfinished(self) -> bool:
        """Whether the next run of the search resumes it."""
        return self.status in ("running", "lost")

    @property
    def seconds(self) -> float:
        return self.spent or sum(epoch.get("seconds", 0.0) for epoch in self.history)


class State(documents.Document, frozen=True):
    """The last training state of a trial that was completely uploaded."""

    KIND = "state"

    values: dict[str, Any]  # the trial's configuration, by dotted key
    epoch: int  # epochs done
    blob: blobs.Blob  # what `checkpoints.dump` gave


class Row(pydantic.BaseModel, frozen=True):
    """A trial on the screen."""

    number: int
    values: dict[str, Any]
    epoch: int
    score: float | None


class View(documents.Document, frozen=True):
    """The progress of a search, for a screen on any machine."""

    KIND = "view"

    at: float  # when, in seconds since 1970, by the driver's clock
    gone: float  # seconds since this run of the search began
    earlier: float = 0.0  # seconds of its earlier runs
    metric: str  # what selects
    epochs: int  # the most that a trial trains
    total: int  # trials there will be
    started: int  # trials that have started
    ended: int  # trials that have ended
    before: int = 0  # of these, in an earlier run of the search
    best: Row | None  # the trial with the best score so far
    rows: list[Row]  # the trials to show


class Confusion(pydantic.BaseModel, frozen=True):
    """How many rows of class `truth` were predicted as another."""

    truth: str
    predicted: str
    rows: int


class Point(pydantic.BaseModel, frozen=True):
    """A trial of the Pareto front: none has a better score and costs no more."""

    number: int
    score: float
    cost: float


class Result(documents.Document, frozen=True):
    """How a search ended."""

    KIND = "search-result"

    version: int  # the winner's, registered
    winner: int  # number of its trial
    metric: str  # what selected it
    test: dict[str, float]  # its metrics on the test part
    confusion: list[list[int]] | None = None  # rows: truth, columns: prediction; None: many classes
    confused: list[Confusion] = []  # the most frequent mistakes, the most frequent first
    cost: str | None = None  # what `front` weighs the metric against
    front: list[Point] = []  # the best score first
    warnings: list[str] = []  # signs that the winner is not what its metrics suggest
    trials: int = 0  # the most trials that the search was given
    minutes: float | None = None  # the longest time that it was given; None for endless
    hours: float | None = None  # the most hours of trials that it was given; None for endless

    def covers(self, trials: int, minutes: float | None, hours: float) -> bool:
        """Whether the search was given at least as many trials and as much time."""
        longest, most = self.minutes or math.inf, self.hours or math.inf
        return trials <= self.trials and (minutes or math.inf) <= longest and hours <= most


_KEYS = {Record: keys.TRIAL, View: keys.VIEW, Result: keys.RESULT}


class Records:
    """The documents of one search; writes under its lease if it is given."""

    def __init__(
        self, store: Storage, name: str, search_id: str, lease: leases.Lease | None = None
    ) -> None:
        self.name, self.search_id = name, search_id
        self._storage, self._lease = store, lease
        self._writer = guarded.Writer(store, lease) if lease else None
        self.lease_key = self._key(keys.LEASE)

    def watcher(self) -> leases.Watcher:
        return leases.Watcher(self._storage, self.lease_key)

    def adopt(self) -> None:
        """Take over what earlier drivers have written; what they write now is not seen."""
        assert self._writer is not None
        self._writer.adopt([self._key(one) for one in (keys.TRIALS, keys.VIEW, keys.RESULT)])

    def check(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def save(self, document: Record | View | Result) -> None:
        """Write a trial, the view or the result over its earlier version."""
        number = document.number if isinstance(document, Record) else 0
        key = self._key(_KEYS[type(document)], number)
        if self._writer is None:
            self._storage.put(key, document.encode())
        else:
            self._writer.put(key, document.fields())

    def trials(self) -> list[Record]:
        """All trials on record, by number."""
        listed = self._storage.list(self._key(keys.TRIALS))
        return self._read(Record, *sorted(entry.key for entry in listed))

    def trial(self, number: int) -> Record | None:
        """One trial; None if it is not on record."""
        return next(iter(self._read(Record, self._key(keys.TRIAL, number))), None)

    def view(self) -> View | None:
        """The progress as the driver last wrote it."""
        return next(iter(self._read(View, self._key(keys.VIEW))), None)

    def result(self) -> Result | None:
        return next(iter(self._read(Result, self._key(keys.RESULT))), None)

    def save_curves(self, table: bytes) -> None:
        """Write the curves of all trials, a Parquet file for other programs."""
        self._storage.put(self._key(keys.CURVES), table)

    def state(self, number: int, values: dict[str, Any] | None) -> State | None:
        """The last state of a trial; None if there is none of this configuration (None: of any)."""
        found = State.find(self._storage, self._key(keys.STATE, number))
        return found if found and values in (None, found.values) else None

    def save_state(self, number: int, state: State) -> None:
        self._storage.put(self._key(keys.STATE, number), state.encode())

    def _read(self, kind: type[D], *wanted: str) -> list[D]:
        found = guarded.read(self._storage, self.lease_key, wanted)
        return [kind.decode(one, documents.where(self._storage, key)) for key, one in found.items()]

    def _key(self, template: str, number: int = 0) -> str:
        return template.format(name=self.name, search=self.search_id, number=number)


def all_of(store: Storage, name: str | None = None) -> list[Records]:
    """All searches of a storage, or those of a name, by name and id."""
    listed = (
        entry.key for entry in store.list(f"{keys.SEARCHES}{name}/" if name else keys.SEARCHES)
    )
    return [Records(store, *one) for one in keys.searches(listed)]
