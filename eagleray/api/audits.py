"""The audit of an experiment's data: what is wrong with it, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eagleray import display

if TYPE_CHECKING:
    from eagleray import spec
    from eagleray.findings import Finding
    from eagleray.state import searches

_LABELS = {"error": "ERROR", "warn": "warning", "note": "note"}


@dataclass(frozen=True, repr=False)
class Audit:
    """The findings of an audit.

    Attributes:
        name: of the experiment.
        document: what a search keeps of it: `rows` read, `total` of the source, `findings`.
        reached: the findings that end a run under `audit.fail_on`.
    """

    name: str
    document: searches.Audit
    reached: tuple[Finding, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """All findings, the worst first: `error`, then `warn`, then `note`."""
        return list(self.document.findings)

    @property
    def errors(self) -> list[Finding]:
        """The findings that make a model's scores misleading."""
        return [one for one in self.document.findings if one.severity == "error"]

    def summary(self) -> dict[str, Any]:
        """The audit as values for JSON."""
        return {"name": self.name, **self.document.summary()}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return f"<Audit {self._sentence()}>"

    def _repr_html_(self) -> str:
        headings = ("severity", "check", "finding", "fix", "evidence")
        rows = [
            (_LABELS[one.severity], one.check, one.message, one.fix, "; ".join(one.evidence))
            for one in self.document.findings
        ]
        return display.page(self._sentence(), display.table(headings, rows) if rows else "")

    def _sentence(self) -> str:
        return f"{self.name}: {self.document.sentence()}"

    def _lines(self) -> Iterator[str]:
        yield self._sentence()
        for one in self.document.findings:
            yield ""
            yield f"{_LABELS[one.severity]:8}{one.check}: {one.message}"
            yield from (f"        {line}" for line in one.evidence)
            if one.fix:
                yield f"        fix: {one.fix}"


def examine(experiment: spec.Experiment) -> Audit:
    """Audit an experiment's data.

    Raises:
        DataError: the data cannot be read, or nothing can be learned from them.
        UserError: the data do not fit the experiment.
    """
    from eagleray import audit
    from ray_jobs import audited, search

    document = audited.examine(search.Search(experiment))
    reached = audit.reached(document.findings, experiment.audit.fail_on)
    return Audit(experiment.name, document, tuple(reached))
