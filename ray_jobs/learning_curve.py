"""The learning curve of a winner: its configuration trained again on nested shares of the rows.

The driver trains it when the search has ended, within a tenth of the time that this took, and
judges each model on the test part as the winner. All rows are the best trial's own training, with
folds another one. A network sees a share as often as makes up all rows: it takes as many steps, so
that the curve tells rows from steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from eagleray import bundle, errors, evaluation, messages
from eagleray.evaluation import learning_curve
from eagleray.learn import tasks
from eagleray.state import searches
from eagleray.state.learning_curves import LearningCurve
from ray_jobs import bundles, learner, search, strategies, tensors
from ray_jobs.data import encoded, prepare, shares

SHARES = ("1/2", "1/4", "1/8")
PART = 10
LEAST_S, MOST_S = 10.0, 600.0
"""One in `PART` seconds of the search is what a curve may take, but at least and at most these."""
ANNOUNCED_S = 5.0
"""A curve that takes longer is announced."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What there is time for.

    Attributes:
        shares: the first few of `SHARES`.
        seconds: what they take, about.
        limit: seconds after which no more is trained.
        why: why shares are left out.
    """

    shares: tuple[str, ...] = ()
    seconds: float = 0.0
    limit: float = 0.0
    why: str = ""

    def __str__(self) -> str:
        return (
            "learning curve: the winner's configuration is trained on"
            f" {', '.join(self.shares)} of the training rows, about {messages.span(self.seconds)}"
        )


@dataclasses.dataclass(frozen=True)
class Found:
    """The curve, if there is one, and a note on shares that are left out."""

    curve: LearningCurve | None
    notes: list[str]


def plan(searched: search.Search, trial: searches.Record) -> Plan:
    """Which shares there is time for, by what the search and the trial took."""
    if why := _unable(searched):
        return Plan(why=why)
    limit = min(MOST_S, max(LEAST_S, searched.seconds() / PART))
    configuration, folds = searched.experiment.configuration(trial.values), trial.folds > 1
    once = trial.seconds / (max(1, trial.epoch) if folds else 1)
    batched = learner.member(configuration.model).batched
    costs = (once * (1 if batched else 0.5**halving) for halving in range(1, len(SHARES) + 1))
    summed = list(itertools.accumulate(costs, initial=once if folds else 0.0))
    count = sum(seconds <= limit for seconds in summed[1:])
    why = (
        f"a training takes about {messages.span(once)}, and all may take {messages.span(limit)}"
        f" (one in {PART} seconds of the search, {messages.span(LEAST_S)} at least and"
        f" {messages.span(MOST_S)} at most)"
    )
    return Plan(SHARES[:count], summed[count], limit, "" if count == len(SHARES) else why)


def measure(
    searched: search.Search,
    trial: searches.Record,
    test: evaluation.Part,
    judged: evaluation.Judged,
    *,
    announce: Callable[[str], object] = lambda _: None,
) -> Found:
    """The curve of a trial on the test part, on which `judged` is the winner.

    A plan that takes a while is announced. What fails becomes a note: the search has ended well.
    """
    began, points, why = time.monotonic(), dict[int, evaluation.Judged](), ""
    try:
        planned = plan(searched, trial)
        why = planned.why
        if planned.seconds >= ANNOUNCED_S:
            announce(str(planned))
        with _threads(searched.experiment.compute.cpus):
            for rows, model in _models(searched, trial, planned):
                outputs, target = model.predict_columns(test.columns).outputs, model.schema.target
                points[rows] = judged.beside(outputs, target=target, names=(searched.metric,))
    except Exception as cause:  # noqa: BLE001 - of libraries, storage, and the user's own code
        why = str(cause).removeprefix("data.split: ")
    curve = None
    if len(points) > 1:
        rows_K, seconds = sorted(points), time.monotonic() - began
        judged_K = [points[rows] for rows in rows_K]
        curve = learning_curve.measure(rows_K, judged_K, searched.metric, seconds=seconds)
        why = why if curve else f"{searched.metric} tells no error of each model on the test part"
    left = "smaller shares left out" if curve else "left out"
    return Found(curve, [f"learning curve: {left}: {why}"] if why else [])


def _unable(searched: search.Search) -> str:
    """Why the driver does not train this configuration again; empty if it does."""
    experiment, dataset = searched.experiment, searched.dataset
    if dataset.streamed:
        return "streamed rows are not in the driver's memory"
    if tasks.of(dataset.schema.target).remembers:
        return "fewer rows of each user would be another problem"
    if experiment.compute.grouped:
        return "a trial is trained by a group of workers, and the driver is one process"
    if experiment.compute.gpus:
        return "trials are trained on GPUs, and the driver has none"
    if dataset.functions:
        return "code of your own makes columns, and nobody knows how long it takes"
    if experiment.tune.scheduler == "pbt":
        return "the values of a population change while it trains"
    return ""


def _models(
    searched: search.Search, trial: searches.Record, planned: Plan
) -> Iterator[tuple[int, bundle.Bundle]]:
    """Yield numbers of rows and models: of all rows, of half of them, and so on."""
    if not planned.shares:
        return
    ends = time.monotonic() + planned.limit
    dataset = dataclasses.replace(searched.dataset, folds=())

    def late() -> bool:
        return time.monotonic() > ends

    with searched.records.curve_attempt() as was_killed:
        if was_killed:
            raise errors.TrainingError("the driver before was killed while it trained one")
        alone = trial.folds == 1
        whole = bundles.of(searched, trial) if alone else _trained(searched, trial, dataset, late)
        yield len(dataset.split.train), whole
        halves = shares.halves(dataset, searched.experiment.data)
        for half in itertools.islice(halves, len(planned.shares)):
            yield len(half.split.train), _trained(searched, trial, half, late)


def _trained(
    searched: search.Search,
    trial: searches.Record,
    dataset: prepare.Dataset,
    late: Callable[[], bool],
) -> bundle.Bundle:
    """The model of a trial's configuration on other rows, after as many epochs at most."""
    experiment = searched.experiment
    configuration = experiment.configuration(trial.values)
    transforms = dataset.fit(configuration.features)
    data = dataset.encode(transforms)
    if learner.member(configuration.model).batched:
        times = round(len(searched.dataset.split.train) / len(dataset.split.train))
        data = dataclasses.replace(data, train=_repeated(data.train, times))
    running = learner.build(
        configuration,
        data,
        metric=searched.metric,
        strategy=strategies.OneProcess("cpu", experiment.compute.precision),
        custom=searched.custom,
    )
    most = trial.epoch if trial.folds == 1 else configuration.train.epochs
    while not running.finished and running.progress.epoch < most:
        if late() or running.epoch(late) is None:
            raise errors.TrainingError("its time was over")
    with tempfile.TemporaryDirectory(prefix="eagleray-curve-") as folder:
        file = Path(folder) / "best"
        file.write_bytes(running.best("learning curve").read())
        return bundles.made(searched, dataset, configuration, transforms, tensors.Reader([file]))


def _repeated(part: encoded.Training, times: int) -> encoded.Part:
    """Each row so many times."""
    assert isinstance(part, encoded.Part)  # rows in memory
    places = np.tile(np.arange(len(part)), times)
    inputs = {name: array[places] for name, array in part.inputs.items()}
    return encoded.Part(inputs, part.targets[places])


@contextlib.contextmanager
def _threads(cpus: float) -> Iterator[None]:
    """Train in the block with as many threads as a trial has."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(cpus)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
