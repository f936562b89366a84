"""A search under chaos: its file, the passes of its workers, what storage has of it."""

import contextlib
import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

from eagleray import errors, spec, storage
from eagleray.state import leases, models, searches
from ray_jobs import scheduler, search

LOOK_S = 0.3
NET = Path(__file__).with_name("net.py")
FILE = """
name: {name}
data: {{source: 'dataset:wine', target: target}}
model: {{type: 'net:Net', width: {width}}}
train: {{lr: {lr}, epochs: {epochs}, batch_size: 32}}
tune: {{trials: {trials}, search: random, metric: log_loss, {tune}}}
compute: {{workers: {workers}, cpus: 1}}
storage: {storage}
"""


@dataclass(frozen=True)
class Kind:
    """What a search is like.

    `exact`: an interrupted trial equals another one to the bit. Trials that are `packed` have one
    width, so that of their passes only the number is known.
    """

    trials: int
    epochs: int
    tune: str
    workers: int = 1
    exact: bool = True
    packed: bool = False


KINDS = {
    "alone": Kind(trials=8, epochs=14, tune="pack: 1, scheduler: none"),
    "asha": Kind(trials=10, epochs=27, tune="pack: 1, scheduler: asha"),
    "packs": Kind(trials=12, epochs=40, tune="pack: 3, scheduler: none", exact=False, packed=True),
    "workers": Kind(trials=4, epochs=16, tune="scheduler: none", workers=2, exact=False),
}


@dataclass(frozen=True)
class Pass:
    """A batch that a worker has trained; `place` 0: a model was made, -1: one of a pack."""

    at: float
    pid: int
    rank: int
    width: int
    place: int


@dataclass
class Life:
    """What one worker has trained of one trial at a stretch."""

    pid: int
    width: int
    began: float
    places: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """What storage had of a trial at a time: the place of its newest checkpoint, or its end."""

    at: float
    width: int
    place: int
    ended: bool


class Searched:
    """A search, and those who watch it."""

    def __init__(self, name: str, kind: Kind, folder: Path, uri: str) -> None:
        self.name, self.kind, self.folder = name, kind, folder
        self.log, self.file = folder / "passes", folder / f"{name}.yaml"
        folder.mkdir()
        (folder / NET.name).write_text(
            NET.read_text().replace('LOG = ""', f"LOG = {str(self.log)!r}", 1)
        )
        self.file.write_text(
            FILE.format(
                name=name,
                width=8 if kind.packed else f"{{choice: {list(range(4, 4 + kind.trials))}}}",
                lr="{loguniform: [1.0e-3, 1.0e-1]}" if kind.packed else 0.01,
                storage=f"{uri}/{name}",
                **{key: getattr(kind, key) for key in ("trials", "epochs", "tune", "workers")},
            )
        )

    @cached_property
    def search(self) -> search.Search:
        return search.Search(spec.load(self.file))

    @cached_property
    def store(self) -> storage.Storage:
        return storage.open(self.search.experiment.storage, attempts=1)

    @cached_property
    def records(self) -> searches.Records:
        return searches.Records(self.store, self.name, self.search.id)

    def lease(self) -> tuple[int, int]:
        """Process and number of the driver that holds the lease; zeros if there is none to see."""
        with contextlib.suppress(errors.StorageError):
            found = leases.read(self.store, self.records.lease_key)
            if not found.free:
                return int(found.owner.rpartition(":")[2]), found.fence or 0
        return 0, 0

    @cached_property
    def batches(self) -> int:
        """Batches of an epoch."""
        rows = len(self.search.dataset.split.train)
        return math.ceil(rows / self.search.experiment.train.batch_size)

    @property
    def versions(self) -> list[int]:
        return [one.number for one in models.Registry(self.store).versions(self.name)]

    @cached_property
    def least(self) -> int:
        """The fewest passes of the search: a trial trains to the first rung, if there is one."""
        rungs = scheduler.rungs(self.search.experiment)
        passes = self.kind.trials * (rungs[0] if rungs else self.kind.epochs) * self.batches
        return passes // 3 if self.kind.packed else passes

    def progress(self) -> float:
        """Passes done, repeated ones not counted but in packs, as part of the least."""
        passes = self.passes()
        places = {(one.width, one.place) for one in passes if one.place > 0}
        return (len(places) + sum(one.place < 0 for one in passes)) / self.least

    def passes(self) -> list[Pass]:
        """What leading workers have written, in order; a line that is being written is left out."""
        lines = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        split = (line.split() for line in lines if line.endswith("\n"))
        found = [Pass(float(at), *map(int, rest)) for at, *rest in split]
        return [one for one in found if one.rank == 0]

    def lives(self) -> list[Life]:
        """What each worker has trained of each trial; packs are left out."""
        begun: dict[tuple[int, int], Life] = {}
        lives = []
        for one in self.passes():
            if one.place == 0:
                begun[one.pid, one.width] = Life(one.pid, one.width, one.at)
                lives.append(begun[one.pid, one.width])
            elif one.place > 0:
                begun[one.pid, one.width].places.append(one.place)
        return [one for one in lives if one.places]

    def workers(self) -> list[int]:
        """Processes that have trained, the latest last; of groups, all members."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return list(dict.fromkeys(int(line.split()[1]) for line in reversed(lines)))[::-1]


class Watch:
    """Notes again and again what storage has of a search, while storage answers."""

    def __init__(self, watched: Searched) -> None:
        self._watched, self.seen = watched, list[Seen]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            with contextlib.suppress(errors.StorageError):
                self.seen += self._look(self._watched.records.trials())

    def _look(self, trials: Iterable[searches.Record]) -> Iterable[Seen]:
        for record in trials:
            width = record.values.get("model.width", 0)
            if not record.unfinished:
                yield Seen(time.time(), width, 0, ended=True)
                continue
            state = self._watched.records.state(record.number, record.values)
            for newest in state.checkpoints[:1]:
                place = newest.epoch * self._watched.batches + newest.batch
                yield Seen(time.time(), width, place, ended=False)
