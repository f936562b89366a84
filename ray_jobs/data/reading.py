"""How a training reads the rows of a part, in shuffled batches. Legend: B batch, N window.

`Whole` has all rows in memory. `Stream` reads blocks: those of an epoch in a random order, some at
a time (a window), whose rows are shuffled together while the next window is read. Each batch has
about the same share of each block of its window, so that the workers of a group, who read disjoint
blocks, have about equal shares of it. The batches are the same for any number of workers.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from eagleray.learn import features

if TYPE_CHECKING:
    from ray_jobs.data import encoded
    from ray_jobs.data.blocks import Blocks


class Mixed(NamedTuple):
    """Rows that are mixed with others: the targets of these (B), and how much the first count."""

    other_B: Tensor
    share: float


class Batch(NamedTuple):
    """Inputs by name, and targets (B).

    In a group whose workers hold different rows, `shares` says how many each holds; the others are
    not here.
    """

    inputs: dict[str, Tensor]
    target_B: Tensor
    shares: tuple[int, ...] = ()
    mixed: Mixed | None = None

    @property
    def rows(self) -> int:
        """The number of rows of all workers."""
        return sum(self.shares) or len(self.target_B)

    @property
    def truths(self) -> tuple[tuple[Tensor, float], ...]:
        """Targets (B) and how much they count; of rows that are mixed, those of both."""
        if self.mixed is None:
            return ((self.target_B, 1.0),)
        return ((self.target_B, self.mixed.share), (self.mixed.other_B, 1 - self.mixed.share))

    def select(self, rows: Tensor | slice) -> "Batch":
        """Some of the rows that are here."""
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        mixed = self.mixed and self.mixed._replace(other_B=self.mixed.other_B[rows])
        return Batch(inputs, self.target_B[rows], mixed=mixed)

    def to(self, device: torch.device) -> "Batch":
        inputs = {name: value.to(device) for name, value in self.inputs.items()}
        return self._replace(inputs=inputs, target_B=self.target_B.to(device))


Load = Callable[[features.Inputs, np.ndarray], Batch]
"""Puts encoded rows and their targets on the device of a training."""
WINDOW = 16
"""Blocks whose rows are shuffled together."""


class Reader(Protocol):
    """Gives the rows of the training part to one training."""

    def __len__(self) -> int:
        """The number of rows."""

    def shuffled(self, size: int, generator: torch.Generator, start: int = 0) -> Iterator[Batch]:
        """An epoch's batches of `size` rows, without those before the batch `start`.

        The call draws the order of rows from `generator`, and is alone in drawing from it. A last
        batch of one row is left out: batch norm needs two.
        """


class Whole:
    """Rows that are in memory; `chance_B` (B) has each drawn with a chance, again and again."""

    def __init__(self, rows: Batch, chance_B: np.ndarray | None = None) -> None:
        self.rows = rows
        self._up_to_B = None if chance_B is None else torch.from_numpy(np.cumsum(chance_B))

    def __len__(self) -> int:
        return len(self.rows.target_B)

    def shuffled(self, size: int, generator: torch.Generator, start: int = 0) -> Iterator[Batch]:
        order = self._order(generator).to(self.rows.target_B.device)
        chosen = order.split(size)[start:]
        able = (rows for rows in chosen if len(rows) > 1 or len(order) == 1)
        return map(self.rows.select, able)

    def _order(self, generator: torch.Generator) -> Tensor:
        count, up_to_B = len(self), self._up_to_B
        if up_to_B is None:
            return torch.randperm(count, generator=generator)
        drawn_B = torch.rand(count, generator=generator, dtype=torch.float64) * up_to_B[-1]
        return torch.searchsorted(up_to_B, drawn_B, right=True).clamp(max=count - 1)


@dataclass(frozen=True)
class Window:
    """Shuffled rows of some blocks: the worker of each row (N), and the rows of this worker."""

    owner_N: np.ndarray
    own: Batch

    def __len__(self) -> int:
        return len(self.owner_N)

    def cut(self, rows: int, rank: int) -> tuple["Window", "Window"]:
        """The first rows, and the others."""
        place = int((self.owner_N[:rows] == rank).sum())
        head, tail = self.own.select(slice(place)), self.own.select(slice(place, None))
        return Window(self.owner_N[:rows], head), Window(self.owner_N[rows:], tail)

    def batch(self, size: int) -> Batch:
        """All rows, as a group of so many workers holds them."""
        shares = np.bincount(self.owner_N, minlength=size).tolist() if size > 1 else ()
        return self.own._replace(shares=tuple(shares))


class Stream:
    """Rows that are in blocks; the worker `rank` of `size` reads its own blocks alone."""

    def __init__(self, blocks: "Blocks", load: Load, *, rank: int, size: int) -> None:
        self._blocks, self._load, self._rank, self._size = blocks, load, rank, size

    def __len__(self) -> int:
        return len(self._blocks)

    def shuffled(self, size: int, generator: torch.Generator, start: int = 0) -> Iterator[Batch]:
        seed = int(torch.randint(2**31, (), generator=generator))
        return self._batches(size, seed, start * size)

    def _batches(self, size: int, seed: int, skipped: int) -> Iterator[Batch]:
        left: Window | None = None
        for window in self._windows(seed, skipped):
            left = yield from self._cut(window, left, size)
            del window  # before the next one comes
        if left is not None and (len(left) > 1 or len(self) == 1):
            yield left.batch(self._size)

    def _cut(
        self, window: Window, left: Window | None, size: int
    ) -> Generator[Batch, None, Window | None]:
        """Yield batches of the rows that are left of the window before, and of this one."""
        if left is not None:
            head, window = window.cut(size - len(left), self._rank)
            owner_N = np.concatenate([left.owner_N, head.owner_N])
            left = Window(owner_N, joined([left.own, head.own]))
            if len(left) < size:
                return left
            yield left.batch(self._size)
        while len(window) >= size:
            head, window = window.cut(size, self._rank)
            yield head.batch(self._size)
        return Window(window.owner_N, joined([window.own])) if len(window) else None

    def _windows(self, seed: int, skipped: int) -> Iterator[Window]:
        """The windows of an epoch, each read while the one before is trained on."""
        pending: futures.Future[Window] | None = None
        with futures.ThreadPoolExecutor(1) as pool:
            for plan in plans(self._blocks.sizes, seed):
                if skipped >= len(plan.row_N):
                    skipped -= len(plan.row_N)
                    continue
                following, skipped = pool.submit(self._read, plan, skipped), 0
                if pending is not None:
                    yield pending.result()
                pending = following
            if pending is not None:
                yield pending.result()

    def _read(self, plan: "Plan", skipped: int) -> Window:
        owner_N = plan.place_N % self._size
        own_N = owner_N == self._rank
        mixed, row_of_own = _Mixed(int(own_N.sum())), np.cumsum(own_N) - 1
        for place in range(self._rank, len(plan.blocks), self._size):
            chosen_N, part = plan.place_N == place, self._blocks.part(plan.blocks[place])
            mixed.put(part, plan.row_N[chosen_N], row_of_own[chosen_N])
        if self._rank >= len(plan.blocks):  # no block is this worker's
            mixed.put(self._blocks.part(plan.blocks[0]), np.empty(0, int), np.empty(0, int))
        window = Window(owner_N, self._load(mixed.inputs, mixed.targets))
        return window.cut(skipped, self._rank)[1] if skipped else window


class _Mixed:
    """Rows of several blocks, each at its place."""

    def __init__(self, rows: int) -> None:
        self._rows, self.inputs = rows, features.Inputs()
        self.targets = np.empty(0)

    def put(self, part: "encoded.Part", taken: np.ndarray, rows: np.ndarray) -> None:
        """Put rows of a block, `taken`, to the places `rows`."""
        if not self.inputs:
            self.targets = np.empty(self._rows, part.targets.dtype)
        self.targets[rows] = part.targets[taken]
        for name, array in part.inputs.items():
            held, wide = self.inputs.get(name), array.shape[1]
            if held is None or held.shape[1] < wide:  # tokens are padded with 0
                roomy = np.zeros((self._rows, *array.shape[1:]), array.dtype)
                if held is not None:
                    roomy[:, : held.shape[1]] = held
                self.inputs[name] = held = roomy
            held[rows, :wide] = array[taken]


class Plan(NamedTuple):
    """A window before it is read: its blocks; for each row (N) its block's place, its own there."""

    blocks: list[int]
    place_N: np.ndarray
    row_N: np.ndarray


def plans(sizes: Sequence[int], seed: int) -> Iterator[Plan]:
    """The windows of an epoch over blocks of these sizes.

    Within a window the rows of each block, shuffled, are spread evenly over the whole, with jitter.
    """
    order = np.random.RandomState(seed).permutation(len(sizes))
    for number, chosen in enumerate(np.array_split(order, -(-len(sizes) // WINDOW))):
        random = np.random.RandomState([seed, number])
        counts = [sizes[block] for block in chosen]
        rows = [random.permutation(count) for count in counts]
        keys = [(np.arange(count) + random.random_sample(count)) / count for count in counts]
        mixed = np.argsort(np.concatenate(keys), kind="stable")
        places = np.repeat(np.arange(len(chosen)), counts)[mixed]
        yield Plan(chosen.tolist(), places, np.concatenate(rows)[mixed])


def joined(batches: Sequence[Batch]) -> Batch:
    """The rows of batches, copied; tokens as wide as the widest."""
    inputs = {}
    for name in batches[0].inputs:
        values = [one.inputs[name] for one in batches]
        wide = max(value.shape[1] for value in values)
        equal = (
            value if value.shape[1] == wide else functional.pad(value, (0, wide - value.shape[1]))
            for value in values
        )
        inputs[name] = torch.cat(list(equal))
    return Batch(inputs, torch.cat([one.target_B for one in batches]))
