"""`model.type: auto`: what a trial takes, what the file shows, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from eagleray import spec
from eagleray.client import screen
from eagleray.learn import models
from eagleray.reports import figures
from eagleray.reports.page import leaderboard
from eagleray.spec import auto
from eagleray.spec.train import EarlyStopping
from eagleray.state import searches
from ray_jobs import pack_size, scheduler, search, searcher
from ray_jobs.data import prepare


def experiment(folder: Path, model: str = "{type: auto}", **overrides: str) -> spec.Experiment:
    file = folder / "auto.yaml"
    file.write_text(
        f"name: wine\ndata: {{source: 'dataset:wine', target: target}}\nmodel: {model}\n"
        "storage: file:///tmp/unused\n"
    )
    return spec.load(file, overrides)


def values(chosen: spec.Experiment, **drawn: object) -> dict[str, object]:
    named = {key.replace("__", "."): value for key, value in drawn.items()}
    return {key: one.default() for key, one in chosen.space.items()} | named


@pytest.mark.parametrize("family", auto.SPACES)
def test_a_trial_takes_one_model_with_its_own_part_of_train(tmp_path: Path, family: str) -> None:
    chosen = experiment(tmp_path, **{"train.seed": "7", "train.early_stopping": "{patience: 9}"})
    taken = chosen.configuration(values(chosen, model__family=family))
    assert taken.model.type == family
    assert (taken.train.epochs, taken.train.seed) == (40, 7)
    assert taken.train.early_stopping == EarlyStopping(patience=9)
    lr = chosen.space[f"model.{family}.train.lr"].default()
    assert taken.train.lr == lr


@pytest.mark.parametrize("family", auto.SPACES)
def test_every_end_of_every_space_is_valid(tmp_path: Path, family: str) -> None:
    chosen = experiment(tmp_path)
    for key, drawn in chosen.space.items():
        for _, end in drawn.ends():
            taken = chosen.configuration(values(chosen, model__family=family) | {key: end})
            assert taken.model.type == (end if key == "model.family" else family)


def test_the_first_model_is_the_default_and_only_those_named_are_searched(tmp_path: Path) -> None:
    assert isinstance(experiment(tmp_path).default().model, models.Boosting)
    chosen = experiment(tmp_path, "{type: auto, families: [mlp, tabm]}")
    assert isinstance(chosen.default().model, models.Mlp)
    assert not any("boosting" in key for key in chosen.space)
    assert search.length(chosen) == 40


def test_a_file_shows_what_it_says_and_not_the_spaces(tmp_path: Path) -> None:
    chosen = experiment(tmp_path)
    assert chosen.explicit()["model"] == {"type": "auto"}
    assert chosen.resolved()["model"] == {"type": "auto", "families": None}
    assert "lr" not in chosen.resolved()["train"]
    other = experiment(tmp_path, "{type: auto, families: [tabm]}")
    assert chosen.search_id("x") != other.search_id("x")


def test_a_trial_is_shown_with_the_values_of_its_own_model(tmp_path: Path) -> None:
    chosen = experiment(tmp_path)
    shown = screen.values(values(chosen, model__family="mlp"))
    assert shown.startswith("family=mlp mlp.hidden=[128]")
    assert "tabm" not in shown
    assert "boosting" not in shown
    plain = {"model.width": 3, "train.lr": 0.5}
    assert screen.values(plain) == "width=3 lr=0.5"


def test_trials_of_several_models_are_trained_one_after_another(tmp_path: Path) -> None:
    searched = search.Search(experiment(tmp_path))
    assert pack_size.choose(searched, trials=20, slots=1).size == 1


def test_a_column_that_one_of_the_models_cannot_take_names_the_model_to_leave_out(
    tmp_path: Path,
) -> None:
    options = {"data.source": "dataset:digits"}
    chosen = experiment(tmp_path, "{type: auto, families: [boosting, tabm, mlp]}", **options)
    (found,) = prepare.misfits(chosen, prepare.dataset(chosen))
    assert found.startswith("model.type: boosting takes no column of type image")
    assert "families: [tabm, mlp]" in found
    without = experiment(tmp_path, "{type: auto, families: [tabm, mlp]}", **options)
    assert not list(prepare.misfits(without, prepare.dataset(without)))


@pytest.mark.parametrize(
    ("columns", "models"),
    [
        ({"numeric", "categorical"}, ("boosting", "tabm", "mlp")),
        ({"numeric", "text"}, ("boosting", "text", "tabm", "mlp")),
        ({"text"}, ("text", "tabm", "mlp")),
        ({"image"}, ("image", "tabm", "mlp")),
    ],
)
def test_models_are_tried_that_take_the_columns(
    tmp_path: Path, columns: set[str], models: tuple[str, ...]
) -> None:
    chosen = experiment(tmp_path)
    fitted = chosen.fitted(columns)
    assert fitted.families == models
    assert {key.split(".")[1] for key in fitted.space} == {auto.FAMILY, *models}
    assert fitted.search_id("x") == chosen.search_id("x")
    named = experiment(tmp_path, "{type: auto, families: [boosting]}")
    assert named.fitted(columns).families == ("boosting",)


def test_a_search_tries_the_models_that_take_its_columns(tmp_path: Path) -> None:
    assert search.Search(experiment(tmp_path)).experiment.families == ("boosting", "tabm", "mlp")


def test_the_first_trials_are_each_model_at_its_defaults(tmp_path: Path) -> None:
    chosen = search.Search(experiment(tmp_path)).experiment
    finder = searcher.Searcher(chosen, "max", [])
    for place, model in enumerate(chosen.families, 1):
        suggested = finder.suggest(str(place))
        assert isinstance(suggested, dict)
        (one,) = suggested["members"]
        assert one["values"] == values(chosen, model__family=model)
        finder.on_trial_complete(str(place), report(one, 0.5))


@pytest.mark.parametrize("cost", ["null", "size"])
def test_a_trial_draws_values_of_its_own_model_alone(tmp_path: Path, cost: str) -> None:
    """Others stand at their defaults, so what the sampler learns of a model is of its trials."""
    asked = {"tune.trials": "60", "tune.cost": cost}
    chosen = search.Search(experiment(tmp_path, **asked)).experiment
    finder = searcher.Searcher(chosen, "max", [])
    taken = set()
    for number in range(40):
        suggested = finder.suggest(str(number))
        assert isinstance(suggested, dict)
        (one,) = suggested["members"]
        model = auto.family(one["values"])
        taken.add(model)
        own = {
            f"model.{auto.FAMILY}",
            *(k for k in chosen.space if k.startswith(f"model.{model}.")),
        }
        assert set(one["parameters"]) == own
        usual = values(chosen)
        assert all(one["values"][key] == usual[key] for key in chosen.space.keys() - own)
        finder.on_trial_complete(str(number), report(one, 0.5 + number / 100))
    assert taken == set(chosen.families)


def report(one: dict[str, Any], score: float) -> dict[str, Any]:
    """The last report of a trial."""
    fields = {"number": one["number"], "values": one["values"], "score": score, "done": True}
    fields["costs"] = {"size": 1 - score}
    return {"members": [{**fields, "seconds": 1.0, "status": "finished"}], "done": True}


def test_trials_are_compared_with_those_of_their_own_model(tmp_path: Path) -> None:
    """A network whose first epochs are worse than those of trees is not stopped for it."""
    chosen = search.Search(experiment(tmp_path))
    members = scheduler.build(chosen, [])
    stopped = []
    for number, (model, score) in enumerate(
        [("boosting", 0.9), ("boosting", 0.8), ("mlp", 0.5), ("mlp", 0.4)], 1
    ):
        drawn = values(chosen.experiment, model__family=model)
        members._add(number, drawn)
        epochs = min(members._rungs)
        history = [{"accuracy": score}] * epochs
        told = {"number": number, "values": drawn, "epoch": epochs, "history": history}
        if members._compare({**told, "score": score, "state": None}) == members.STOP:
            stopped.append(number)
    assert stopped == [2, 4]


def test_a_report_shows_of_each_trial_the_values_of_the_model_that_it_took(tmp_path: Path) -> None:
    chosen = experiment(tmp_path)
    trials = [
        searches.Record(
            number=number,
            values=values(chosen, model__family=family),
            status="finished",
            score=0.9,
            epoch=1,
            best_epoch=1,
        )
        for number, family in ((1, "boosting"), (2, "tabm"))
    ]
    headings, (first, second), _ = leaderboard(trials, "accuracy")
    assert not any(heading.startswith("model.mlp.") for heading in headings)
    leaves, blocks = map(headings.index, ("model.boosting.leaves", "model.tabm.blocks"))
    assert [(one[leaves], one[blocks]) for one in (first, second)] == [("31", ""), ("", "2")]
    drawn = figures.parallel(trials, "accuracy", 1)
    assert drawn is not None
    leaves = drawn.headings.index("model.boosting.leaves")
    assert [one[leaves] for one in drawn.rows] == ["31", ""]
    assert "null" not in str(drawn.picture)
