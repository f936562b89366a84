"""What several tiers share: a real S3 server of our own."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
from xdist import scheduler

from eagleray.storage import server

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell that starts tests in the background ignores Ctrl-C, and so would their child processes.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before torch is imported: on a busy machine two threads of a tiny model wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


TOGETHER = "tests/integration/searches/"
"""The files of this folder share a Ray cluster, so one process runs them all."""


class Scheduling(scheduler.LoadFileScheduling):
    """Whole files to each process of `--dist loadfile`, and all of `TOGETHER` to one."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER if nodeid.startswith(TOGETHER) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@dataclass(frozen=True)
class Bucket:
    """A bucket on a running server; `environment` holds the AWS variables for other processes."""

    endpoint: str
    name: str
    uri: str
    environment: dict[str, str]


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """SeaweedFS with access keys, on free ports and a fresh folder, for the whole run."""
    running = server.up(tmp_path_factory.mktemp("seaweedfs"))
    yield Bucket(
        running.endpoint, server.BUCKET, f"s3://{server.BUCKET}", server.environment(running)
    )
    server.down(running.folder)


@pytest.fixture
def s3(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """That bucket, with the environment set so that `storage.open(bucket.uri)` finds it."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket
