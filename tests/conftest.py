"""What several tiers share: a real S3 server of our own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import hypothesis
import pytest

from eagleray.storage import server

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Before torch is imported: on a busy machine two threads of a tiny model wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
