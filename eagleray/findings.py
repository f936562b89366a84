"""A finding: what a check or a rule of diagnosis says about a machine, storage or a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["pass", "skip", "wait", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        severity: `skip` when there was nothing to look at; `wait` when it passes by itself.
        message: one line; the cause, where something is wrong.
        fix: one command, or one value to set; empty where nothing is wrong.
        evidence: what the message rests on, a line for each object, the outermost first.
        check: what was looked at, in a report of several checks.
    """

    severity: Severity
    message: str
    fix: str = ""
    evidence: tuple[str, ...] = ()
    check: str = ""

    def under(self, line: str) -> Finding:
        """The same finding, seen from the object above."""
        return replace(self, evidence=(line, *self.evidence))

    def named(self, check: str) -> Finding:
        """The same finding as a line of a report."""
        return replace(self, check=self.check or check)


def passed(message: str) -> Finding:
    """All is well."""
    return Finding("pass", message)


def skipped(message: str, fix: str = "") -> Finding:
    """There was nothing to look at."""
    return Finding("skip", message, fix)


def waiting(message: str, fix: str, *evidence: str) -> Finding:
    """It passes by itself."""
    return Finding("wait", message, fix, evidence)


def warned(message: str, fix: str, *evidence: str) -> Finding:
    """It may go wrong."""
    return Finding("warn", message, fix, evidence)


def failed(message: str, fix: str, *evidence: str) -> Finding:
    """It is wrong."""
    return Finding("fail", message, fix, evidence)


def first(found: Iterable[Finding | None]) -> Finding | None:
    """The first finding that does not pass by itself, else the first one."""
    findings = [one for one in found if one is not None]
    lasting = [one for one in findings if one.severity != "wait"]
    return next(iter([*lasting, *findings]), None)


def healthy(found: Iterable[Finding]) -> bool:
    """Whether no finding fails."""
    return all(one.severity != "fail" for one in found)
