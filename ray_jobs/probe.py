"""The user's own model and loss, tried on one batch before a search spends anything on them."""

from __future__ import annotations

from collections.abc import Iterator

from eagleray import code, spec
from ray_jobs import checkpoints, search, training
from ray_jobs.data import encoded, prepare


def run(searched: search.Search) -> None:
    """Build the model, and run one batch forward, through the loss, and backward.

    Distributions are at their defaults, but each of several losses is tried.

    Raises:
        CodeError: the user's code fails; shows its file and line.
        UserError: a model or a loss that does not fit the data.
    """
    for configuration in _configurations(searched.experiment):
        data = _batch(searched, configuration)
        with code.guard("must train on one batch", *searched.custom.values()):
            trainer = training.Trainer(
                configuration, data, metric=searched.metric, custom=searched.custom
            )
            trainer.probe()
            checkpoints.weights(trainer)


def _configurations(experiment: spec.Experiment) -> Iterator[spec.Configuration]:
    values = {key: drawn.default() for key, drawn in experiment.space.items()}
    for loss in experiment.losses:
        drawn = {"train.loss": loss} if "train.loss" in values else {}
        yield experiment.configuration(values | drawn)


def _batch(searched: search.Search, configuration: spec.Configuration) -> encoded.Encoded:
    """One batch of training rows; its widths are those of training."""
    dataset, transforms = searched.dataset, searched.transforms(configuration)
    rows = prepare.spread(dataset.split.train, configuration.train.batch_size)
    part = dataset.part(transforms, rows)
    return encoded.Encoded(transforms, dataset.schema.target, part, part)
