"""The user's own model and loss, tried on one batch before a search spends anything on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eagleray import code, spec
from eagleray.learn import features
from ray_jobs import checkpoints, training
from ray_jobs.data import encoded, prepare


def run(experiment: spec.Experiment, dataset: prepare.Dataset, own: dict[str, code.Code]) -> None:
    """Build the model, and run one batch forward, through the loss, and backward.

    Distributions are at their defaults, but each of several losses is tried.

    Raises:
        CodeError: the user's code fails; shows its file and line.
        UserError: a model or a loss that does not fit the data.
    """
    metric = experiment.metric(dataset.schema.target.task)
    for configuration in _configurations(experiment):
        data = _sample(dataset, configuration)
        with code.guard("must train on one batch", *own.values()):
            trainer = training.Trainer(configuration, data, metric=metric, own=own)
            trainer.probe()
            checkpoints.weights(trainer)


def _configurations(experiment: spec.Experiment) -> Iterator[spec.Configuration]:
    values = {key: drawn.default() for key, drawn in experiment.space.items()}
    for loss in experiment.losses:
        drawn = {"train.loss": loss} if "train.loss" in values else {}
        yield experiment.configuration(values | drawn)


def _sample(dataset: prepare.Dataset, configuration: spec.Configuration) -> encoded.Encoded:
    """One batch of training rows, encoded as all of them would be: widths are those of training."""
    training_rows = dataset.split.train
    transforms = features.Transforms.fit(
        dataset.schema, configuration.features, encoded.take(dataset, training_rows)
    )
    count = min(len(training_rows), configuration.train.batch_size)
    rows = training_rows[np.linspace(0, len(training_rows) - 1, count).astype(int)]
    part = encoded.part(dataset, transforms, rows)
    return encoded.Encoded(transforms, dataset.schema.target, part, part)
