"""The rules of `rules.yaml`: what a text that Kubernetes or Ray writes means, and the fix."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eagleray.findings import Finding, Severity

FILE = Path(__file__).with_name("rules.yaml")


@dataclass(frozen=True)
class Rule:
    """What a text means.

    Attributes:
        when: must be found in the text.
        cause: template of the message.
        fix: template of the fix.
        severity: of the finding.
    """

    when: re.Pattern[str]
    cause: str
    fix: str
    severity: Severity


@functools.cache
def table() -> dict[str, list[Rule]]:
    """The rules of each topic, in their order."""
    topics = yaml.safe_load(FILE.read_text())
    return {topic: [_rule(**row) for row in rows] for topic, rows in topics.items()}


def find(topic: str, text: str) -> tuple[Rule, re.Match[str]] | None:
    """The first rule of a topic that applies to a text, and where it does."""
    found = ((rule, rule.when.search(text)) for rule in table()[topic])
    return next(((rule, at) for rule, at in found if at), None)


def match(topic: str, text: str, /, *evidence: str, **fields: Any) -> Finding | None:
    """The finding of the rule that applies to a text; None when none does.

    Args:
        topic: in `rules.yaml`.
        text: that Kubernetes, Ray or EagleRay wrote.
        evidence: of the finding.
        fields: of the templates, beside the pattern's groups and `text`.
    """
    found = find(topic, text)
    if found is None:
        return None
    rule, at = found
    groups = {key: group for key, group in at.groupdict().items() if group is not None}
    known = {"text": text, **fields, **groups}
    cause, fix = (template.format_map(known) for template in (rule.cause, rule.fix))
    return Finding(rule.severity, cause, fix, evidence)


def _rule(fix: str = "", wait: str = "", **causes: str) -> Rule:
    ((pattern, cause),) = causes.items()
    when = re.compile("" if pattern == "else" else pattern)
    return Rule(when, cause, wait or fix, "wait" if wait else "fail")
