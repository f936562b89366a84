"""What the prediction of one row takes on one core of the driver, as a replica of one CPU answers.

Of a winner that takes longer than `tune.ensemble.latency_ms`, the best trial that does not.
"""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from eagleray import bundle, errors, messages, spec
from eagleray.engines import placement
from eagleray.learn import schema
from eagleray.state import searches
from eagleray.state.prices import Faster, Latency
from ray_jobs import bundles, search

PASSES, WARM_UP = 50, 10
"""Predictions of one row whose median is a latency, after some that are not counted."""
MOST_S = 3.0
"""Most seconds of a measurement: of slow models, fewer predictions count."""
_MARGIN = 1.1  # of a tolerance that is to reach a score
_SMALLER = "a smaller model, or a larger tune.ensemble.latency_ms where it is fast enough"


def milliseconds(model: bundle.Bundle, row: schema.Columns) -> float:
    """The median of one row's predictions on one core."""
    seconds = list[float]()
    with _one_core():
        while len(seconds) < WARM_UP + PASSES and sum(seconds) < MOST_S:
            began = time.perf_counter()
            model.predict_columns(row)
            seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds[WARM_UP:] or seconds)


def judge(
    searched: search.Search, trials: Sequence[searches.Record], ms: float, row: schema.Columns
) -> Latency:
    """Hold a winner's latency to the bound; `trials` are all, the winner or its best one first."""
    found = Latency(ms=ms, bound_ms=searched.experiment.tune.ensemble.latency_ms)
    if not found.over:
        return found
    faster, tried = _fast_enough(searched, trials[1:], found.bound_ms or 0.0, row)
    if faster is None:
        return found.model_copy(update={"tried": tried, "fix": _SMALLER})
    best = _score(searched.scored(_able(searched, trials))[0])
    faster = faster.model_copy(update={"behind": abs(best - faster.score)})
    fix = choosing(searched.experiment.tune, faster.behind)
    return found.model_copy(update={"faster": faster, "tried": tried, "fix": fix})


def _fast_enough(
    searched: search.Search, others: Sequence[searches.Record], bound: float, row: schema.Columns
) -> tuple[Faster | None, int]:
    """The first of the trials within the bound, and how many were measured."""
    tried = 0
    for trial in _able(searched, others):
        try:
            model = bundles.of(searched, trial)
        except errors.StorageUnavailableError:
            raise  # another try will tell
        except errors.StorageError:
            continue  # as if it had none
        tried += 1
        ms = milliseconds(model, row)
        if ms <= bound:
            kind = searched.experiment.configuration(trial.values).model.type
            return Faster(trial=trial.number, model=kind, ms=ms, score=_score(trial)), tried
    return None, tried


def _able(searched: search.Search, trials: Sequence[searches.Record]) -> list[searches.Record]:
    """Those whose model is in storage: with folds none is."""
    folds = searched.experiment.tune.folds > 1
    return [one for one in trials if one.weights and one.status != "failed" and not folds]


def choosing(tune: spec.Tune, behind: float) -> str:
    """What makes another search choose the fastest of the trials that are so far behind at most."""
    keys: dict[str, Any] = {"cost": "latency"}
    if behind:
        keys["tolerance"] = float(f"{_MARGIN * behind:.2g}")
    if tune.search == "cma":
        keys["search"] = "tpe"
    if tune.ensemble.members not in ("auto", 1):
        keys["ensemble"] = {"members": 1}
    return messages.setting({"tune": keys})


def _score(trial: searches.Record) -> float:
    return trial.score or 0.0


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Run models on one core in the block, as a replica of one CPU does."""
    before, threads = placement.now(), torch.get_num_threads()
    placement.use(dataclasses.replace(before, threads=1))
    try:
        yield
    finally:
        placement.use(before)
        torch.set_num_threads(threads)
