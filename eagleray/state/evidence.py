"""What replicas count of the two versions of a rollout."""

from __future__ import annotations

from collections import Counter

import pydantic

from eagleray.state import documents


class Counts(pydantic.BaseModel, frozen=True, extra="allow"):
    """What was counted of one version."""

    requests: int = 0  # answered, or failed with an error of the server
    errors: int = 0
    seconds: dict[int, int] = {}  # requests by `bucket` of their time
    outcomes: dict[str, int] = {}  # requests by `Task.outcome` of their first row
    compared: int = 0  # rows that both versions predicted, of a shadow
    differing: int = 0  # of these, the rows whose outcomes differ
    labels: int = 0  # requests of which the truth came, each counted once
    hits: int = 0  # of these, the ones that were right

    def plus(self, other: Counts) -> Counts:
        return Counts(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            seconds=Counter(self.seconds) + Counter(other.seconds),
            outcomes=Counter(self.outcomes) + Counter(other.outcomes),
            compared=self.compared + other.compared,
            differing=self.differing + other.differing,
            labels=self.labels + other.labels,
            hits=self.hits + other.hits,
        )

    def minus(self, earlier: Counts) -> Counts:
        """What was counted since; never below zero."""
        return Counts(
            requests=max(0, self.requests - earlier.requests),
            errors=max(0, self.errors - earlier.errors),
            seconds=Counter(self.seconds) - Counter(earlier.seconds),
            outcomes=Counter(self.outcomes) - Counter(earlier.outcomes),
            compared=max(0, self.compared - earlier.compared),
            differing=max(0, self.differing - earlier.differing),
            labels=max(0, self.labels - earlier.labels),
            hits=max(0, self.hits - earlier.hits),
        )


class Evidence(documents.Document, frozen=True):
    """What one replica has counted in a rollout since it began."""

    KIND = "evidence"

    stable: Counts = Counts()
    candidate: Counts = Counts()
    grown_mb: float = 0.0  # memory of a replica since the candidate came, in MiB; the largest
    refused: str | None = None  # why the candidate cannot be served

    def plus(self, other: Evidence) -> Evidence:
        return Evidence(
            stable=self.stable.plus(other.stable),
            candidate=self.candidate.plus(other.candidate),
            grown_mb=max(self.grown_mb, other.grown_mb),
            refused=self.refused or other.refused,
        )

    def since(self, earlier: Evidence) -> tuple[Counts, Counts]:
        """What was counted of the stable version and the candidate since."""
        return self.stable.minus(earlier.stable), self.candidate.minus(earlier.candidate)
