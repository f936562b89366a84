"""What a search makes of its records: an order, a Pareto front, and a start for later ones."""

from pathlib import Path
from typing import Any

import pytest

from eagleray import errors, spec
from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import search
from ray_jobs.report import outcome
from tests.unit.test_report import printed

WEIGHTS = blobs.Blob(sha256="0" * 64, size=1)


def searched(folder: Path, train: str = "{lr: {uniform: [0.1, 1]}}", **tune: str) -> search.Search:
    (folder / "storage").mkdir(exist_ok=True)
    file = folder / "wine.yaml"
    file.write_text(
        f"name: wine\ndata: {{source: 'dataset:wine', target: target}}\nmodel: {{type: mlp}}\n"
        f"train: {train}\n"
        f"tune: {{metric: accuracy}}\nstorage: file://{folder}/storage\n"
    )
    return search.Search(spec.load(file, {f"tune.{key}": value for key, value in tune.items()}))


def trial(
    number: int, score: float | None, cost: float | None = None, **more: Any
) -> searches.Record:
    return searches.Record(
        number=number,
        values={"train.lr": 0.5},
        status="finished",
        score=score,
        best={} if score is None else {"accuracy": score},
        weights=(WEIGHTS,),
        costs={} if cost is None else {"size": 1000 * cost},
    ).model_copy(update=more)


TRIALS = [
    trial(1, 0.90, 9.0),
    trial(2, 0.95, 8.0),
    trial(3, 0.94, 2.0),
    trial(4, 0.80, 1.0),
    trial(5, 0.93, 3.0),
    trial(6, None),
    trial(7, 0.99, 1.0, status="failed"),
    trial(8, 0.96, 12.0, weights=()),
]


def numbers(trials: list[searches.Record]) -> list[int]:
    return [one.number for one in trials]


def test_of_trials_with_the_same_score_that_of_the_lowest_loss_stands_first(tmp_path: Path) -> None:
    losses = {1: 0.5, 2: 0.3, 3: 0.4}
    trials = [
        trial(number, 0.9, best={"accuracy": 0.9, "log_loss": loss})
        for number, loss in losses.items()
    ]
    one = searched(tmp_path, trials="9")
    assert numbers(one.ranked([*trials, trial(4, 0.95), trial(5, 0.9)])) == [4, 2, 3, 1, 5]


def test_trials_that_the_budget_has_ended_too_early_are_told_so(tmp_path: Path) -> None:
    begun = trial(1, None, status="running", weights=())
    with pytest.raises(errors.SearchError, match=r"tune\.budget ended before the first epoch of a"):
        searched(tmp_path).ranked([begun])
    with pytest.raises(errors.SearchError, match="no trial has run"):
        searched(tmp_path).ranked([])


def test_the_best_score_stands_first_without_a_cost(tmp_path: Path) -> None:
    assert numbers(searched(tmp_path).ranked(TRIALS)) == [2, 3, 5, 1, 4, 7, 8, 6]


@pytest.mark.parametrize(
    ("tolerance", "winner"), [("0.0", 2), ("0.011", 3), ("0.021", 3), ("0.2", 4)]
)
def test_the_cheapest_of_those_near_the_best_wins(
    tmp_path: Path, tolerance: str, winner: int
) -> None:
    found = searched(tmp_path, cost="size", tolerance=tolerance)
    ranked = numbers(found.ranked(TRIALS))
    assert ranked[0] == winner
    assert ranked[1:5] == [number for number in (2, 3, 5, 1, 4) if number != winner]


def test_no_trial_of_the_front_is_beaten_in_score_and_in_cost(tmp_path: Path) -> None:
    front = searched(tmp_path, cost="size").front(TRIALS)
    assert [(one.number, one.score, one.cost) for one in front] == [
        (2, 0.95, 8000.0),
        (3, 0.94, 2000.0),
        (4, 0.80, 1000.0),
    ]
    assert searched(tmp_path).front(TRIALS) == []


def test_the_front_is_printed_with_its_winner_marked(tmp_path: Path) -> None:
    found = searched(tmp_path, cost="size")
    result = searches.Result(
        version=1, winner=3, metric="accuracy", test={}, cost="size", front=found.front(TRIALS)
    )
    lines = [" ".join(line.split()) for line in printed(outcome.front(result), 60) if line]
    assert lines[0] == "best accuracy for its size"
    assert lines[-3:] == ["2 0.9500 8.0 KB", "3 * 0.9400 2.0 KB", "4 0.8000 1.0 KB"]


def keep(found: search.Search, *trials: searches.Record) -> None:
    for one in trials:
        found.records.save(one)


def test_earlier_trials_that_fit_the_space_are_told(tmp_path: Path) -> None:
    first = searched(tmp_path, seed="1")
    keep(
        first,
        trial(1, 0.9, values={"train.lr": 0.25}),
        trial(2, 0.8, values={"train.lr": 2.0}),
        trial(3, 0.7, values={"train.batch_size": 32}),
        trial(4, None, values={"train.lr": 0.5}),
        trial(5, 0.6, values={"train.lr": 0.5}, best={"log_loss": 0.1}),
    )
    second = searched(tmp_path, seed="2", warm_start="true")
    keep(second, trial(1, 0.9))
    assert second.earlier() == [search.Past({"train.lr": 0.25}, 0.9, float("inf"))]
    assert searched(tmp_path, seed="2").earlier() == []
    named = searched(tmp_path, seed="2", warm_start=f"'{first.id}'")
    assert named.earlier() == second.earlier()


def test_values_are_told_in_the_samplers_terms(tmp_path: Path) -> None:
    train = "{epochs: {randint: [1, 9]}, early_stopping: {choice: [null, {patience: 3}]}}"
    keep(
        searched(tmp_path, train, seed="1"),
        trial(1, 0.9, values={"train.epochs": 8, "train.early_stopping": {"patience": 3}}),
        trial(2, 0.9, values={"train.epochs": 9, "train.early_stopping": None}),
        trial(3, 0.9, values={"train.epochs": 2, "train.early_stopping": {"patience": 4}}),
    )
    (past,) = searched(tmp_path, train, warm_start="true").earlier()
    assert past.parameters == {"train.epochs": 8, "train.early_stopping": '{"patience": 3}'}


def test_trials_of_unknown_cost_are_not_told_to_a_search_that_weighs_it(tmp_path: Path) -> None:
    keep(searched(tmp_path, seed="1"), trial(1, 0.9), trial(2, 0.8, 5.0))
    (past,) = searched(tmp_path, cost="size", warm_start="true").earlier()
    assert (past.score, past.cost) == (0.8, 5000.0)


def test_an_earlier_search_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    first = searched(tmp_path, seed="1")
    keep(first, trial(1, 0.9))
    with pytest.raises(
        errors.UserError, match=rf"an earlier search of wine in .* \({first.id}\), but got 0{{12}}"
    ):
        searched(tmp_path, warm_start="'000000000000'").earlier()


def view(gone: float, earlier: float) -> searches.View:
    counts = {"total": 1, "started": 1, "ended": 0}
    return searches.View(
        at=0.0, gone=gone, earlier=earlier, metric="", epochs=1, best=None, rows=[], **counts
    )


def test_the_time_of_a_search_is_that_of_all_its_runs(tmp_path: Path) -> None:
    found = searched(tmp_path)
    assert found.seconds() == 0.0
    found.records.save(view(gone=30.0, earlier=100.0))
    assert found.seconds() == 130.0


@pytest.mark.parametrize(
    ("options", "hours"),
    [
        ({}, float("inf")),
        ({"tune.budget": "{minutes: 3}"}, float("inf")),
        ({"tune.budget": "{gpu_hours: 3}", "compute.gpus": "0.5"}, 6.0),
        ({"tune.budget": "{gpu_hours: 3}", "compute": "{gpus: 0.5, workers: 2}"}, 3.0),
        ({"tune.budget": "{money: 10}", "compute.price": "2.5"}, 4.0),
        (
            {
                "tune.budget": "{money: 10, gpu_hours: 4}",
                "compute.price": "2.5",
                "compute.gpus": "2",
            },
            2.0,
        ),
    ],
)
def test_a_budget_pays_for_hours_of_trials(
    tmp_path: Path, options: dict[str, str], hours: float
) -> None:
    searched(tmp_path)
    assert spec.load(tmp_path / "wine.yaml", options).hours == hours


def test_a_result_stands_for_no_larger_budget_than_its_own() -> None:
    made = searches.Result(version=1, winner=1, metric="", test={}, trials=9, minutes=5, hours=2)
    assert made.covers(9, 5, 2.0)
    assert made.covers(3, 1, 0.5)
    assert not made.covers(10, 5, 2.0)
    assert not made.covers(9, None, 2.0)
    assert not made.covers(9, 5, float("inf"))


def folded(number: int, score: float, done: int, cost: float = 1.0, **more: Any) -> searches.Record:
    """A trial that has `done` of three folds; its standard error is 0.02."""
    fields = {"folds": 3, "best_epoch": done, "epoch": done, "standard_error": 0.02, **more}
    return trial(number, score, cost, **fields)


FOLDED = [
    folded(1, 0.99, 1, status="stopped"),
    folded(2, 0.90, 3, cost=9.0),
    folded(3, 0.92, 3, cost=8.0),
    folded(4, 0.901, 3, cost=3.0),
    folded(5, 0.899, 3, cost=2.0),
    folded(6, 0.97, 2, cost=1.0),
]


def test_trials_of_fewer_folds_stand_behind_those_of_all_whatever_their_score(
    tmp_path: Path,
) -> None:
    found = searched(tmp_path, folds="3")
    assert numbers(found.ranked(FOLDED)) == [3, 4, 2, 5, 6, 1]
    assert numbers(found.ranked([FOLDED[0], FOLDED[5]])) == [6, 1]


@pytest.mark.parametrize(
    ("tolerance", "winner"), [("0.0", 3), ("one_standard_error", 4), ("0.0211", 5)]
)
def test_the_simplest_within_one_standard_error_of_the_best_wins(
    tmp_path: Path, tolerance: str, winner: int
) -> None:
    found = searched(tmp_path, folds="3", cost="size", tolerance=tolerance)
    assert numbers(found.ranked(FOLDED))[0] == winner
    assert [one.number for one in found.front(FOLDED)] == [3, 4, 5]


def test_folds_and_the_rule_are_part_of_a_searchs_id(tmp_path: Path) -> None:
    options: list[dict[str, str]] = [
        {},
        {"folds": "3"},
        {"folds": "4"},
        {"refit": "true"},
        {"folds": "3", "cost": "size"},
        {"folds": "3", "cost": "size", "tolerance": "one_standard_error"},
    ]
    ids = [searched(tmp_path, **one).id for one in options]
    assert len(set(ids)) == len(ids)
    assert searched(tmp_path, folds="3").definition.rows == searched(tmp_path).definition.rows
