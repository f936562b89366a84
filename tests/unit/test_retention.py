"""What stays in storage of the trials of a search, and of those that have ended."""

from pathlib import Path

import pytest

from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import retention, search
from tests.unit.test_training import experiment


@pytest.fixture
def searched(tmp_path: Path) -> search.Search:
    (tmp_path / "storage").mkdir()
    settings = {"storage": (tmp_path / "storage").as_uri(), "tune.metric": "accuracy"}
    return search.Search(experiment(tmp_path, **settings))


def put(searched: search.Search, text: str) -> blobs.Blob:
    return blobs.put(searched.storage, text.encode())


def contents(searched: search.Search) -> set[str]:
    return {one.key for one in searched.storage.list(blobs.PREFIX)}


def history(*scores: float) -> list[dict[str, float]]:
    return [{"accuracy": one} for one in scores]


def weights(searched: search.Search, epoch: int, number: int) -> tuple[blobs.Blob, ...]:
    return tuple(put(searched, f"weights {epoch} of {number}, {part}") for part in range(2))


def parts(searched: search.Search, epoch: int, number: int) -> list[dict[str, blobs.Blob]]:
    return [
        {"best": best, "optimizer": put(searched, f"optimizer {epoch} of {number}, {part}")}
        for part, best in enumerate(weights(searched, epoch, number))
    ]


def trial(searched: search.Search, number: int, score: float, status: str) -> searches.Record:
    """A trial of two epochs, the second the better, with two checkpoints; of two workers' parts."""
    found = history(score - 0.1, score)
    checkpoints = [
        searches.Checkpoint(epoch=epoch, best_epoch=epoch, files=files, others=others)
        for epoch in (2, 1)
        for files, *others in [parts(searched, epoch, number)]
    ]
    searched.records.save_state(number, searched.records.state(number, {}), checkpoints)
    fields = {"number": number, "status": status, "history": found, "score": score}
    return searches.Record.model_validate(
        fields
        | {"values": {}, "weights": weights(searched, 2, number), "weights_epoch": 2}
        | {"epoch": 2, "state_epoch": 2, "best_epoch": 2, "best": found[1]}
    )


def end(searched: search.Search, trials: dict[int, searches.Record]) -> None:
    kept = retention.Retention(searched, trials)
    for record in trials.values():
        kept.settle(record)
        searched.records.save(record)
        kept.clean(record)


def test_of_ended_trials_the_best_keep_their_weights_and_none_a_checkpoint(
    searched: search.Search,
) -> None:
    trials = {n: trial(searched, n, n / 10, "finished") for n in range(1, 8)}
    end(searched, trials)
    best = {n for n, one in trials.items() if one.weights}
    assert best == {3, 4, 5, 6, 7}
    assert contents(searched) == {blobs.key(blob) for n in best for blob in trials[n].weights}
    assert searched.records.stated() == []
    assert searched.records.trials() == list(trials.values())
    assert [one.number for one in searched.ranked(list(trials.values()))] == [7, 6, 5, 4, 3, 2, 1]


def test_the_pareto_front_keeps_its_weights_however_low_its_scores(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    settings = {"storage": (tmp_path / "storage").as_uri(), "tune.metric": "accuracy"}
    costly = search.Search(experiment(tmp_path, **settings, **{"tune.cost": "size"}))
    trials = {n: trial(costly, n, n / 10, "finished") for n in range(1, 9)}
    for n, one in trials.items():
        one.costs = {"size": 3.0 if n == 2 else 5.0 + (n == 1)}
    end(costly, trials)
    assert {n for n, one in trials.items() if one.weights} == {2, 4, 5, 6, 7, 8}


def test_members_of_a_population_keep_their_checkpoints_until_all_have_ended(
    tmp_path: Path,
) -> None:
    (tmp_path / "storage").mkdir()
    settings = {"storage": (tmp_path / "storage").as_uri(), "tune.metric": "accuracy"}
    options = {"tune.scheduler": "pbt", "tune.search": "random", "tune.trials": "3"}
    options["train.lr"] = "{loguniform: [0.01, 0.1]}"
    population = search.Search(experiment(tmp_path, **settings, **options))
    trials = {n: trial(population, n, n / 10, "finished") for n in (1, 2)}
    trials[3] = trial(population, 3, 0.3, "running")
    end(population, trials)
    assert population.records.stated() == [1, 2, 3]
    trials[1].weights = trials[3].weights  # it goes on from the other's
    trials[3].status = "finished"
    end(population, {3: trials[3]} | trials)
    retention.Retention(population, trials).clean_up()
    assert population.records.stated() == []
    kept = {blobs.key(blob) for one in trials.values() for blob in one.weights}
    assert (len(kept), contents(population)) == (4, kept)


def test_a_trial_that_goes_on_keeps_its_checkpoints(searched: search.Search) -> None:
    trials = {
        1: trial(searched, 1, 0.5, "running"),
        2: trial(searched, 2, 0.6, "lost"),
        3: trial(searched, 3, 0.7, "finished"),
    }
    end(searched, trials)
    assert searched.records.stated() == [1, 2]
    for number in (1, 2):
        state = searched.records.state(number, {})
        assert {blobs.key(one) for one in state.contents} <= contents(searched)


def test_a_trial_that_ran_out_of_time_has_the_weights_of_its_last_checkpoint(
    searched: search.Search,
) -> None:
    """Its scores are those of these weights, though a later epoch was better."""
    record = trial(searched, 1, 0.5, "stopped")
    record.weights, record.weights_epoch = (), 0
    record.history, record.epoch = history(0.4, 0.5, 0.9), 3
    record.best_epoch, record.best, record.score = 3, history(0.9)[0], 0.9
    end(searched, {1: record})
    assert record.weights == weights(searched, 2, 1)
    assert (record.best_epoch, record.score, record.best) == (2, 0.5, {"accuracy": 0.5})


def test_weights_that_newer_ones_replaced_are_removed_when_the_trial_ends(
    searched: search.Search,
) -> None:
    record = trial(searched, 1, 0.5, "finished")
    newer, kept = weights(searched, 3, 1), retention.Retention(searched, {1: record})
    record.history, record.best_epoch = history(0.3, 0.5, 0.6), 3
    old = record.weights
    kept.replace(record, newer, 3)
    kept.replace(record, (), 0)  # a worker that has just begun
    assert old
    assert set(map(blobs.key, old)) <= contents(searched)
    kept.settle(record)
    kept.clean(record)
    assert (record.weights, contents(searched)) == (newer, set(map(blobs.key, newer)))


def test_a_checkpoint_written_after_its_trial_ended_is_removed_with_the_search(
    searched: search.Search,
) -> None:
    record = trial(searched, 1, 0.5, "stopped")
    trials = {1: record}
    end(searched, trials)
    late = searches.Checkpoint(epoch=2, files={"optimizer": put(searched, "late")})
    searched.records.save_state(1, searched.records.state(1, {}), [late])
    retention.Retention(searched, trials).clean_up()
    assert record.weights
    assert contents(searched) == set(map(blobs.key, record.weights))
