"""How the steps of a training are spread: over one process, or over the workers of a group.

All workers of a group run the same loop. Each takes its share of the rows of every global batch, so
that batch and loss are those of one worker, whatever the number of workers; a smaller group works
through more pieces (gradient accumulation), none larger than with all workers.

Legend: B batch, C outputs.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ray_jobs import tensors
from ray_jobs.data import reading

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

T = TypeVar("T")

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
UNIT = 2**20
"""Parameters from which a layer is gathered by itself under `fsdp`; smaller ones all together."""
ASK_S = 0.25
"""Time between two questions of a group whether to stop between two batches."""
MIN_ROWS = 2
"""Rows of a worker in a batch; batch norm needs two. A batch with fewer is trained whole by all."""


class Piece(NamedTuple):
    """Rows of a batch for one pass forward and backward."""

    rows: slice
    last: bool = True  # of this worker in this batch
    copies: int = 1  # workers that have the same rows


class OneProcess:
    """Trains in this process alone."""

    rank, size = 0, 1
    parts = 1
    """Workers that save a checkpoint together: the leading one, or all if each holds a part."""

    def __init__(self, device: str = "cpu", precision: str = "fp32") -> None:
        self.device, self.precision = torch.device(device), precision

    @property
    def leads(self) -> bool:
        """Whether this worker speaks for its group: it reports, and commits checkpoints."""
        return self.rank == 0

    @property
    def saves(self) -> bool:
        """Whether this worker uploads a part of each checkpoint."""
        return self.rank < self.parts

    def spread(self, model: nn.Module) -> nn.Module:
        """What is called in place of the model; before its optimizer is built."""
        return model

    def shareable(self, batch: reading.Batch) -> reading.Batch:
        """The batch; all of its rows in each worker if some worker has too few of them."""
        return batch

    def pieces(self, rows: int, shares: Sequence[int] = ()) -> list[Piece]:
        """This worker's part of a batch, of which workers hold `shares`, or else all rows each."""
        return [Piece(slice(0, rows))]

    def syncing(self, piece: Piece) -> AbstractContextManager[None]:
        """Exchange gradients in a backward pass in the block, if the piece is the last."""
        return nullcontext()

    def casting(self) -> AbstractContextManager[object]:
        """Compute in `compute.precision` in the block."""
        if self.precision not in PRECISIONS:
            return nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[self.precision])

    def total(self, value: Tensor) -> Tensor:
        """The sum of a value over all workers."""
        return value

    def total_of_parts(self, value: Tensor) -> Tensor:
        """The sum of a value over the workers that each hold a part of the weights."""
        return value

    def replaced(self) -> None:
        """Called after weights were changed in another way than by a step."""

    def share(self, rows: int) -> slice:
        """This worker's rows in an evaluation of so many."""
        return slice(0, rows)

    def joined(self, output_BC: Tensor, rows: int) -> Tensor:
        """The outputs of all rows, from each worker's share."""
        return output_BC

    def agree(self, decide: Callable[[], T]) -> T:
        """Decide in the leading worker; return its decision in every worker."""
        return decide()

    def each(self, value: T) -> list[T]:
        """The values of all workers."""
        return [value]

    def stopped(self, stop: Callable[[], bool]) -> bool:
        """Whether all workers stop before the next batch; `stop` is asked in the leading one."""
        return stop()

    def to_local(self, value: Tensor) -> Tensor:
        """The rows of a tensor that this worker holds; all, if it is not sharded."""
        return value

    def local_rows(self, value: Tensor) -> tensors.RowRange | None:
        """Which rows of a tensor this worker holds; None if it is not sharded."""
        return None

    def from_local(self, local: Tensor, held: Tensor) -> Tensor:
        """Make a tensor that is sharded like `held` from the rows of this worker."""
        return local


class Ddp(OneProcess):
    """Trains in a group of workers, each with the whole model (Li et al. 2020, arXiv:2006.15704).

    The process group must be there. `most` is the number of workers that a batch is cut for.
    """

    def __init__(self, device: str = "cpu", precision: str = "fp32", *, most: int = 1) -> None:
        super().__init__(device, precision)
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._most = max(most, self.size)
        self._spread: nn.Module | None = None
        self._asked, self._unasked, self._every = time.monotonic(), 0, 1  # for `stopped`

    def spread(self, model: nn.Module) -> nn.Module:
        if self.device.type == "cuda":  # batch norm over the whole batch, which CPUs do not have
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self._spread = DistributedDataParallel(model)
        return self._spread

    def shareable(self, batch: reading.Batch) -> reading.Batch:
        if not batch.shares or min(batch.shares) >= MIN_ROWS:
            return batch
        held: list[Any] = [None] * self.size
        own = {name: value.cpu() for name, value in batch.inputs.items()}
        distributed.all_gather_object(held, (own, batch.target_B.cpu()))
        return reading.joined([reading.Batch(*one) for one in held]).to(self.device)

    def pieces(self, rows: int, shares: Sequence[int] = ()) -> list[Piece]:
        share = slice(0, shares[self.rank]) if shares else self.share(rows)
        if self._is_small(rows):
            return [Piece(share, copies=self.size)]
        # as many in each worker: those of a sharded model wait for one another
        largest, most = -(-rows // self._most), -(-rows // self.size)
        least = min(shares, default=rows // self.size)
        count = min(-(-most // largest), least // MIN_ROWS)
        pieces = _cut(share.stop - share.start, count, share.start)
        return [Piece(one, one.stop == share.stop) for one in pieces]

    @contextlib.contextmanager
    def syncing(self, piece: Piece) -> Iterator[None]:
        spread = cast(DistributedDataParallel, self._spread)
        with nullcontext() if piece.last else spread.no_sync():
            yield

    def total(self, value: Tensor) -> Tensor:
        distributed.all_reduce(value)
        return value

    def share(self, rows: int) -> slice:
        return slice(0, rows) if self._is_small(rows) else _cut(rows, self.size)[self.rank]

    def joined(self, output_BC: Tensor, rows: int) -> Tensor:
        if self._is_small(rows):
            return output_BC
        shares = _cut(rows, self.size)
        padded = output_BC.new_zeros(-(-rows // self.size), *output_BC.shape[1:])
        padded[: len(output_BC)] = output_BC
        gathered = [torch.empty_like(padded) for _ in shares]
        distributed.all_gather(gathered, padded)
        cut = [one[: of.stop - of.start] for one, of in zip(gathered, shares, strict=True)]
        return torch.cat(cut)

    def agree(self, decide: Callable[[], T]) -> T:
        said = [decide() if self.leads else None]
        distributed.broadcast_object_list(said, src=0)
        return cast(T, said[0])

    def each(self, value: T) -> list[T]:
        found: list[T | None] = [None] * self.size
        distributed.all_gather_object(found, value)
        return cast(list[T], found)

    def stopped(self, stop: Callable[[], bool]) -> bool:
        self._unasked += 1
        if self._unasked < self._every:
            return False
        found, every = self.agree(lambda: (stop(), self._batches()))
        self._asked, self._unasked, self._every = time.monotonic(), 0, every
        return found

    def _batches(self) -> int:
        """How many batches take about `ASK_S`."""
        one = (time.monotonic() - self._asked) / self._unasked
        return max(1, min(2 * self._every, int(ASK_S / one)))

    def _is_small(self, rows: int) -> bool:
        return rows < MIN_ROWS * self.size


class Fsdp(Ddp):
    """Trains in a group, each worker with a part of the weights, gradients and moments.

    Source: Zhao et al. 2023, arXiv:2304.11277. Its part of torch, which takes a second to import,
    is imported where it is used.
    """

    def __init__(self, device: str = "cpu", precision: str = "fp32", *, most: int = 1) -> None:
        from torch.distributed.tensor import DTensor

        super().__init__(device, precision, most=most)
        self.parts, self._sharded = self.size, DTensor

    def spread(self, model: nn.Module) -> nn.Module:
        from torch.distributed.fsdp import fully_shard

        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        for layer in list(model.modules())[1:]:
            if sum(own.numel() for own in layer.parameters(recurse=False)) >= UNIT:
                fully_shard(layer)
        self._spread = cast(nn.Module, fully_shard(model))
        return self._spread

    @contextlib.contextmanager
    def syncing(self, piece: Piece) -> Iterator[None]:
        cast("FSDPModule", self._spread).set_requires_gradient_sync(piece.last)
        yield

    def total_of_parts(self, value: Tensor) -> Tensor:
        return self.total(value)

    def replaced(self) -> None:
        from torch.distributed.fsdp import FSDPModule

        for module in cast(nn.Module, self._spread).modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # else the next pass takes weights that were gathered before

    def to_local(self, value: Tensor) -> Tensor:
        return value.to_local() if isinstance(value, self._sharded) else value

    def local_rows(self, value: Tensor) -> tensors.RowRange | None:
        if not isinstance(value, self._sharded):
            return None
        return shard_rows(len(value), self.size)[self.rank]

    def from_local(self, local: Tensor, held: Tensor) -> Tensor:
        if not isinstance(held, self._sharded):
            return local
        return self._sharded.from_local(
            local.to(self.device),
            held.device_mesh,
            held.placements,
            run_check=False,
            shape=held.shape,
            stride=held.stride(),
        )


def shard_rows(rows: int, parts: int) -> list[tensors.RowRange]:
    """Which rows of a tensor each worker holds under `fsdp`; `torch.chunk` cuts them so."""
    most = -(-rows // parts)
    ends = [min(part * most, rows) for part in range(parts + 1)]
    return [tensors.RowRange(*bounds, rows) for bounds in itertools.pairwise(ends)]


def _cut(rows: int, parts: int, start: int = 0) -> list[slice]:
    """Parts of equal size, to one row."""
    ends = [start + rows * part // parts for part in range(parts + 1)]
    return [slice(*bounds) for bounds in itertools.pairwise(ends)]
