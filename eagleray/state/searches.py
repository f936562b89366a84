"""The documents of a search, by which another run of the same experiment resumes it.

Only documents of the driver that holds the lease count. States are written by the worker that
trains, so that they do not depend on a report that may be lost. Weights and states are blobs.
"""

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic

from eagleray import errors
from eagleray.findings import Finding, Severity
from eagleray.state import documents, evaluations, guarded, keys, leases, watches
from eagleray.state.checkpoints import Checkpoint as Checkpoint
from eagleray.state.checkpoints import State as State
from eagleray.state.evaluations import Confusion as Confusion
from eagleray.storage import Storage, blobs

D = TypeVar("D", bound=documents.Document)

MISSING = "missing module"
"""The begin of a trial's `cause` where its machine lacks a module of the user's code."""
REFIT = 1_000_000
"""What is added to the number of a trial for that of its refit."""


def _several_weights(record: dict[str, Any]) -> dict[str, Any]:
    """Migrate format 1, where `weights` is one content or null, to a list of contents."""
    one = record.get("weights")
    return record | {"weights": [one] if one else []}


class Record(documents.Document):
    """One trial."""

    KIND, FORMAT = "trial", 2
    MIGRATIONS = {1: _several_weights}

    number: int  # its place in the search, from 1; of a refit `REFIT` more
    values: dict[str, Any]  # its configuration, by dotted key
    parameters: dict[str, Any] = {}  # the same in the sampler's terms
    # `stopped` early by the scheduler, `failed` by an error of its own, `lost` with its machine or
    # storage; `running` while no search runs: interrupted
    status: Literal["running", "finished", "stopped", "failed", "lost"] = "running"
    # the selecting metric at its best epoch, on the validation part; with folds, their mean
    score: float | None = None
    standard_error: float | None = None  # of the score, over folds
    folds: int = 1  # above 1, an epoch stands for a fold, and `best_epoch` for the folds done
    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] = {}  # all metrics of the best epoch
    history: list[dict[str, float]] = []  # metrics of every epoch
    # one content, or a part of each worker; none, too, where enough others are better; with folds,
    # what their models give for the rows held out
    weights: tuple[blobs.Blob, ...] = ()
    weights_epoch: int = 0  # the epoch of these weights
    costs: dict[str, float] = {}  # by `tune.cost`
    state_epoch: int = 0  # whole epochs of its last checkpoint; 0 before the first
    state_batch: int = 0  # batches of the next epoch in that checkpoint
    spent: float = 0.0  # seconds of all epochs trained, repeated ones too; 0: those of `history`
    evidence: list[str] = []  # contents of its checkpoints that were missing or corrupt
    failure: str | None = None  # why it failed
    cause: str | None = None  # equal for like failures; None: the next trial may do better
    until: int = 0  # of a refit: the epochs that it trains; its scores are of training rows

    @property
    def unfinished(self) -> bool:
        """Whether the next run of the search resumes it."""
        lacks = self.status == "failed" and (self.cause or "").startswith(MISSING)
        return lacks or self.status in ("running", "lost")

    @property
    def seconds(self) -> float:
        return self.spent or sum(epoch.get("seconds", 0.0) for epoch in self.history)


class Definition(documents.Document, frozen=True):
    """What makes a search, and tells it from others of its name."""

    KIND = "search-definition"

    settings: dict[str, Any]  # keys of the experiment file that count
    rows: str  # of the data: their hash
    code: dict[str, str] = {}  # of the user's own: hashes by name

    def differences(self, other: "Definition") -> list[str]:
        """Each key that differs, with both values; `unset` where one has none."""
        ours, theirs = _flat(self.settings), _flat(other.settings)
        found = [
            f"{key}: {ours.get(key, 'unset')} now, {theirs.get(key, 'unset')} then"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        ]
        if self.rows != other.rows:
            found.append("data: the rows, or how they are split, have changed")
        return found + [
            f"{name}: the code has changed"
            for name in sorted(self.code.keys() & other.code.keys())
            if self.code[name] != other.code[name]
        ]


class Row(pydantic.BaseModel, frozen=True):
    """A trial on the screen."""

    number: int
    values: dict[str, Any]
    epoch: int
    score: float | None
    standard_error: float | None = None  # over folds


class Waiting(pydantic.BaseModel, frozen=True):
    """A trial that waits for resources."""

    numbers: list[int]  # of its members
    since: float  # in seconds since 1970, by the driver's clock
    why: str  # what it asks for, and what is missing on which nodes
    never: bool = False  # the nodes that are there never have so much


class View(documents.Document, frozen=True):
    """The progress of a search, for a screen on any machine."""

    KIND = "view"

    at: float  # when, in seconds since 1970, by the driver's clock
    gone: float  # seconds since this run of the search began
    earlier: float = 0.0  # seconds of its earlier runs
    metric: str  # what selects
    epochs: int  # the most that a trial trains
    folds: int = 1  # above 1, epochs are folds
    total: int  # trials there will be
    started: int  # trials that have started
    ended: int  # trials that have ended
    before: int = 0  # of these, in an earlier run of the search
    best: Row | None  # the trial with the best score so far
    rows: list[Row]  # the trials to show
    waiting: list[Waiting] = []  # the trials that wait for resources, the first first


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
    validation: dict[str, float] = {}  # on the validation part, where `decide` has changed them
    intervals: dict[str, evaluations.Estimate] = {}  # of those that have one
    confusion: list[list[int]] | None = None  # rows: truth, columns: prediction; None: many classes
    confused: list[Confusion] = []  # the most frequent mistakes, the most frequent first
    cost: str | None = None  # what `front` weighs the metric against
    front: list[Point] = []  # the best score first
    warnings: list[str] = []  # signs that the winner is not what its metrics suggest
    headline: str = ""  # see `Task.headline`
    looks: int = 0  # at this test part, this one included; 0: not counted
    baselines: list[evaluations.Baseline] = []
    unbeaten: list[str] = []  # a sentence for each baseline that it does not beat
    compared: evaluations.Comparison | None = None  # with the champion of that moment
    coverage: list[evaluations.Interval] = []  # of quantiles, the widest first
    fairness: list[evaluations.Fairness] = []  # by protected column
    decision: evaluations.Decision | None = None  # None: the most probable class is predicted
    calibration: evaluations.Calibration | None = None
    folds: int = 1  # over which trials were compared
    refit: int = 0  # epochs for which the winner was trained anew; 0: it was not
    ensemble: evaluations.Ensemble | None = None  # None where none was looked for
    latency: evaluations.Latency | None = None  # None in results of releases before
    learning_curve: evaluations.LearningCurve | None = None  # None where the evaluation says why
    members: int | None = None  # the most of an ensemble that it was given; None in old results
    latency_ms: float | None = None  # the longest prediction that they were given
    trials: int = 0  # the most trials that the search was given
    minutes: float | None = None  # the longest time that it was given; None for endless
    hours: float | None = None  # the most hours of trials that it was given; None for endless

    def allows(self, members: int, latency_ms: float | None) -> bool:
        """Whether the winner was looked for under these bounds of an ensemble."""
        return self.members is None or (self.members, self.latency_ms) == (members, latency_ms)

    def covers(self, trials: int, minutes: float | None, hours: float) -> bool:
        """Whether the search was given at least as many trials and as much time."""
        longest, most = self.minutes or math.inf, self.hours or math.inf
        return trials <= self.trials and (minutes or math.inf) <= longest and hours <= most


class Audit(documents.Document, frozen=True):
    """What the audit of the data found before the first trial."""

    KIND = "audit"

    rows: int  # that were read
    total: int  # of the source; more where rows are streamed
    findings: list[Finding] = []  # the worst first

    def counts(self) -> dict[str, int]:
        """How many findings there are of each severity."""
        found = [one.severity for one in self.findings]
        named: dict[str, Severity] = {"errors": "error", "warnings": "warn", "notes": "note"}
        return {name: found.count(severity) for name, severity in named.items()}

    def summary(self) -> dict[str, Any]:
        """The counts and the whole, as values for JSON."""
        return {**self.counts(), **json.loads(self.model_dump_json())}

    def sentence(self) -> str:
        """The counts, and how many rows were looked at."""
        counts = ", ".join(
            f"{count} {name if count != 1 else name.removesuffix('s')}"
            for name, count in self.counts().items()
            if count
        )
        rows = f"{self.rows:,} rows"
        if self.rows < self.total:
            rows = f"{rows}, a sample of {self.total:,} streamed ones"
        return f"{counts or 'nothing found'} in {rows}"


_KEYS = {Record: keys.TRIAL, View: keys.VIEW, Result: keys.RESULT, Audit: keys.AUDIT}
_ADOPTED = (keys.TRIALS, keys.VIEW, keys.RESULT, keys.AUDIT)


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
        self._writer.adopt([self._key(one) for one in _ADOPTED])

    def check(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def save(self, document: Record | View | Result | Audit) -> None:
        """Write a trial, the view, the result or the audit over its earlier version."""
        number = document.number if isinstance(document, Record) else 0
        key = self._key(_KEYS[type(document)], number)
        if self._writer is None:
            self._storage.put(key, document.encode())
        else:
            self._writer.put(key, document.fields())

    def trials(self) -> list[Record]:
        """All trials on record, by number, without refits; earlier releases had one, number 0."""
        listed = sorted(entry.key for entry in self._storage.list(self._key(keys.TRIALS)))
        return [record for record in self._read(Record, *listed) if 0 < record.number <= REFIT]

    def trials_by_number(self, numbers: Iterable[int]) -> dict[int, Record]:
        """Read the records of these trials, by number; trials without a record are left out."""
        found = self._read(Record, *(self._key(keys.TRIAL, number) for number in numbers))
        return {record.number: record for record in found}

    def view(self) -> View | None:
        """The progress as the driver last wrote it."""
        return next(iter(self._read(View, self._key(keys.VIEW))), None)

    def define(self, definition: Definition) -> None:
        """Note what this is a search of; it is the same for all who write it."""
        self._storage.put(self._key(keys.DEFINITION), definition.encode())

    def definition(self) -> Definition | None:
        """What this is a search of; None if an earlier release has begun it."""
        return Definition.find(self._storage, self._key(keys.DEFINITION))

    def result(self) -> Result | None:
        return next(iter(self._read(Result, self._key(keys.RESULT))), None)

    def audit(self) -> Audit | None:
        """What the audit found; None before it, and of searches of earlier releases."""
        return next(iter(self._read(Audit, self._key(keys.AUDIT))), None)

    def save_curves(self, table: bytes) -> None:
        """Write the curves of all trials, a Parquet file for other programs."""
        self._storage.put(self._key(keys.CURVES), table)

    @contextlib.contextmanager
    def curve_attempt(self) -> Iterator[bool]:
        """Mark in storage, for a block, that the learning curve is trained.

        Yields whether a driver was killed in such a block before.
        """
        key = self._key(keys.CURVE_BEGUN)
        was_killed = any(entry.key == key for entry in self._storage.list(key))
        self._storage.put(key, b"")
        try:
            yield was_killed
        finally:
            self._storage.delete(key)

    def save_layers(self, number: int, rows: Sequence[watches.Row]) -> None:
        """Write what was watched of a trial's layers."""
        self.check()
        self._storage.put(self._key(keys.LAYERS, number), watches.encode(rows))

    def layers(self, number: int) -> list[watches.Row]:
        """What was watched of a trial's layers; nothing of trees and of earlier releases."""
        key = self._key(keys.LAYERS, number)
        try:
            data = self._storage.get(key)
        except errors.ObjectNotFoundError:
            return []
        return watches.decode(data, documents.where(self._storage, key))

    def state(self, number: int, values: dict[str, Any], *, other: bool = False) -> State:
        """The checkpoints of a trial; none if they are of an `other` configuration."""
        key = self._key(keys.STATE, number)
        try:
            data, etag = self._storage.get_tagged(key)
        except errors.ObjectNotFoundError:
            return State(values=values)
        found = State.tagged(data, etag, documents.where(self._storage, key))
        return found if other or found.values == values else State(values=values, etag=etag)

    def save_state(
        self, number: int, state: State, checkpoints: list[Checkpoint], writer: str = ""
    ) -> State:
        """Commit checkpoints in place of those that were read; raises `documents.MISSED`."""
        key = self._key(keys.STATE, number)
        return state.replace(self._storage, key, checkpoints=checkpoints, writer=writer)

    def stated(self) -> list[int]:
        """The numbers of the trials that have a state."""
        listed = self._storage.list(self._key(keys.STATES))
        return sorted(int(name) for one in listed if (name := Path(one.key).stem).isdecimal())

    def remove_state(self, number: int) -> None:
        self._storage.delete(self._key(keys.STATE, number))

    def _read(self, kind: type[D], *wanted: str) -> list[D]:
        found = guarded.read(self._storage, self.lease_key, wanted)
        return [kind.decode(one, documents.where(self._storage, key)) for key, one in found.items()]

    def _key(self, template: str, number: int = 0) -> str:
        return template.format(name=self.name, search=self.search_id, number=number)


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Values by dotted key, as JSON."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping)
        found |= _flat(value, f"{above}{key}.") if nested else {above + key: json.dumps(value)}
    return found


def all_of(store: Storage, name: str | None = None) -> list[Records]:
    """All searches of a storage, or those of a name, by name and id."""
    listed = (
        entry.key for entry in store.list(f"{keys.SEARCHES}{name}/" if name else keys.SEARCHES)
    )
    return [Records(store, *one) for one in keys.searches(listed)]
