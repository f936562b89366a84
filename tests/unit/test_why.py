"""From snapshots of a cluster, as Kubernetes and KubeRay write them, to a cause and its fix.

Each file of `situations` is one: what was read, then the cause and the fix that are to come of it,
and the whole evidence where there is more to tell.
"""

from __future__ import annotations

import functools
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException

from eagleray import errors
from eagleray.findings import Finding
from k8s import diagnose
from k8s.diagnose.snapshot import Alias, Snapshot
from tests.unit import test_docs

FILES = sorted((Path(__file__).parent / "situations").glob("*.yaml"))


@functools.cache
def read(file: Path) -> tuple[Snapshot, dict[str, Any]]:
    """A snapshot, and what is to be said of it."""
    told = yaml.safe_load(file.read_text())
    known = told.pop("situation")
    known["now"] = datetime.fromisoformat(known["now"])
    known["alias"] = Alias(**known["alias"]) if "alias" in known else None
    known["unread"] = {what: refusal(why) for what, why in known.get("unread", {}).items()}
    return Snapshot(**known), told


def refusal(why: str) -> errors.EagleRayError:
    """Why something was not read: a message, or the status of a kind that is not known."""
    error = errors.UserError(why)
    error.__cause__ = ApiException(status=int(why)) if why.isdecimal() else None
    return error


def explained(file: Path) -> tuple[Finding, dict[str, Any]]:
    snapshot, told = read(file)
    return diagnose.explain(snapshot).finding, told


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_situation_has_its_cause_and_its_fix(file: Path) -> None:
    found, told = explained(file)
    wanted = (told["cause"] or "nothing is wrong", told["fix"] or "")
    assert (found.message, found.fix) == wanted
    assert list(found.evidence) == told.get("evidence", list(found.evidence))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_evidence_begins_with_what_was_asked_about_and_has_whole_lines(file: Path) -> None:
    snapshot, _ = read(file)
    told = diagnose.explain(snapshot)
    if snapshot.subject:
        assert told.finding.evidence[0].startswith(f"{told.kind} {snapshot.name}: {told.state}")
    for line in (*told.finding.evidence, told.finding.message, told.finding.fix or "none"):
        assert line == " ".join(line.split())
        assert line


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_fix_of_ours_is_a_command_that_the_command_line_takes(file: Path) -> None:
    fix = explained(file)[0].fix
    if fix.startswith(("eagleray models ", "eagleray runs ")):
        test_docs.parse(shlex.split(fix.partition(";")[0])[1:])
