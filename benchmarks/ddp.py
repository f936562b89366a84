"""What a step of a distributed trial costs over bare torch DDP.

Two gloo workers train the MLP of the digits, each a half of every batch, on two cores:

    torch     DistributedDataParallel as its tutorial writes it: shares of equal size, the mean loss
    eagleray  `ray_jobs.training` with `strategies.Ddp`, as it runs in a worker of Ray Train

Epochs of the two take turns in the same processes; the ratio is the median over turns, since
a machine's speed drifts. Both end with about the same loss, which is checked.

Run: python benchmarks/ddp.py [--rounds 60] [--batch-size 64]
"""

import argparse
import json
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from eagleray import spec
from eagleray.learn import models
from ray_jobs import strategies, training
from ray_jobs.data import encoded, prepare

WORKERS = 2
TARGET = 1.1
FILE = """
name: bench-ddp
data: {{source: "dataset:digits", target: target}}
model: {{type: mlp, hidden: [128, 64], dropout: 0}}
train: {{epochs: 1000, batch_size: {batch_size}}}
tune: {{metric: accuracy}}
storage: file:///tmp/unused
"""


class Bare:
    """A training loop that a user of torch would write."""

    def __init__(self, chosen: spec.Experiment, data: encoded.Encoded) -> None:
        configuration = chosen.default()
        torch.manual_seed(configuration.train.seed)
        model = models.build(configuration.model, data.transforms.shape, 10)
        self.model = DistributedDataParallel(model)
        self.optimizer = torch.optim.Adam(model.parameters(), configuration.train.lr, fused=True)
        self.loss = torch.nn.CrossEntropyLoss()
        self.rows = configuration.train.batch_size // WORKERS
        assert isinstance(data.train, encoded.Part)
        inputs = data.train.inputs.items()
        self.inputs = {name: torch.from_numpy(value.copy()) for name, value in inputs}
        self.targets = torch.from_numpy(data.train.targets.copy())

    def train(self, number: int) -> float:
        """Train an epoch on its whole batches; return the loss."""
        self.model.train()
        torch.manual_seed(number)
        order, whole = torch.randperm(len(self.targets)), self.rows * WORKERS
        total = torch.zeros(())
        batches = len(order) // whole
        for batch in range(batches):
            first = batch * whole + distributed.get_rank() * self.rows
            rows = order[first : first + self.rows]
            self.optimizer.zero_grad(set_to_none=True)
            inputs = {name: value[rows] for name, value in self.inputs.items()}
            loss = self.loss(self.model(inputs), self.targets[rows])
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        distributed.all_reduce(total)
        return float(total) / batches / WORKERS


def prepared(folder: Path, batch_size: int) -> tuple[spec.Experiment, encoded.Encoded]:
    """The experiment and its data, cut to whole batches, which the bare loop needs."""
    file = folder / "bench.yaml"
    file.write_text(FILE.format(batch_size=batch_size))
    chosen = spec.load(file)
    dataset = prepare.dataset(chosen)
    rows = dataset.split.train[: len(dataset.split.train) // batch_size * batch_size]
    transforms = dataset.fit(chosen.default().features)
    parts = dataset.part(transforms, rows), dataset.part(transforms, dataset.split.validation)
    return chosen, encoded.Encoded(transforms, dataset.schema.target, *parts)


def work(rank: int, port: int, folder: Path, rounds: int, batch_size: int) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", address, rank=rank, world_size=WORKERS)
    own = folder / str(rank)
    own.mkdir()
    chosen, data = prepared(own, batch_size)
    peer = Bare(chosen, data)
    ours = training.Trainer(
        chosen.default(), data, metric="accuracy", strategy=strategies.Ddp(most=WORKERS)
    )

    def train(number: int) -> float:
        ours.progress.epoch = number - 1
        return ours.train() or 0.0

    steps = len(data.train.targets) // batch_size
    seconds: dict[str, list[float]] = {"torch": [], "eagleray": []}
    losses = {}
    for number in range(1, rounds + 2):  # the first is not counted
        turns = [("torch", peer.train), ("eagleray", train)]
        for name, one in turns if number % 2 else reversed(turns):
            took, losses[name] = timed(one, number)
            seconds[name].append(took / steps)
    assert abs(losses["torch"] / losses["eagleray"] - 1) < 1e-3, losses
    if rank == 0:
        report(seconds["torch"][1:], seconds["eagleray"][1:])
    distributed.destroy_process_group()


def timed(train: Callable[[int], float], number: int) -> tuple[float, float]:
    distributed.barrier()
    began = time.perf_counter()
    loss = train(number)
    return time.perf_counter() - began, loss


def report(peer_s: list[float], ours_s: list[float]) -> None:
    """Print the seconds of a step."""
    ratio = statistics.median(own / bare for own, bare in zip(ours_s, peer_s, strict=True))
    peer, ours = statistics.median(peer_s), statistics.median(ours_s)
    print(f"a step: torch {peer * 1e3:.2f} ms, eagleray {ours * 1e3:.2f} ms")
    found = {
        "claim": "a step of a distributed trial over bare torch DDP, two gloo workers",
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "target": TARGET,
        "holds": ratio <= TARGET,
    }
    print(json.dumps(found), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=64)
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        rest = (port, Path(folder), given.rounds, given.batch_size)
        workers = [spawn.Process(target=work, args=(rank, *rest)) for rank in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return max(abs(worker.exitcode or 0) for worker in workers)


if __name__ == "__main__":
    sys.exit(main())
