"""How a version was judged on its test part; a file of the version, written once.

A report is made of it without the data and without the model.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import pydantic

from eagleray import errors, messages
from eagleray.findings import Finding
from eagleray.state import documents, keys
from eagleray.state.diagrams import Bin as Bin
from eagleray.state.diagrams import Diagram as Diagram
from eagleray.state.diagrams import Line as Line
from eagleray.state.estimates import Estimate as Estimate
from eagleray.state.estimates import Outcome as Outcome
from eagleray.state.estimates import Part as Part
from eagleray.state.estimates import Verdict as Verdict
from eagleray.state.learning_curves import LearningCurve as LearningCurve
from eagleray.state.prices import Ensemble as Ensemble
from eagleray.state.prices import Faster as Faster
from eagleray.state.prices import Latency as Latency
from eagleray.state.prices import Member as Member
from eagleray.state.prices import Price as Price
from eagleray.storage import Storage

FILE = "evaluation.json"
"""Its path among the files of a version."""
_SWAPS = 100


class Comparison(Part):
    """The version beside another one of its model; `why` says why there is no verdict."""

    version: int
    verdict: Verdict | None = None
    metrics: dict[str, Estimate] = {}  # of the other one, on the same rows
    why: str = ""


class Baseline(Part):
    """A plain model, fitted on the same training part."""

    name: str
    metrics: dict[str, Estimate]
    verdict: Verdict | None = None  # None where these rows do not define the metric
    beaten: bool = False  # whether the version scores higher, beyond noise or not


class Confusion(pydantic.BaseModel, frozen=True):
    """Number of rows of one class that were predicted as another class."""

    truth: str
    predicted: str
    rows: int


class Slice(Part):
    """A group of rows that is predicted worse than the others."""

    where: dict[str, str]  # value or range by column
    rows: int
    miss: Estimate  # mean of `Task.misses`; the interval holds for all groups at once
    others: float  # mean of all other rows
    score: Estimate | None = None  # the selecting metric in the group


class Importance(Part):
    """How much the selecting metric falls when a column's values change places."""

    column: str
    drop: Estimate


class Wrong(Part):
    """One of the most wrong rows."""

    row: int  # its number in the source, from 1
    truth: Any
    prediction: Any
    miss: float
    values: dict[str, Any]


class Fit(Part):
    """How a model fits the rows that it was trained on."""

    sign: Literal["over-fit", "under-fit", "none"]
    says: str
    fix: str = ""  # a line of the experiment file
    train: dict[str, float]  # metrics of some training rows
    rows: int  # their number


class Decision(Part):
    """How classes are predicted where the experiment file asks for it."""

    threshold: float | None = None  # probability from which the positive class is predicted
    reached: dict[str, float]  # the objective
    usual: dict[str, float]  # the same where the more probable class is predicted
    rows: int  # by which it was found
    part: str = "validation"  # what these are: with folds `out-of-fold`
    warning: str = ""  # an objective that cannot be reached; a sentence without its subject

    def __str__(self) -> str:
        what = "the class of the lowest expected cost is predicted"
        if self.threshold is not None:
            what = f"the positive class is predicted from probability {self.threshold:.4g} on"
        reached, usual = (
            " and ".join(f"{name} {messages.number(value)}" for name, value in one.items())
            for one in (self.reached, self.usual)
        )
        return (
            f"{what}: {reached} on {self.rows:,} {self.part} rows, against {usual} of the most"
            " probable class"
        )


class Calibration(Part):
    """How outputs are calibrated, and the calibration error on the test part without and with it.

    The error is the mean distance of what was said from what was true: of probabilities, in bins;
    of quantiles, level by level.
    """

    method: str = "temperature"
    temperature: float | None = None
    offset: float | None = None
    before: float
    after: float
    bins_before: list[Bin] = []
    bins_after: list[Bin] = []
    warning: str = ""  # what it cannot promise; a sentence without its subject

    def __str__(self) -> str:
        how = {"isotonic": "isotonic curves", "conformal": "conformal shifts"}.get(self.method)
        if self.temperature is not None:
            how = f"temperature {self.temperature:.3g}"
            how += f" and offset {self.offset:.3g}" if self.offset is not None else ""
        bins = f" in {len(self.bins_after)} bins" if self.bins_after else ""
        return (
            f"{how or self.method}: expected calibration error on the test part{bins}"
            f" {self.before:.4f} without, {self.after:.4f} with"
        )


class FairGroup(Part):
    """Rows of the test part with one value of a protected column; rates are of the test part."""

    name: str
    rows: int
    score: Estimate | None = None  # the selecting metric; None of too few rows
    positive: Estimate | None = None  # share predicted positive, of two classes
    true_positive: Estimate | None = None  # the same of rows that are positive
    false_positive: Estimate | None = None  # the same of rows that are negative
    error: Estimate | None = None  # mean of prediction minus truth, of numbers


class Gap(Part):
    """The largest difference of a rate between two groups."""

    name: str
    rate: str
    value: float
    lowest: str  # the groups
    highest: str
    sure: bool  # whether the 95 % intervals of the two are apart

    def __str__(self) -> str:
        noise = "" if self.sure else ", within noise"
        return f"{self.name} {self.value:.3g} ({self.highest} above {self.lowest}{noise})"


class Fairness(Part):
    """Predictions by the groups of a protected column."""

    column: str
    least: int  # rows of a group from which it is compared
    groups: list[FairGroup]  # the most rows first
    gaps: list[Gap] = []  # the largest difference of each measure

    def __str__(self) -> str:
        if not self.gaps:
            return f"by {self.column}: no two groups of {self.least} rows can be compared"
        return f"by {self.column}: {'; '.join(map(str, self.gaps))}"


class Interval(Part):
    """A prediction interval on the test part."""

    level: float  # share of the true values that it is made to hold
    coverage: Estimate  # the share that it holds, with its binomial interval (Wilson)
    width: float  # mean

    def __str__(self) -> str:
        held = self.coverage
        return (
            f"{100 * self.level:.3g} % interval holds {held.value:.3g} ({held.sides('.3g')}) of the"
            f" true values, {messages.number(self.width, '.3g')} wide on average"
        )


class Evaluation(documents.Document, frozen=True):
    """One version, judged on its test part."""

    KIND = "evaluation"

    target: str
    metric: str  # what selected it
    mode: Literal["max", "min"]
    rows: int  # of the test part
    looks: int = 0  # at this test part, this one included; 0: not counted
    headline: str = ""  # see `Task.headline`
    telling: list[str] = []  # metrics that say most to people
    miss: str = ""  # what `miss` means
    metrics: dict[str, Estimate]
    classes: list[str] = []
    confusion: list[list[int]] | None = None  # rows: truth, columns: prediction; None: many classes
    confused: list[Confusion] = []  # the most frequent mistakes, the most frequent first
    warnings: list[str] = []
    baselines: list[Baseline] = []
    champion: Comparison | None = None  # the version that answered when this one was judged
    diagrams: list[Diagram] = []
    slices: list[Slice] = []  # the worst first
    groups: int = 0  # how many were looked at
    importance: list[Importance] = []  # the largest first
    fairness: list[Fairness] = []  # by protected column
    wrong: list[Wrong] = []  # the most wrong first
    fit: Fit | None = None
    intervals: list[Interval] = []  # of quantiles, the widest first
    training: list[Finding] = []  # on gradients, units, losses of batches and scales
    decision: Decision | None = None  # None: the most probable class is predicted
    calibration: Calibration | None = None
    ensemble: Ensemble | None = None  # None where none was looked for
    latency: Latency | None = None  # None of releases before
    learning_curve: LearningCurve | None = None  # None where a note says why
    notes: list[str] = []  # what was left out, and why

    @property
    def values(self) -> dict[str, float]:
        """The metrics on the test part."""
        return {name: one.value for name, one in self.metrics.items()}


class Look(Part):
    """One judgement on a test part."""

    model: str
    search: str
    trial: int
    epoch: int


class Looks(documents.Replaceable, frozen=True):
    """Every judgement on one test part, whichever model it was of."""

    KIND = "test-looks"

    rows: int
    looks: list[Look] = []


def look(store: Storage, part: str, rows: int, one: Look) -> int:
    """Count a look at a test part; return how many there were with it. The same look counts once.

    ConflictError if others count at the same time again and again.
    """
    key = keys.LOOKS.format(part=part)
    for _ in range(_SWAPS):
        try:
            known = Looks.tagged(*store.get_tagged(key), documents.where(store, key))
        except errors.ObjectNotFoundError:
            known = Looks(rows=rows)
        if one in known.looks:
            return known.looks.index(one) + 1
        try:
            known.replace(store, key, looks=[*known.looks, one])
        except documents.MISSED:
            continue
        return len(known.looks) + 1
    raise errors.ConflictError(f"{documents.where(store, key)}: changed during {_SWAPS} attempts")


def decode(data: bytes, where: str) -> Evaluation:
    """The evaluation of a file; raises what `Document.decode` raises."""
    return Evaluation.decode(documents.load(data, where), where)


def encode(made: Evaluation) -> bytes:
    """The file of an evaluation; numbers that are not finite are refused."""
    return json.dumps(made.fields(), allow_nan=False).encode()
