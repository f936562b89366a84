"""How many trials are trained in one pass: what pays on this machine, for this model."""

import logging
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

from eagleray import engines, messages
from eagleray.learn import models
from ray_jobs import pack, probe, search, searcher, training

log = logging.getLogger(__name__)

SIZES = (8, 32)
"""Sizes of packs that are measured."""
FOLLOWING_SIZE = 4
"""Largest pack where a searcher models results: larger ones find less (docs/adr/0026)."""
MIN_GAIN = 1.3
"""Packs with a smaller gain in speed are not used."""
STEPS, ROUNDS = 10, 2
"""What is measured: steps of an epoch, and how often."""
LONG_STEP_S = 0.05
"""Of a step that takes longer, packs save little: it is arithmetic, not overhead."""


class Choice(NamedTuple):
    """How many trials are trained in one pass at most, and why."""

    size: int
    why: str


def choose(searched: search.Search, *, trials: int, slots: int) -> Choice:
    """Choose the size of packs for the `trials` that are left, of which `slots` run at once.

    A few steps of the default configuration are timed on this machine, alone and in packs.
    """
    tune, compute = searched.experiment.tune, searched.experiment.compute
    if compute.grouped or compute.precision != "fp32":
        return Choice(1, "packs are trained by one worker in fp32")
    if tune.folds > 1:
        return Choice(1, "the folds of a trial are trained one after another")
    if models.engine(searched.experiment.model) != engines.TORCH and tune.scheduler != "pbt":
        return Choice(1, f"{searched.experiment.model.type} is trained one after another")
    measured = tune.pack == "auto"
    if measured and tune.scheduler == "pbt":
        return Choice(max(1, math.ceil(trials / slots)), "a population trains together")
    follows = searcher.REGISTRY[tune.search].startup < math.inf
    largest = FOLLOWING_SIZE if follows else SIZES[-1]
    most = largest if measured else int(tune.pack)
    rounds = math.ceil(trials / (slots * most))
    most = math.ceil(trials / (slots * rounds)) if rounds else 1
    if most == 1:
        return Choice(1, f"tune.pack: {tune.pack}, {trials} trials on {slots} slots")
    if measured and searched.custom.keys() - searched.dataset.functions.keys():
        return Choice(1, "code of your own may keep state of its own, which packs do not see")
    try:
        sizes = {min(size, most) for size in SIZES} if measured else {most}
        gains = _gains(searched, sorted(sizes), longest=LONG_STEP_S if measured else math.inf)
    except Exception as error:  # torch and the user's code raise what they like
        log.info("packs cannot train this model", exc_info=error)
        return Choice(1, f"packs cannot train this model: {messages.shortened(str(error))}")
    if not gains:
        return Choice(1, f"a step of a trial takes more than {1000 * LONG_STEP_S:.0f} ms")
    size, gain = max(gains.items(), key=lambda one: one[1])
    if gain < MIN_GAIN and measured:
        return Choice(1, f"packs of {size} would be {gain:.1f} times as fast as single trials")
    return Choice(size, f"{gain:.1f} times as fast as single trials")


def _gains(
    searched: search.Search, sizes: Sequence[int], *, longest: float = math.inf
) -> dict[int, float]:
    """How many times as fast packs of these sizes are as single trials.

    Empty where a step takes longer than `longest` seconds. Sizes beyond the first one that does
    not pay are left out: they would not pay either, and take the longest to measure.
    """
    configuration = searched.experiment.default()
    data = probe.sample(searched, configuration, STEPS * configuration.train.batch_size)

    def seconds(size: int) -> float:
        trainers = [
            training.Trainer(configuration, data, metric=searched.metric, custom=searched.custom)
            for _ in range(size)
        ]
        began = time.perf_counter()
        if size == 1:
            trainers[0].epoch()
        else:
            pack.epoch(trainers)
        return (time.perf_counter() - began) / size

    alone, gains = min(seconds(1) for _ in range(ROUNDS)), dict[int, float]()
    if alone > longest * STEPS:
        return gains
    for size in sizes:
        gains[size] = alone / min(seconds(size) for _ in range(ROUNDS))
        if gains[size] < MIN_GAIN:
            break
    return gains
