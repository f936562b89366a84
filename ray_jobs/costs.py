"""What a model costs beside its metric, by `tune.cost`; lower is better.

A cost is a line of `REGISTRY` and a function of a trainer.
"""

import statistics
import time

import torch

from ray_jobs import training

PASSES = 50
"""Forward passes of one row whose median is a latency, after as many to warm up."""


def latency(trainer: training.Trainer) -> float:
    """Median seconds of the forward pass of one row."""
    inputs = {name: value[:1] for name, value in next(trainer.validation_batches())[0].items()}
    trainer.model.eval()
    seconds = []
    with torch.inference_mode():
        for _ in range(2 * PASSES):
            began = time.perf_counter()
            trainer.model(inputs)
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[PASSES:])


def size(trainer: training.Trainer) -> float:
    """Bytes of the weights."""
    return float(sum(value.nbytes for value in trainer.model.state_dict().values()))


REGISTRY = {"latency": latency, "size": size}
