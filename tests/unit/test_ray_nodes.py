"""Nodes of Ray that do not start at once, as `ray start` gives up on a busy machine."""

import sys
from pathlib import Path

import pytest

from tests import ray_nodes

PROGRAM = """#!/bin/sh
echo start >> {starts}
if [ $(wc -l < {starts}) -lt {works} ]; then
  echo "The current node timed out during startup."; exit 1
fi
echo "Ray runtime started."; exec sleep 600
"""


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has a line for each start of `ray`, which is a program of this test."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "starts"


def install(starts: Path, *, works: int) -> None:
    """A `ray` that starts the node at this attempt."""
    program = starts.parent / "bin/ray"
    program.write_text(PROGRAM.format(starts=starts, works=works))
    program.chmod(0o700)


def test_a_node_that_gave_up_is_started_again(starts: Path, tmp_path: Path) -> None:
    install(starts, works=3)
    node = ray_nodes.started([], tmp_path, {})
    try:
        assert node.poll() is None
        assert len(starts.read_text().splitlines()) == 3
    finally:
        ray_nodes.end(node)


def test_a_node_that_never_starts_is_said_with_its_log(starts: Path, tmp_path: Path) -> None:
    install(starts, works=99)
    with pytest.raises(AssertionError, match="timed out during startup"):
        ray_nodes.started([], tmp_path, {})
    assert len(starts.read_text().splitlines()) == ray_nodes.MOST_STARTS
