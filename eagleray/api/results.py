"""The result of an experiment: its trials, its winner, and the version that was registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import display

if TYPE_CHECKING:
    import pandas as pd

    from eagleray.api.models import Model
    from eagleray.api.reports import Report

_BEST = 10


@dataclass(frozen=True, repr=False)
class Result:
    """An experiment that has ended, on this machine or on a cluster.

    Attributes:
        summary: JSON, as `eagleray run --json` prints it.
        page: text, as `eagleray run` prints it.
        storage: URI of the storage that holds the version.
    """

    summary: Mapping[str, Any]
    page: str
    storage: str

    @property
    def version(self) -> int:
        """The number of the registered version."""
        return int(self.summary["version"])

    @property
    def winner(self) -> Mapping[str, Any]:
        """The best trial: `trial`, `values` by dotted key, and its `validation` metrics."""
        return dict(self.summary["winner"])

    @property
    def test(self) -> Mapping[str, float]:
        """The winner's metrics on the test part, which no trial has seen."""
        return dict(self.summary["test"])

    @property
    def warnings(self) -> list[str]:
        """Signs that the winner is worse than its metrics."""
        return list(self.summary["warnings"])

    @property
    def leaderboard(self) -> pd.DataFrame:
        """All trials, best first, with a column for each searched key."""
        import pandas as pd

        renamed = {"number": "trial", "score": self.summary["metric"]}
        rows = [
            {renamed.get(key, key): value for key, value in one.items() if key != "values"}
            | {key: _scalar(value) for key, value in one["values"].items()}
            for one in self.summary["trials"]
        ]
        return pd.DataFrame(rows)

    @property
    def model(self) -> Model:
        from eagleray.api.models import models

        return models(self.storage)[self.summary["name"]]

    def report(self) -> Report:
        """How good the winner is, and where it fails."""
        return self.model.report(self.version)

    def __str__(self) -> str:
        return self.page

    def __repr__(self) -> str:
        return f"<Result {self._sentence()}>"

    def _repr_html_(self) -> str:
        validation, best = self.winner["validation"], self.leaderboard.head(_BEST)
        scores = [(name, validation.get(name), value) for name, value in self.test.items()]
        trials = best.astype(object).where(best.notna(), None).to_numpy().tolist()
        return display.page(
            self._sentence(),
            display.notes(f"WARNING: {warning}" for warning in self.warnings),
            display.table(("metric", "validation", "test"), scores, caption="winner"),
            display.table(map(str, best), trials, caption="best trials"),
        )

    def _sentence(self) -> str:
        name, metric, why = (self.summary[key] for key in ("name", "metric", "why"))
        score = display.text(self.test.get(metric))
        return f"{name} version {self.version}: {metric} {score} on the test part; {why}"


def _scalar(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict) else value
