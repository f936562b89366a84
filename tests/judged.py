"""A search whose trials are trained in this process, without Ray, and its winner."""

from pathlib import Path
from typing import Any

from eagleray import spec
from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import learner, promotion, search, winner

TUMOURS = """
name: tumours
data: {source: 'dataset:breast_cancer', target: target, positive: malignant}
model: {type: mlp, hidden: [8], dropout: {choice: [0.0, 0.2]}}
train: {lr: {loguniform: [1.0e-4, 1.0e-1]}, epochs: 12, batch_size: 32}
tune: {trials: 4, search: random}
"""
DIABETES = """
name: diabetes
data: {source: 'dataset:diabetes', target: target}
model: {type: mlp, hidden: [8]}
train: {lr: {loguniform: [1.0e-4, 1.0e-1]}, epochs: 12, batch_size: 32}
tune: {trials: 4, search: random}
"""


def searched(folder: Path, text: str = TUMOURS, **overrides: str) -> search.Search:
    file = folder / "experiment.yaml"
    file.write_text(text)
    (folder / "storage").mkdir(exist_ok=True)
    settings = {"storage": (folder / "storage").as_uri()} | overrides
    return search.Search(spec.load(file, settings))


def trial(one: search.Search, number: int, **values: Any) -> searches.Record:
    """Train one trial to its end, and put it on record."""
    drawn = {key: known.default() for key, known in one.experiment.space.items()} | values
    configuration = one.experiment.configuration(drawn)
    data = one.dataset.encode(one.transforms(configuration))
    running = learner.build(configuration, data, metric=one.metric)
    while not running.finished:
        running.epoch()
    progress = running.progress
    record = searches.Record(
        number=number,
        values=drawn,
        status="finished",
        score=progress.best[one.metric],
        epoch=progress.epoch,
        best_epoch=progress.best_epoch,
        best=progress.best,
        history=progress.history,
        weights=(blobs.put(one.storage, running.best("judged")),),
    )
    one.records.save(record)
    one.records.save_layers(number, progress.layers)
    return record


def stopped(one: search.Search, like: searches.Record, number: int, epoch: int) -> searches.Record:
    """A trial that was like another one until it was stopped early."""
    history = like.history[:epoch]
    fields = {"number": number, "status": "stopped", "epoch": epoch, "best_epoch": epoch}
    score = {"score": history[-1][one.metric], "best": history[-1], "weights": ()}
    record = like.model_copy(update={**fields, **score, "history": history})
    one.records.save(record)
    return record


def won(one: search.Search, trials: list[searches.Record]) -> searches.Result:
    """Judge the best of the trials, and register and promote it as a run does."""
    result = winner.Winner(one, one.ranked(trials)).register()
    promotion.promote(one.storage, one.experiment, result.version)
    return result
