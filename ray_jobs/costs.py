"""What a model costs beside its metric, by `tune.cost`; lower is better.

A cost is a line of `REGISTRY` and a function of a learner.
"""

import statistics
import time

from ray_jobs import learner

PASSES = 50
"""Predictions of one row whose median is a latency, after as many to warm up."""


def latency(trained: learner.Learner) -> float:
    """Median seconds of the prediction of one encoded row."""
    run, seconds = trained.one_row(), []
    for _ in range(2 * PASSES):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[PASSES:])


def size(trained: learner.Learner) -> float:
    """Bytes of the model."""
    return float(trained.size)


REGISTRY = {"latency": latency, "size": size}
