"""A short form of `make chaos`: five kills, one of each process, over two searches."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_searches_end_with_what_was_asked_for_whoever_is_killed() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--events", "5"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    summary = json.loads(ran.stdout.splitlines()[-1])
    assert (summary["events"], summary["broken"], ran.returncode) == (5, [], 0), ran.stdout
