"""The rules of `rules.yaml`: what a text that Kubernetes or Ray writes means, and the fix."""

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from eagleray.findings import Finding, Severity

Findings = Iterator[Finding | None]
FILE = Path(__file__).with_name("rules.yaml")


class Rule(NamedTuple):
    """A pattern, and templates of the cause and the fix that it stands for."""

    pattern: re.Pattern[str]
    cause: str
    fix: str
    severity: Severity


@functools.cache
def table() -> dict[str, list[Rule]]:
    """The rules of each topic, in their order."""
    topics = yaml.safe_load(FILE.read_text())
    return {topic: [_rule(row) for row in rows] for topic, rows in topics.items()}


def find(topic: str, text: str) -> tuple[Rule, re.Match[str]] | None:
    """The first rule of a topic whose pattern is in a text, and the match."""
    matches = ((rule, rule.pattern.search(text)) for rule in table()[topic])
    return next(((rule, match) for rule, match in matches if match), None)


def match(topic: str, text: str, /, *evidence: str, **fields: Any) -> Finding | None:
    """The finding of the first rule of a topic that matches a text; None if none does.

    Templates know `fields`, the pattern's groups and `text`.
    """
    found = find(topic, text)
    if found is None:
        return None
    rule, groups = found[0], found[1].groupdict()
    known = {"text": text, **fields, **{key: one for key, one in groups.items() if one is not None}}
    cause, fix = rule.cause.format_map(known), rule.fix.format_map(known)
    return Finding(rule.severity, cause, fix, evidence)


def case(cases: Mapping[str, object]) -> str:
    """The first text whose condition holds."""
    return next(text for text, holds in cases.items() if holds)


def one_line(text: str, most: int = 300) -> str:
    """A message in one line, cut where it is very long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]} …"


def last_line(text: str) -> str:
    """The last line of a log that is not blank."""
    return one_line(text.rstrip().rpartition("\n")[2])


def _rule(row: dict[str, str | None]) -> Rule:
    (pattern, cause), *more = row.items()
    verdict, fix = more[0] if more else ("pass", "")
    severity: Any = "fail" if verdict == "fix" else verdict
    return Rule(re.compile("" if pattern == "else" else pattern), str(cause), fix or "", severity)
