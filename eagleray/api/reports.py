"""How good a version is and where it fails: a page, JSON, and an object for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eagleray import display, errors
from eagleray.state.evaluations import Evaluation
from eagleray.storage import EMBEDDED

if TYPE_CHECKING:
    import pandas as pd

    from eagleray.findings import Finding
    from eagleray.reports import Contents

WORDS = {"fail": "WRONG", "warn": "LOOK AT", "pass": "FINE"}
"""How severities are said in a terminal."""


@dataclass(frozen=True, repr=False)
class Report:
    """What is on record about a version, or about a search without one.

    Attributes:
        contents: the documents that it is made of.
    """

    contents: Contents

    @property
    def title(self) -> str:
        """Model and version, or search."""
        return self.contents.title

    @property
    def sentence(self) -> str:
        """The whole in one sentence."""
        return self.contents.sentence

    @property
    def findings(self) -> list[Finding]:
        """Findings of the evaluation; problems come first."""
        return self.contents.findings

    @property
    def evaluation(self) -> Evaluation | None:
        """All that was measured on the test part; None where nothing is on record."""
        return self.contents.evaluation

    @property
    def metrics(self) -> pd.DataFrame:
        """Metrics on the test part with their 95 % intervals: `metric`, `value`, `low`, `high`."""
        import pandas as pd

        known = self.evaluation.metrics if self.evaluation else {}
        rows = [(name, one.value, one.low, one.high) for name, one in known.items()]
        return pd.DataFrame(rows, columns=("metric", "value", "low", "high"))

    @property
    def slices(self) -> pd.DataFrame:
        """Groups that are predicted worse: `group`, `rows`, `miss`, `low`, `high`, `others`."""
        import pandas as pd

        from eagleray.reports import findings

        rows = [
            (findings.group(one), one.rows, one.miss.value, one.miss.low, one.miss.high, one.others)
            for one in (self.evaluation.slices if self.evaluation else [])
        ]
        return pd.DataFrame(rows, columns=("group", "rows", "miss", "low", "high", "others"))

    def html(self) -> str:
        """The whole report as one page that needs nothing else."""
        from eagleray.reports import page

        return page(self.contents).decode()

    def json(self) -> dict[str, Any]:
        """The whole report as values for JSON."""
        return self.contents.json()

    def save(self, file: str | Path) -> Path:
        """Write the page over what is there; UserError if it cannot be written."""
        from eagleray.storage import files

        path = Path(file)
        try:
            with files.replacing(path) as unfinished:
                unfinished.write_text(self.html(), "utf-8")
        except OSError as cause:
            law = "report: must go to a file that can be written"
            raise errors.UserError(f"{law}, but got {path}: {cause.strerror}") from cause
        return path

    @property
    def file_name(self) -> str:
        """What the page is called by default."""
        known = self.contents
        which = known.version.number if known.version else known.search
        return f"{known.name}-{which}-report.html"

    def lines(self) -> list[str]:
        """Sentence and findings, a line each."""
        found = [f"{WORDS[one.severity]}: {one.message}" for one in self.findings]
        return [self.sentence, *found]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return f"<Report: {self.sentence}>"

    def _repr_html_(self) -> str:
        from eagleray.reports import figures

        found = self.evaluation
        if found is None:
            return display.page(self.sentence)
        beside = figures.beside(self.title, found)
        metrics = [(name, one.value, one.low, one.high) for name, one in found.metrics.items()]
        return display.page(
            self.sentence,
            display.picture(beside.picture) if beside else "",
            display.notes(self.lines()[1:]),
            display.table(("metric", "test part", "from", "to"), metrics),
        )


class Side(NamedTuple):
    """A metric of two versions; None where one lacks it."""

    metric: str
    left: float | None
    right: float | None


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two versions side by side, each as it was judged on its own test part.

    Attributes:
        left: one version.
        right: the other one.
        verdict: which is better on the same rows, in a sentence, or why that is not on record.
        sides: each metric of both.
    """

    left: Report
    right: Report
    verdict: str
    sides: Sequence[Side]

    def json(self) -> dict[str, Any]:
        """The comparison as values for JSON."""
        return {
            "left": self.left.title,
            "right": self.right.title,
            "verdict": self.verdict,
            "metrics": [one._asdict() for one in self.sides],
        }

    def __str__(self) -> str:
        return self.verdict

    def _repr_html_(self) -> str:
        headings = ("metric", self.left.title, self.right.title)
        return display.page(self.verdict, display.table(headings, self.sides))


def report(what: str, storage: str = EMBEDDED) -> Report:
    """Read what is on record of a version or a search.

    Args:
        what: `NAME`, its latest version; `NAME/VERSION` by number or alias; `NAME/SEARCH` or
            `SEARCH` by a search's id: the version of its winner, or its trials so far.
        storage: where they are; that of `eagleray local up` by default.

    Raises:
        UserError: `what` has another form.
        NotFoundError: there is no such model, version or search.
    """
    return Report(_read(what, storage))


def compare(left: str, right: str, storage: str = EMBEDDED) -> Comparison:
    """Set two versions side by side; for the arguments and errors see `report`."""
    from eagleray.reports import contents

    both = _read(left, storage), _read(right, storage)
    sides = [Side(*one) for one in contents.differences(*both)]
    return Comparison(Report(both[0]), Report(both[1]), contents.verdict(*both), sides)


def _read(what: str, uri: str) -> Contents:
    from eagleray import storage
    from eagleray.reports import of

    return of(storage.open(uri), what)
