"""Rows that take more memory than Ray's object store has, and than any process takes for them.

The heap of each process is watched: for many rows it is as large as for few, but for less than half
of what these take more. A limit of the operating system would count what is not memory: addresses
that allocators reserve, and stacks of threads.
"""

import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from eagleray import spec, storage
from eagleray.state.models import Registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FEW, MANY, WIDTH, FILES = 500_000, 4_000_000, 16, 8
ROW = WIDTH * 4 + 8
"""Bytes of an encoded row: numbers and the index of its class."""
STORE = 80 << 20
"""Bytes of Ray's object store; it takes no fewer."""
FILE = """
name: many
data: {{source: rows, target: y, memory: 32MB}}
model: {{type: mlp, hidden: [16]}}
train: {{epochs: 1, batch_size: 8192, lr: 0.05}}
tune: {{trials: 1, scheduler: none}}
compute: {{workers: {workers}, cpus: {cpus}}}
storage: file://{folder}/store
"""
PROGRAM = f"""
import sys
from rich import console
from eagleray import ray_compat, spec
from ray_jobs import pipeline

with ray_compat.connected(None, ray_compat.DEVICES, num_cpus=1, object_store_memory={STORE}):
    pipeline.run(spec.load(sys.argv[1]), console.Console(width=300))
"""


class Heaps(threading.Thread):
    """The largest heap in bytes of the processes below one, by what they are."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root, self._ended = root, threading.Event()
        self.most: dict[str, int] = defaultdict(int)

    def run(self) -> None:
        turn = 0
        while not self._ended.wait(0.1):
            if turn % 10 == 0:
                below = _below(self._root)
            turn += 1
            for pid in below:
                for line in _lines(pid, "status"):
                    if line.startswith("RssAnon"):
                        role = "driver" if pid == self._root else _role(pid)
                        if role:  # else it has ended between the two reads
                            self.most[role] = max(self.most[role], int(line.split()[1]) << 10)

    def stop(self) -> dict[str, int]:
        self._ended.set()
        self.join()
        return dict(self.most)


def _below(root: int) -> set[int]:
    parents = {}
    for pid in (int(one.name) for one in Path("/proc").iterdir() if one.name.isdecimal()):
        for line in _lines(pid, "status"):
            if line.startswith("PPid"):
                parents[pid] = int(line.split()[1])
    found, fresh = {root}, {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def _role(pid: int) -> str:
    """`worker` for those of Ray, which turn from one task to another, else the program's name."""
    words = "".join(_lines(pid, "cmdline")).split("\0")
    return "worker" if words[0].startswith("ray::") else Path(words[0]).name


def _lines(pid: int, name: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/{name}").read_text().splitlines()
    except OSError:
        return []  # it has ended


def run(folder: Path, rows: int, workers: int) -> dict[str, int]:
    """Search on so many rows; return the largest heaps."""
    (folder / "rows").mkdir(parents=True)
    (folder / "store").mkdir()
    random = np.random.default_rng(0)
    for number in range(FILES):
        numbers = random.normal(size=(WIDTH, rows // FILES)).astype(np.float32)
        label = np.where(numbers[0] > numbers[1], "yes", "no")
        table = pa.table({f"x{n}": column for n, column in enumerate(numbers)} | {"y": label})
        pyarrow.parquet.write_table(table, folder / "rows" / f"{number}.parquet")
    file = folder / "many.yaml"
    file.write_text(FILE.format(workers=workers, cpus=1 / workers, folder=folder))
    command = [sys.executable, "-c", PROGRAM, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        heaps = Heaps(running.pid)
        heaps.start()
        screen = running.communicate()[0].decode()
        most = heaps.stop()
    assert running.returncode == 0, screen
    (version,) = Registry(storage.open(spec.load(file).storage)).versions("many")
    assert version.manifest["metrics"]["test"]["roc_auc"] > 0.99
    assert version.manifest["rows"]["train"] > rows - 100_000
    return most


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The largest heaps of a search on few rows, which are streamed too."""
    return run(tmp_path_factory.mktemp("few") / "few", FEW, workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_trains_on_more_rows_than_fit_into_the_memory_that_it_is_given(
    few: dict[str, int], tmp_path: Path, workers: int
) -> None:
    assert MANY * ROW > 3 * STORE
    most, added = run(tmp_path, MANY, workers), (MANY - FEW) * ROW
    assert {"driver", "worker"} <= set(few)
    for role, heap in most.items():
        assert heap < few.get(role, 0) + added / 2, (role, few, most)
