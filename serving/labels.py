"""Labels: what was true of requests that were answered, as clients report it.

A body is `{"labels": [{"request_id": …, "version": …, "predicted": …, "label": …}, …]}`, with the
id and the version of the answer, or with a `reward` in place of the last two. A replica keeps no
answers, so a client gives back what it got. Labels go to any replica.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Annotated, NamedTuple, Protocol

import msgspec

from eagleray import errors
from serving.predictor import Predictor
from serving.protocol import MOST_LABELS, MOST_ROWS, MOST_VERSION, Body
from serving.responses import Response, as_json

MOST_REMEMBERED = 100_000
"""Requests whose labels a replica remembers, so that none counts twice."""

Value = str | bool | int | float


class Label(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The truth of one row of a request; `version` is the one that answered it."""

    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    version: Annotated[int, msgspec.Meta(ge=1, le=MOST_VERSION)]
    row: Annotated[int, msgspec.Meta(ge=0, lt=MOST_ROWS)] = 0
    predicted: Value | msgspec.UnsetType = msgspec.UNSET  # the `label` or `value` of the answer
    label: Value | msgspec.UnsetType = msgspec.UNSET  # what was true
    reward: Annotated[float, msgspec.Meta(ge=0, le=1)] | msgspec.UnsetType = msgspec.UNSET


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    labels: Annotated[list[Label], msgspec.Meta(min_length=1, max_length=MOST_LABELS)]


class Rewarded(NamedTuple):
    """A request whose labels came together, with the mean of its rows' rewards."""

    request_id: str
    version: int
    reward: float | None  # None for a version that is not in service


class Observer(Protocol):
    """What is told of labels; see `serving.metrics.Metrics`."""

    def labelled(self, version: int, *, right: bool) -> None: ...


class Labels:
    """Counts labels of the versions in service, each request once.

    `served` gives a version in service. The rows of a request depend on each other: a request
    counts once, with the labels that come first. A reward between 0 and 1 counts as right with
    itself as probability, so its mean is kept and tests of two rates stay valid.
    """

    def __init__(self, served: Callable[[int], Predictor | None], observer: Observer) -> None:
        self._served, self._observer = served, observer
        self._decode = msgspec.json.Decoder(_Body).decode
        self._remembered: dict[str, None] = {}  # ids of requests, the earliest first

    def rewards(self, body: Body) -> list[Rewarded]:
        """Decode a body; RequestError is 400 if it is not JSON, else 422 with the field."""
        try:
            labels = self._decode(body).labels
        except msgspec.ValidationError as cause:
            fault, _, path = str(cause).partition(" - at `$.")
            message = fault[:1].lower() + fault[1:]
            raise errors.RequestError(message, field=path.removesuffix("`") or None) from cause
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
            raise errors.RequestError(f"the body must be JSON, but {cause}", status=400) from cause
        rows: dict[tuple[str, int], dict[int, float | None]] = {}
        for place, one in enumerate(labels):
            found = self._reward(one, f"labels[{place}]")
            rows.setdefault((one.request_id, one.version), {}).setdefault(one.row, found)
        return [Rewarded(*of, _mean(each.values())) for of, each in rows.items()]

    def count(self, rewarded: list[Rewarded], split: Observer | None) -> Response:
        """Count requests, also for the rollout that is under way; on the event loop."""
        found = {"counted": 0, "repeated": 0, "ignored": 0}
        for one in rewarded:
            if one.reward is None:
                found["ignored"] += 1
            elif one.request_id in self._remembered:
                found["repeated"] += 1
            else:
                self._remember(one.request_id)
                found["counted"] += 1
                right = random.random() < one.reward  # noqa: S311 - a draw, not a secret
                self._observer.labelled(one.version, right=right)
                if split is not None:
                    split.labelled(one.version, right=right)
        return as_json(200, **found)

    def _reward(self, one: Label, field: str) -> float | None:
        """The reward of a label: given, or by the task of its version; see `Rewarded`."""
        law, unset = "either a reward or predicted and label are needed", msgspec.UNSET
        if one.reward is not unset:
            if one.label is not unset or one.predicted is not unset:
                raise errors.RequestError(f"{law}, but got more", field=field)
            return one.reward if self._served(one.version) else None
        if one.label is unset or one.predicted is unset:
            raise errors.RequestError(f"{law}, but got less", field=field)
        version = self._served(one.version)
        if version is None:
            return None
        try:
            return version.reward(one.predicted, one.label)
        except errors.DataError as cause:
            raise errors.RequestError(str(cause), field=field) from cause

    def _remember(self, request_id: str) -> None:
        if len(self._remembered) >= MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[request_id] = None


def _mean(rewards: Collection[float | None]) -> float | None:
    known = [one for one in rewards if one is not None]
    return sum(known) / len(known) if known else None
