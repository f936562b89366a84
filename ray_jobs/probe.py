"""A check of the user's own model and loss on one batch, before a search starts."""

from collections.abc import Iterator

from eagleray import code, spec
from ray_jobs import learner, search
from ray_jobs.data import encoded, prepare


def run(searched: search.Search) -> None:
    """Run a batch forward and backward for each loss and optimizer; the rest is at its defaults.

    Raises:
        CodeError: the user's code fails; shows its file and line.
        UserError: the model or a loss does not fit the data.
    """
    for configuration in _configurations(searched.experiment):
        data = sample(searched, configuration, configuration.train.batch_size)
        with code.guard("must train on one batch", *searched.custom.values()):
            trained = learner.build(
                configuration, data, metric=searched.metric, custom=searched.custom
            )
            trained.probe()
            trained.best("probe")


def sample(
    searched: search.Search, configuration: spec.Configuration, rows: int
) -> encoded.Encoded:
    """Up to so many rows of the training part, which stand for the validation part too."""
    dataset, transforms = searched.dataset, searched.transforms(configuration)
    part = dataset.part(transforms, prepare.evenly_spaced(dataset.split.train, rows))
    return encoded.Encoded(transforms, dataset.schema.target, part, part)


def _configurations(experiment: spec.Experiment) -> Iterator[spec.Configuration]:
    values = {key: drawn.default() for key, drawn in experiment.space.items()}
    for key, chosen in (
        ("train.loss", experiment.losses),
        ("train.optimizer", experiment.optimizers),
    ):
        for one in chosen if key in values else []:
            yield experiment.configuration(values | {key: one})
    if not values.keys() & {"train.loss", "train.optimizer"}:
        yield experiment.configuration(values)
