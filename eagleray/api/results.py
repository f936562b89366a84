"""What came of an experiment: its trials, its winner, and the version that was registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import look

if TYPE_CHECKING:
    import pandas as pd

    from eagleray.api.models import Model
    from ray_jobs import pipeline

_BEST = 10


@dataclass(frozen=True, repr=False)
class Result:
    """An experiment that has come to its end, here or elsewhere.

    Attributes:
        summary: the whole as JSON, what `eagleray run --json` prints.
        page: the whole as text, what `eagleray run` prints.
        storage: URI of the storage that holds the version.
    """

    summary: Mapping[str, Any]
    page: str
    storage: str

    @classmethod
    def of(cls, outcome: pipeline.Outcome) -> Result:
        """The result of a search that ended in this process."""
        from ray_jobs.report import page

        return cls(outcome.summary(), page.text(outcome), outcome.search.experiment.storage)

    @property
    def version(self) -> int:
        """The number of the winner's version."""
        return int(self.summary["version"])

    @property
    def winner(self) -> Mapping[str, Any]:
        """The best trial: `trial`, `values` by dotted key, and its `validation` metrics."""
        winner: Mapping[str, Any] = self.summary["winner"]
        return winner

    @property
    def test(self) -> Mapping[str, float]:
        """The winner's metrics on the test part, which nothing has seen before."""
        test: Mapping[str, float] = self.summary["test"]
        return test

    @property
    def warnings(self) -> list[str]:
        """Signs that the winner is not what its metrics suggest."""
        return list(self.summary["warnings"])

    @property
    def leaderboard(self) -> pd.DataFrame:
        """All trials, the best first, with a column for each key that was searched."""
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
        """The model that the version belongs to."""
        from eagleray.api.models import models

        return models(self.storage)[self.summary["name"]]

    def __str__(self) -> str:
        return self.page

    def __repr__(self) -> str:
        return f"<Result {self._sentence()}>"

    def _repr_html_(self) -> str:
        validation = self.winner["validation"]
        scores = [(name, validation.get(name), value) for name, value in self.test.items()]
        best = self.leaderboard.head(_BEST)
        headings = list(map(str, best))
        return look.page(
            self._sentence(),
            look.notes(f"WARNING: {warning}" for warning in self.warnings),
            look.table(("metric", "validation", "test"), scores, caption="winner"),
            look.table(headings, best.astype(object).to_numpy().tolist(), caption="best trials"),
        )

    def _sentence(self) -> str:
        told = self.summary
        score = f"{told['metric']} {look.shown(self.test.get(told['metric']))}"
        return f"{told['name']} version {self.version}: {score} on the test part; {told['why']}"


def _scalar(value: Any) -> Any:
    """A value that a cell can hold."""
    return str(value) if isinstance(value, list | dict) else value
