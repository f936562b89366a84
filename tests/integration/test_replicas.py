"""Replicas that are killed and versions that change, shorter than `make bench` does it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


def claim(program: str, *options: str) -> dict[str, Any]:
    """The last claim that a program prints."""
    command = [sys.executable, "-m", f"benchmarks.{program}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"said": done.stdout}


def test_hardly_a_request_fails_while_one_replica_of_several_is_killed_again_and_again() -> None:
    """None should; docs/limits.md has what was measured."""
    found = claim("replicas", "--seconds", "30", "--rate", "50")
    assert (found["ours"] <= 2, found["killed"] >= 2) == (True, True), found["said"]


def test_the_memory_of_a_replica_does_not_grow_with_the_versions_that_it_has_served() -> None:
    found = claim("memory", "--changes", "20", "--seconds", "30")
    assert found["ratio"] <= 1.1, found["said"]
