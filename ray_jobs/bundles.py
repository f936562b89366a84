"""Trials as bundles, rebuilt from their weights in storage: one alone, or the mean of several."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from eagleray import bundle, errors, spec
from eagleray.engines import ensemble
from eagleray.learn import features, tasks
from eagleray.state import searches
from eagleray.storage import cache
from ray_jobs import checkpoints, learner, search, tensors
from ray_jobs.data import prepare


class Readable(NamedTuple):
    """Trials, the best one whose weights can be read first, and what is wrong with better ones."""

    trials: list[searches.Record]
    damaged: list[str]


def readable(searched: search.Search, trials: Sequence[searches.Record]) -> Readable:
    """Rank trials anew without those whose weights are damaged, until the best one's can be read.

    Raises:
        StorageError: all of them are damaged, or storage does not answer.
    """
    left, worse = list(trials), dict[int, errors.StorageError]()
    able = {one.number: one for one in searched.able(left)}
    while True:
        left = searched.ranked(left)
        try:
            with weights(searched, left[0]):
                told = [f"trial {number}: {cause}" for number, cause in worse.items()]
                return Readable([left[0], *map(able.__getitem__, worse), *left[1:]], told)
        except checkpoints.UNFIT as cause:
            worse[left.pop(0).number] = cause
        if worse.keys() >= able.keys():
            raise next(iter(worse.values()))


def of(searched: search.Search, trial: searches.Record) -> bundle.Bundle:
    """The model of a trial.

    Raises:
        StorageError: its weights are missing or corrupt.
    """
    configuration = searched.experiment.configuration(trial.values)
    transforms = searched.transforms(configuration)
    with weights(searched, trial) as best:
        return made(searched, searched.dataset, configuration, transforms, best)


def made(
    searched: search.Search,
    dataset: prepare.Dataset,
    configuration: spec.Configuration,
    transforms: features.Transforms,
    best: tensors.Reader,
) -> bundle.Bundle:
    """The model that a configuration gave on the training rows of a dataset."""
    custom = searched.custom.get(configuration.model.type)
    task, trained = tasks.of(dataset.schema.target), learner.member(configuration.model)
    return bundle.Bundle(
        schema=transforms.with_categories(dataset.schema),
        transforms=transforms,
        engine=trained.engine(configuration.model, transforms, task, best, custom=custom),
        scale=task.scale(dataset.targets[dataset.trained(transforms)]),
        extra_fields=searched.experiment.serve.extra_fields,
    )


@contextlib.contextmanager
def weights(searched: search.Search, trial: searches.Record) -> Iterator[tensors.Reader]:
    """The weights of a trial's best epoch, in its files."""
    with contextlib.ExitStack() as stack:
        opened = (cache.default().open(searched.storage, blob) for blob in trial.weights)
        yield tensors.Reader(map(stack.enter_context, opened))


def mean(members: Sequence[tuple[bundle.Bundle, int]]) -> bundle.Bundle:
    """The mean of several models of one search, each with its weight; the first one's schema."""
    first, _ = members[0]
    encodings = [first.transforms]
    for one, _ in members:
        if not any(one.transforms is other for other in encodings):
            encodings.append(one.transforms)
    places = [
        next(place for place, other in enumerate(encodings) if other is one.transforms)
        for one, _ in members
    ]
    engine = ensemble.Ensemble(
        [
            ensemble.Member(
                one.engine, weight, one.transforms.shape, place, *_rescaling(one, first.scale)
            )
            for (one, weight), place in zip(members, places, strict=True)
        ],
        first.task.averaged,
    )
    return bundle.Bundle(
        schema=first.schema,
        transforms=first.transforms,
        engine=engine,
        scale=first.scale,
        others=tuple(encodings[1:]),
        extra_fields=first.extra_fields,
    )


def _rescaling(one: bundle.Bundle, scale: tasks.Scale) -> tuple[float, float]:
    """The factor and the offset that bring a model's raw outputs to a scale."""
    if one.scale == scale:
        return 1.0, 0.0
    ends = one.task.rescaled(np.array([[0.0], [1.0]]), one.scale, scale)[:, 0]
    return float(ends[1] - ends[0]), float(ends[0])
