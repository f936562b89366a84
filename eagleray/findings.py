"""A finding: what a check says about data, a machine, storage or a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

Severity = Literal["pass", "skip", "wait", "note", "warn", "fail", "error"]
"""`note` and `error` are of data: worth knowing, and a model of these data misleads. `fail` is of a
check of a machine or a cluster."""


@dataclass(frozen=True)
class Finding:
    """What is right, or what is wrong and its fix.

    Attributes:
        severity: `skip` when there is nothing to check; `wait` when it passes by itself.
        message: one line; the cause, where something is wrong.
        fix: one command, or one value to set (of data, a line of YAML); empty where nothing is
            wrong, or nothing can be set.
        evidence: what the message rests on, a line for each object, the outermost first.
        check: the name of the check, in a report of several.
        column: of data, the column that it is about; empty for rows and for the target.
        numbers: of data, what was measured, by name.
        rows: of data, numbers of the worst rows in the source, from 1, the worst first.
    """

    severity: Severity
    message: str
    fix: str = ""
    evidence: tuple[str, ...] = ()
    check: str = ""
    column: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)
    rows: tuple[int, ...] = ()

    def under(self, line: str) -> Finding:
        """The same finding, with the line of an outer object as its first evidence."""
        return replace(self, evidence=(line, *self.evidence))

    def named(self, check: str) -> Finding:
        return replace(self, check=self.check or check)


@dataclass(frozen=True)
class Explanation:
    """Why an object is in its state; of the whole namespace if nothing could be read."""

    kind: str  # of the object; `Cluster` for a namespace
    name: str  # of the object, or of the namespace
    state: str
    finding: Finding  # cause and fix; the evidence leads from the object down to the cause
    unseen: tuple[str, ...]  # what could not be read, and why


passed = partial(Finding, "pass")
skipped = partial(Finding, "skip")
warned = partial(Finding, "warn")
failed = partial(Finding, "fail")
noted = partial(Finding, "note")
wrong = partial(Finding, "error")


def first(findings: Iterable[Finding | None]) -> Finding | None:
    """The first finding that does not pass by itself, else the first one."""
    return min(filter(None, findings), key=lambda one: one.severity == "wait", default=None)
