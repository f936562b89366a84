"""The model of the searches: small, slow, and with a place that it writes down.

Copied beside each experiment file, with the path of a log in `LOG`. The place is a buffer, so it is
part of each checkpoint: the first one that a worker writes is the one that it went on from.
"""

import os
import pathlib
import time

import ray
import torch

from eagleray.learn import features

LOG = ""
PASS_S = 0.1


class Net(torch.nn.Module):
    """One hidden layer; each trial has a width of its own, by which its passes are known."""

    place: torch.Tensor

    def __init__(self, shape: features.Shape, outputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("place", torch.tensor(0))  # batches trained
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(shape.numeric, width), torch.nn.ReLU(), torch.nn.Linear(width, outputs)
        )
        worker = ray.is_initialized() and ray.get_runtime_context().get_actor_id()
        self.logs = bool(LOG and worker)  # not where the driver checks the code
        if self.logs:
            self.write(0)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.training:
            self.place += 1
            if self.logs:
                packed = torch._C._functorch.is_batchedtensor(self.place)
                self.write(-1 if packed else int(self.place))
                time.sleep(PASS_S)
        outputs: torch.Tensor = self.layers(inputs["numeric"])
        return outputs

    def write(self, place: int) -> None:
        """A line: time, process, rank, width, batches trained; 0: made, -1: in a pack."""
        group = torch.distributed
        rank = group.get_rank() if group.is_initialized() else 0
        with pathlib.Path(LOG).open("a") as log:
            log.write(f"{time.time()} {os.getpid()} {rank} {self.width} {place}\n")
