"""What a search keeps in storage, so that the same file finds it again.

    searches/{name}/{search_id}/trials/{number:05}.json    one trial, ended or with its last state
    searches/{name}/{search_id}/view.json                  what a screen shows, some seconds old
    searches/{name}/{search_id}/result.json                the end: the winner and its version

Only the driver writes here. A record is small; weights and states are blobs it points to.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import pydantic

from eagleray import errors
from eagleray.storage import Storage


class Record(pydantic.BaseModel):
    """One trial.

    Attributes:
        number: its place in the search, from 1.
        values: what was suggested, by dotted key.
        parameters: the same as the sampler calls it, to be told to it again.
        status: `running` (interrupted when no search runs), `finished`, `stopped` early by the
            scheduler, `failed` by itself, or `lost` by the machine or the storage.
        score: the selecting metric at its best epoch, on the validation part.
        best: all metrics of that epoch.
        history: metrics of every epoch.
        weights: blob of the best epoch's weights.
        state: blob of the last whole state, to go on from.
        failure: why it failed.
        seconds: time spent training.
    """

    number: int
    values: dict[str, Any]
    parameters: dict[str, Any] = {}
    status: Literal["running", "finished", "stopped", "failed", "lost"] = "running"
    score: float | None = None
    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] = {}
    history: list[dict[str, float]] = []
    weights: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    failure: str | None = None

    @property
    def unfinished(self) -> bool:
        """Whether the next run of the search goes on with it."""
        return self.status in ("running", "lost")

    @property
    def seconds(self) -> float:
        """Time spent in epochs."""
        return sum(epoch.get("seconds", 0.0) for epoch in self.history)


class Row(pydantic.BaseModel, frozen=True):
    """A trial on the screen."""

    number: int
    values: dict[str, Any]
    epoch: int
    score: float | None


class View(pydantic.BaseModel, frozen=True):
    """A search as a screen shows it, wherever the screen is.

    Attributes:
        at: when, in seconds since 1970, by the driver's clock.
        gone: seconds since the search began.
        metric: what selects.
        epochs: the most that a trial trains.
        total: how many trials there will be.
        started: how many have started.
        ended: how many have ended.
        best: the trial with the best score so far.
        rows: the trials to show.
    """

    at: float
    gone: float
    metric: str
    epochs: int
    total: int
    started: int
    ended: int
    best: Row | None
    rows: list[Row]


class Confused(pydantic.BaseModel, frozen=True):
    """So many rows of one class that were taken for another."""

    truth: str
    predicted: str
    rows: int


class Result(pydantic.BaseModel, frozen=True):
    """How a search ended.

    Attributes:
        version: the version that was registered.
        winner: number of its trial.
        metric: what selected it.
        test: its metrics on the test part.
        confusion: rows of the truth by columns of the prediction; None of many classes.
        confused: the most frequent mistakes, the most frequent first.
        warnings: signs that the winner is not what its metrics suggest.
    """

    version: int
    winner: int
    metric: str
    test: dict[str, float]
    confusion: list[list[int]] | None = None
    confused: list[Confused] = []
    warnings: list[str] = []


class Records:
    """The folder of one search in storage."""

    def __init__(self, store: Storage, name: str, search_id: str) -> None:
        self._storage, self._root = store, f"searches/{name}/{search_id}"

    def save(self, record: Record) -> None:
        key = f"{self._root}/trials/{record.number:05}.json"
        self._storage.put(key, record.model_dump_json().encode())

    def trials(self) -> list[Record]:
        """All trials on record, by number."""
        entries = sorted(entry.key for entry in self._storage.list(f"{self._root}/trials/"))
        return [Record.model_validate_json(self._storage.get(key)) for key in entries]

    def show(self, view: View) -> None:
        """Let screens elsewhere see the search; a view takes the place of the one before."""
        self._storage.put(f"{self._root}/view.json", view.model_dump_json().encode())

    def view(self) -> View | None:
        """The search as it was some seconds ago, or at its last sign of life."""
        try:
            return View.model_validate_json(self._storage.get(f"{self._root}/view.json"))
        except errors.ObjectNotFoundError:
            return None

    def finish(self, result: Result) -> None:
        self._storage.put(f"{self._root}/result.json", result.model_dump_json().encode())

    def result(self) -> Result | None:
        """The end, where the search has come to one."""
        try:
            return Result(**json.loads(self._storage.get(f"{self._root}/result.json")))
        except errors.ObjectNotFoundError:
            return None
