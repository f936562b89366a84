"""What a version is made of, and what one of its predictions takes."""

from __future__ import annotations

from eagleray import messages
from eagleray.state.estimates import Part, Verdict


class Member(Part):
    """A trial in an ensemble."""

    epoch: int  # of its weights
    model: str  # its type
    weight: float  # of its predictions in the mean; all weights sum to 1
    score: float  # by the selecting metric, on the validation part
    refit: bool = False  # whether it was trained anew on training and validation part

    @property
    def described(self) -> str:
        return f"{self.model}, {self.weight:.0%}{', trained anew' if self.refit else ''}"


class Price(Part):
    """What a prediction takes on one core of the driver, and what a replica holds."""

    latency_ms: float  # median of one row
    size: int  # bytes of the models


class Ensemble(Part):
    """The ensemble that was looked for, beside the best trial alone."""

    kept: bool = False  # whether it is the version
    why: str = ""  # why not
    members: dict[str, Member] = {}  # by number of the trial, the heaviest first
    verdict: Verdict | None = None  # against one trial, on rows that have selected neither
    rows: int = 0  # of the validation part that were looked at
    metrics: dict[str, float] = {}  # of the members that were selected on them, on all these rows
    price: Price | None = None
    single: Price | None = None  # of the best trial
    larger_ms: float | None = None  # latency with more members, which was over the bound
    damaged: list[str] = []  # trials whose weights were missing or corrupt, and how

    def __str__(self) -> str:
        """A clause whose subject is the version."""
        lost = "; damaged in storage, so not tried: " + "; ".join(self.damaged)
        return f"{self._made}{lost if self.damaged else ''}"

    @property
    def _made(self) -> str:
        if not self.kept:
            return f"is one trial alone: {self.why}"
        listed = ", ".join(
            f"trial {number} ({one.described})" for number, one in self.members.items()
        )
        return f"is the mean of {len(self.members)} trials, {listed}: {self._gain}{self._costs}"

    @property
    def _gain(self) -> str:
        assert self.verdict is not None
        gap, metric = self.verdict.difference, self.verdict.metric
        return (
            f"{metric} {messages.number(gap.value, '+.4g')} on validation rows{gap.between('.2g')}"
        )

    @property
    def _costs(self) -> str:
        assert self.price is not None
        assert self.single is not None
        over = f"; more members took {self.larger_ms:.2g} ms" if self.larger_ms else ""
        return (
            f"; one row takes {self.price.latency_ms:.2g} ms in place of"
            f" {self.single.latency_ms:.2g}, its models {self.price.size / 1e6:.2g} MB in place of"
            f" {self.single.size / 1e6:.2g}{over}"
        )


class Faster(Part):
    """The best trial whose prediction of one row is fast enough."""

    trial: int
    model: str  # its type
    ms: float
    score: float  # by the selecting metric, on the validation part
    behind: float = 0.0  # how far this is from the best trial's score


class Latency(Part):
    """What the prediction of one row takes on one core of the driver, in milliseconds (median)."""

    ms: float
    bound_ms: float | None = None  # `tune.ensemble.latency_ms`
    faster: Faster | None = None  # looked for where the version is above the bound
    tried: int = 0  # how many other trials with weights were measured for it
    fix: str = ""  # what chooses a faster one

    @property
    def over(self) -> bool:
        """Whether it is above the bound."""
        return self.bound_ms is not None and self.ms > self.bound_ms

    def __str__(self) -> str:
        """A clause whose subject is the version."""
        takes = f"takes {self.ms:.3g} ms for one row on one core"
        if self.bound_ms is None:
            return takes
        bound = f"tune.ensemble.latency_ms: {self.bound_ms:g}"
        if not self.over:
            return f"{takes}, within {bound}"
        return f"{takes}, more than {bound}; {self._best}"

    @property
    def _best(self) -> str:
        if self.faster is None:
            return f"of {self.tried} other trials with weights in storage none is within it"
        one = self.faster
        return (
            f"the best trial within it is trial {one.trial} ({one.model}): {one.ms:.3g} ms,"
            f" {one.score:.4g} on the validation part, {one.behind:.2g} behind the best"
        )
