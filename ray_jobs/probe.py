"""A check of the user's own model and loss on one batch, before a search starts."""

from collections.abc import Iterator

from eagleray import code, spec
from ray_jobs import checkpoints, search, training
from ray_jobs.data import encoded, prepare


def run(searched: search.Search) -> None:
    """Run one batch forward and backward for each loss; other distributions take their defaults.

    Raises:
        CodeError: the user's code fails; shows its file and line.
        UserError: the model or a loss does not fit the data.
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
    dataset, transforms = searched.dataset, searched.transforms(configuration)
    rows = prepare.evenly_spaced(dataset.split.train, configuration.train.batch_size)
    part = dataset.part(transforms, rows)
    return encoded.Encoded(transforms, dataset.schema.target, part, part)
