"""From situations, as Kubernetes and KubeRay write them, to causes and what mends them.

Each file of `situations` is one: what was read, then the cause and the mend that are to come of it,
and the whole chain where there is more to tell.
"""

from __future__ import annotations

import functools
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import why
from k8s.situation import Alias, Situation
from tests.unit import test_docs

FILES = sorted((Path(__file__).parent / "situations").glob("*.yaml"))


@functools.cache
def read(file: Path) -> tuple[Situation, dict[str, Any]]:
    """A situation, and what is to be said of it."""
    told = yaml.safe_load(file.read_text())
    known = told.pop("situation")
    known["now"] = datetime.fromisoformat(known["now"])
    if "alias" in known:
        known["alias"] = Alias(**known["alias"])
    return Situation(**known), told


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_situation_has_its_cause_and_its_mend(file: Path) -> None:
    situation, told = read(file)
    found = why.explain(situation)
    assert (found.cause, found.mend) == (told["cause"], told["mend"])
    assert list(found.chain) == told.get("chain", list(found.chain))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_chain_begins_with_what_was_asked_about_and_has_whole_lines(file: Path) -> None:
    situation, _ = read(file)
    found = why.explain(situation)
    if situation.kind != "Cluster":
        assert found.chain[0].startswith(f"{situation.kind} {situation.name}: {found.state}")
    for line in (*found.chain, found.cause or "none", found.mend or "none"):
        assert line == " ".join(line.split())
        assert line


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_mend_of_ours_is_a_command_that_the_command_line_takes(file: Path) -> None:
    mend = read(file)[1]["mend"] or ""
    if mend.startswith(("eagleray models ", "eagleray runs ")):
        test_docs.parse(shlex.split(mend.partition(";")[0])[1:])
