"""Replicas of one node that share a reader of the aliases."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eagleray import errors, storage
from eagleray.state.aliases import Aliases
from eagleray.state.models import Registry
from serving import node
from tests import bundles


class Counted(Registry):
    """A registry that counts how often it is asked, and may be out of reach."""

    asked, down = 0, False

    def watch(self, name: str, etag: str | None) -> Aliases | None:
        self.asked += 1
        if self.down:
            raise errors.StorageUnavailableError("down")
        return super().watch(name, etag)


@pytest.fixture
def registry(tmp_path: Path) -> Counted:
    (tmp_path / "storage").mkdir()
    made = Counted(storage.open((tmp_path / "storage").as_uri()))
    for seed in (0, 1):
        made.register("left", bundles.files(seed=seed), {})
    made.promote("left", 1)
    made.asked = 0
    return made


def replicas(registry: Counted, folder: Path, count: int) -> list[node.NodeAliases]:
    return [node.NodeAliases(registry, "left", folder, stale_s=30) for _ in range(count)]


def test_one_replica_of_a_node_asks_storage_and_all_follow(
    registry: Counted, tmp_path: Path
) -> None:
    few = replicas(registry, tmp_path / "node", 10)
    seen = [one.watch(None) for one in few]
    assert [one.values for one in seen if one] == [{"champion": 1}] * 10
    assert registry.asked == 1
    etags = [one.etag for one in seen if one]
    assert [one.watch(etag) for one, etag in zip(few, etags, strict=True)] == [None] * 10
    registry.promote("left", 2)
    registry.asked = 0
    moved = [one.watch(etag) for one, etag in zip(few, etags, strict=True)]
    assert [one.values for one in moved if one] == [{"champion": 2}] * 10
    assert registry.asked == 1


def test_the_next_replica_asks_when_the_reader_has_ended(registry: Counted, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    script = (
        "import sys\nfrom pathlib import Path\nfrom eagleray import storage\n"
        "from eagleray.state.models import Registry\nfrom serving import node\n"
        "registry = Registry(storage.open(sys.argv[1]))\n"
        "reader = node.NodeAliases(registry, 'left', Path(sys.argv[2]), stale_s=30)\n"
        "print(reader.watch(None).values, flush=True)\nsys.stdin.read()\n"
    )
    uri = (tmp_path / "storage").as_uri()
    command = [sys.executable, "-c", script, uri, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as reader:  # type: ignore[call-overload]
        assert reader.stdout.readline() == "{'champion': 1}\n"
        (follower,) = replicas(registry, folder, 1)
        followed = follower.watch(None)
        assert followed is not None
        assert registry.asked == 0
        reader.kill()
        reader.wait()
    assert follower.watch(followed.etag) is None
    assert registry.asked == 1


def test_a_copy_that_is_stale_or_damaged_is_not_believed(registry: Counted, tmp_path: Path) -> None:
    reader, follower = replicas(registry, tmp_path / "node", 2)
    assert reader.watch(None) is not None
    copy = tmp_path / "node" / "left.json"
    os.utime(copy, (0, 0))
    assert follower.watch(None) is not None
    assert registry.asked == 2
    for damaged in ("", "[]", json.dumps({"etag": "1"}), json.dumps({"etag": "1", "document": 3})):
        copy.write_text(damaged)
        assert follower.watch(None) is not None
    assert registry.asked == 6


def test_storage_that_fails_is_told_by_the_reader_and_by_those_whose_copy_grows_old(
    registry: Counted, tmp_path: Path
) -> None:
    reader, follower = replicas(registry, tmp_path / "node", 2)
    before = reader.watch(None)
    assert before is not None
    registry.down = True
    with pytest.raises(errors.StorageUnavailableError):
        reader.watch(before.etag)
    assert follower.watch(before.etag) is None
    os.utime(tmp_path / "node" / "left.json", (0, 0))
    with pytest.raises(errors.StorageUnavailableError):
        follower.watch(before.etag)
