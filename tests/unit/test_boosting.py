"""Trees in training: gaps and categories, resumed to the bit, in a bundle, and what is refused."""

import re
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest

from eagleray import bundle, errors, spec, storage
from eagleray.engines import lightgbm as engine
from eagleray.engines import trees
from eagleray.learn import features, losses, metrics, schema, tasks
from eagleray.state import searches
from eagleray.storage import cache
from ray_jobs import boosting, checkpoints, costs, learner, member, snapshots, tensors
from ray_jobs.data import encoded, prepare

TARGETS = {
    "binary": "log_loss",
    "multiclass": "log_loss",
    "regression": "rmse",
    "quantiles": "pinball",
}
NUMBERS = "regression", "quantiles"


def table(task: str, rows: int = 600) -> pd.DataFrame:
    """A number, one with gaps that tell, a category with rare names and gaps, a time."""
    random = np.random.default_rng(5)
    age, gap = random.normal(40, 9, rows), random.random(rows) < 0.3
    city = random.choice(["Bern", "Oslo", "Rome", "Lima"], rows, p=[0.4, 0.3, 0.28, 0.02])
    value = gap * 2.0 + (city == "Oslo") * 1.5 + (age > 45) * 0.8 + random.normal(0, 0.1, rows)
    if task == "binary":
        value = np.where(value > 1, "yes", "no")
    if task == "multiclass":
        value = np.digitize(value, [0.5, 1.7]).astype(str)
    return pd.DataFrame(
        {
            "age": age.round(2),
            "income": np.where(gap, np.nan, random.normal(5, 1, rows)),
            "city": [None if index % 11 == 0 else name for index, name in enumerate(city)],
            "joined": pd.date_range("2020-01-01", periods=rows, freq="7h").astype(str),
            "target": value,
        }
    )


def experiment(folder: Path, task: str = "binary", **overrides: str) -> spec.Experiment:
    table(task).to_csv(folder / "table.csv", index=False)
    kind = "numeric" if task in NUMBERS else "categorical"
    levels = ", quantiles: [0.1, 0.5, 0.9]" if task == "quantiles" else ""
    file = folder / "boosting.yaml"
    file.write_text(
        f"name: x\ndata: {{source: table.csv, target: target{levels}}}\n"
        f"features: {{target: {{type: {kind}}}, city: {{type: categorical, max_categories: 3}}}}\n"
        "model: {type: boosting, rounds: 4, leaves: 6, min_rows: 5}\ntrain: {epochs: 5, lr: 0.2}\n"
        "tune: {trials: 1}\nstorage: file:///tmp/unused\n"
    )
    return spec.load(file, overrides)


def prepared(chosen: spec.Experiment) -> tuple[prepare.Dataset, encoded.Encoded]:
    dataset = prepare.dataset(chosen)
    return dataset, dataset.encode(dataset.fit(chosen.default().features))


def start(folder: Path, task: str = "binary", **overrides: str) -> boosting.Booster:
    chosen = experiment(folder, task, **overrides)
    made = learner.build(chosen.default(), prepared(chosen)[1], metric=TARGETS[task])
    assert isinstance(made, boosting.Booster)
    return made


def finish(running: learner.Learner) -> learner.Learner:
    while not running.finished:
        running.epoch()
    return running


def copy(first: learner.Learner, second: learner.Learner, folder: Path) -> None:
    """Restore a training from the files of another's snapshot."""
    taken = first.snapshot("test/1")
    assert taken is not None
    paths = {name: folder / name for name in snapshots.FILES}
    for name, path in paths.items():
        path.write_bytes(taken.stream(name).read())
    assert paths[snapshots.BEST].read_bytes() == first.best("test/1").read()
    second.restore([paths])


def history(running: learner.Learner) -> list[dict[str, float]]:
    return [epoch | {"seconds": 0.0} for epoch in running.progress.history]


def test_a_matrix_has_gaps_in_place_of_means_and_categories_by_their_place(tmp_path: Path) -> None:
    dataset, data = prepared(experiment(tmp_path))
    matrix = features.Matrix.of(data.transforms)
    assert isinstance(data.train, encoded.Part)
    given = matrix.apply(data.train.inputs)
    columns = dataset.take(dataset.split.train)
    assert given.shape[1] == 3 + 6 + 1  # two numbers and an age, its cycles, a category
    assert (np.isnan(given[:, 1]) == np.isnan(columns["income"])).all()
    assert np.isnan(given[:, 1]).any()
    assert not np.isnan(given[:, 0]).any()
    assert matrix.categories == [9]
    missing = [city is None for city in columns["city"]]
    assert (np.isnan(given[:, 9]) == missing).all()
    assert set(np.unique(given[~np.isnan(given[:, 9]), 9])) == {1, 2, 3, 4}
    assert features.Matrix.model_validate_json(matrix.model_dump_json()) == matrix


def test_words_of_a_text_are_columns_of_the_matrix_with_their_weights(tmp_path: Path) -> None:
    _, data = prepared(experiment(tmp_path, **{"features.city": "{type: text}"}))
    assert isinstance(data.train, encoded.Part)
    matrix, (words,) = features.Matrix.of(data.transforms), data.transforms.texts
    given = matrix.apply(data.train.inputs)
    assert matrix.terms == ((1, len(words.terms)),)
    assert given.shape[1] == 3 + 6 + len(words.terms)
    place = 9 + words.terms.index("oslo")
    city = table("binary")["city"].to_numpy()[prepare.dataset(experiment(tmp_path)).split.train]
    assert ((given[:, place] > 0) == (city == "Oslo")).all()


@pytest.mark.parametrize("kind", ["categorical", "text"])
@pytest.mark.parametrize("task", TARGETS)
def test_trees_learn_and_a_bundle_that_is_stored_and_loaded_predicts_the_same(
    tmp_path: Path, task: str, kind: str
) -> None:
    chosen = experiment(tmp_path, task, **{"features.city": f"{{type: {kind}}}"})
    dataset, data = prepared(chosen)
    running = finish(learner.build(chosen.default(), data, metric=TARGETS[task]))
    (tmp_path / "best").write_bytes(running.best("x").read())
    known = tasks.of(dataset.schema.target)
    made = bundle.Bundle(
        schema=dataset.schema,
        transforms=data.transforms,
        engine=running.engine(
            chosen.model, data.transforms, known, tensors.Reader([tmp_path / "best"])
        ),
        scale=known.scale(dataset.targets[dataset.split.train]),
    )
    rows = schema.to_json(dataset.schema, dataset.take(dataset.split.validation))
    files = bundle.pack(made, rows, {})
    assert files["model.txt"].startswith(b"tree\n")
    loaded = bundle.unpack(files)
    loaded.verify()
    outputs = loaded.predict(rows).outputs
    np.testing.assert_array_equal(outputs, made.predict(rows).outputs)
    truth = dataset.targets[dataset.split.validation]
    found = metrics.score(dataset.schema.target, truth, outputs)
    best = running.progress.best
    assert found == pytest.approx({name: best[name] for name in found})
    assert found["accuracy" if task not in NUMBERS else "r2"] > (
        0.8 if task == "quantiles" else 0.9
    )


def test_what_the_engine_takes_is_refused_where_it_is_cut(tmp_path: Path) -> None:
    running = start(tmp_path)
    running.epoch()
    text = running.text
    with pytest.raises(errors.UserError):
        engine.LightGbm(text[: len(text) // 2], features.Matrix.of(running.data.transforms), 2)


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("rounds", [0, 2])
def test_trees_resumed_equal_those_that_were_not_interrupted_to_the_bit(
    tmp_path: Path, task: str, rounds: int
) -> None:
    """After whole epochs, and in the third, which begins again; rows and columns are drawn."""
    drawn = {"model.row_share": "0.7", "model.column_share": "0.7"}
    whole, first, second = (start(tmp_path, task, **drawn) for _ in range(3))
    finish(whole)
    first.epoch()
    first.epoch()
    stops = iter([False] * (rounds - 1) + [True])
    assert not rounds or first.epoch(lambda: next(stops)) is None
    assert first.partial.batches == rounds
    copy(first, second, tmp_path)
    assert second.progress == first.progress
    for resumed in (first, second):
        finish(resumed)
        assert history(resumed) == history(whole)
        assert isinstance(resumed, boosting.Booster)
        assert resumed.text == whole.text
        assert resumed.best("x").read() == whole.best("x").read()


def test_the_text_of_all_epochs_is_parsed_once_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, parsed = finish(start(tmp_path)), start(tmp_path), []
    made = lightgbm.Booster

    def counted(*given: object, **options: object) -> lightgbm.Booster:
        parsed.append(options["model_str"])
        return made(*given, **options)

    monkeypatch.setattr(boosting.lightgbm, "Booster", counted)
    copy(first, second, tmp_path)
    assert (len(parsed), second.progress.epoch) == (1, 5)


def test_the_first_checkpoint_may_be_before_the_first_epoch(tmp_path: Path) -> None:
    first, second, whole = (start(tmp_path) for _ in range(3))
    assert first.epoch(lambda: True) is None
    copy(first, second, tmp_path)
    assert second.progress.epoch == 0
    assert history(finish(second)) == history(finish(whole))


def test_each_epoch_adds_its_rounds_to_those_before(tmp_path: Path) -> None:
    running = start(tmp_path)
    finish(running)
    booster = lightgbm.Booster(model_str=running.text.decode())
    assert booster.num_trees() == 5 * 4
    matrix = features.Matrix.of(running.data.transforms)
    raw_BC = engine.raw_outputs(booster, matrix.apply(running.data.validation.inputs), 2)
    outputs = tasks.of(running.data.target).activate(raw_BC, {})
    loss = -np.log(outputs[np.arange(len(outputs)), running.data.validation.targets]).mean()
    assert running.progress.history[-1]["log_loss"] == pytest.approx(loss)
    losses = [one["train_loss"] for one in running.progress.history]
    assert losses == sorted(losses, reverse=True)


def test_joined_texts_give_the_sum_of_what_each_gives() -> None:
    random = np.random.default_rng(0)
    rows, target = random.normal(size=(300, 4)), random.normal(size=300)
    parameters = {"objective": "regression", "verbosity": -1, "num_leaves": 5}
    boosters = [
        lightgbm.train(parameters | {"seed": seed}, lightgbm.Dataset(rows, target + seed), 11)
        for seed in range(3)
    ]
    text = trees.joined([one.model_to_string().encode() for one in boosters])
    trees.check(text)
    whole = lightgbm.Booster(model_str=text.decode())
    assert whole.num_trees() == 33
    expected = np.sum([one.predict(rows) for one in boosters], axis=0)
    np.testing.assert_allclose(np.asarray(whole.predict(rows)), expected)


def test_boosters_side_by_side_give_the_outputs_of_each() -> None:
    """One of them has fewer rounds, and adds nothing in the others."""
    random = np.random.default_rng(0)
    rows, target = random.normal(size=(300, 4)), random.normal(size=300)
    parameters = {"objective": "quantile", "verbosity": -1, "num_leaves": 5}
    boosters = [
        lightgbm.train(parameters | {"alpha": alpha}, lightgbm.Dataset(rows, target), rounds)
        for alpha, rounds in ((0.1, 7), (0.5, 4), (0.9, 7))
    ]
    text = trees.side_by_side([one.model_to_string().encode() for one in boosters])
    assert trees.check(text)["num_tree_per_iteration"] == "3"
    whole = lightgbm.Booster(model_str=text.decode())
    assert (whole.num_trees(), whole.current_iteration()) == (21, 7)
    expected = np.stack([one.predict(rows) for one in boosters], 1)
    np.testing.assert_allclose(engine.raw_outputs(whole, rows, 3), expected)
    twice = lightgbm.Booster(model_str=trees.joined([text, text]).decode())
    np.testing.assert_allclose(engine.raw_outputs(twice, rows, 3), 2 * expected)


def test_trees_grow_towards_each_quantile_and_end_where_none_can_be_split(tmp_path: Path) -> None:
    running = finish(start(tmp_path, "quantiles"))
    assert isinstance(running, boosting.Booster)
    assert lightgbm.Booster(model_str=running.text.decode()).num_trees() == 3 * 5 * 4
    losses = [one["pinball"] for one in running.progress.history]
    assert losses[-1] < losses[0]
    stuck = finish(start(tmp_path, "quantiles", **{"model.min_rows": "400"}))
    assert stuck.progress.epoch == 5
    stuck.probe()
    assert np.isfinite(stuck.progress.best["pinball"])


def test_a_weighted_loss_counts_the_rare_class_more(tmp_path: Path) -> None:
    def share(loss: str, weights: str = "none") -> float:
        """The mean probability of the rare class."""
        brief = {"train.epochs": "1", "train.lr": "0.01", "train.class_weights": weights}
        running = start(tmp_path, **brief, **{"train.loss": loss})
        running.epoch()
        matrix = features.Matrix.of(running.data.transforms)
        fitted = engine.LightGbm(running.text, matrix, 2)
        outputs = tasks.of(running.data.target).activate(
            fitted.run(running.data.validation.inputs), {}
        )
        rare = np.bincount(running.data.train.targets).argmin()
        return float(outputs[:, rare].mean())

    assert share("weighted_cross_entropy") == pytest.approx(0.5, abs=0.03)
    assert share("cross_entropy") < 0.45
    assert share("cross_entropy", "balanced") == share("weighted_cross_entropy")
    assert share("cross_entropy", "{'no': 30}") != share("cross_entropy", "{'yes': 30}")


def test_trees_are_trained_with_the_loss_of_a_package_that_names_its_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses.REGISTRY, "_members", dict(losses.REGISTRY._members))
    absolute = losses.Loss(
        frozenset({"regression"}),
        lambda *_: lambda output_B1, target_B: (output_B1[:, 0] - target_B).abs().mean(),
        objectives=lambda _: [{"objective": "l1"}],
    )
    losses.REGISTRY.register("absolute", absolute)
    chosen = experiment(tmp_path, "regression", **{"train.loss": "absolute"})
    dataset, data = prepared(chosen)
    assert not list(prepare.misfits(chosen, dataset))
    running = finish(learner.build(chosen.default(), data, metric="mae"))
    assert isinstance(running, boosting.Booster)
    assert b"objective=regression_l1" in running.text
    found = [one["train_loss"] for one in running.progress.history]
    assert found[-1] < found[0]


def test_early_stopping_counts_epochs_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    options = {
        "train.early_stopping": "{patience: 2}",
        "train.epochs": "60",
        "train.lr": "0.9",
        "model.min_rows": "1",
    }
    running = start(tmp_path, "binary", **options)
    finish(running)
    progress = running.progress
    assert progress.epoch == progress.best_epoch + 2 < 60
    assert len(running.best("x").read()) < len(running.text)


def test_trees_that_nothing_can_split_any_more_end_an_epoch_early(tmp_path: Path) -> None:
    running = start(tmp_path, **{"model.min_rows": "400"})
    finish(running)
    assert running.progress.epoch == 5
    assert np.isfinite(running.progress.best["log_loss"])


def test_what_a_model_costs_is_its_text_and_the_time_of_a_row(tmp_path: Path) -> None:
    running = finish(start(tmp_path))
    assert costs.size(running) == running.size > 1000
    assert 0 < costs.latency(running) < 1


def test_a_probe_leaves_a_training_as_it_was(tmp_path: Path) -> None:
    running = start(tmp_path)
    running.probe()
    assert running.progress == learner.Progress()
    assert history(finish(running)) == history(finish(start(tmp_path)))


@pytest.mark.parametrize(
    ("overrides", "law"),
    [
        ({"train.loss": "focal"}, "train.loss: must be one of .* beside model.type: boosting"),
        ({"data.source": "dataset:digits"}, "boosting takes no column of type image"),
    ],
)
def test_losses_and_columns_that_trees_cannot_take_are_refused(
    tmp_path: Path, overrides: dict[str, str], law: str
) -> None:
    table("binary").to_csv(tmp_path / "table.csv", index=False)
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\ndata: {source: table.csv, target: target}\nmodel: {type: boosting}\n"
        "storage: file:///tmp/unused\n"
    )
    chosen = spec.load(file, overrides)
    (found,) = prepare.misfits(chosen, prepare.dataset(chosen))
    assert re.search(law, found)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[checkpoints.Place]:
    (tmp_path / "storage").mkdir()
    store = storage.open((tmp_path / "storage").as_uri())
    records, local = searches.Records(store, "x", "s"), cache.Cache(tmp_path / "cache", 1 << 30)
    with futures.ThreadPoolExecutor(1) as uploads:
        yield checkpoints.Place(store, records, uploads, local, cost="size", population=True)


def test_a_lost_trial_goes_on_from_its_checkpoint_in_storage_and_ends_as_it_would_have(
    tmp_path: Path, place: checkpoints.Place
) -> None:
    first, second = member.Member(1, {}, place), member.Member(1, {}, place)
    first.start(lambda _: start(tmp_path))
    for _ in range(2):
        first.trainer.epoch()
    first.save_state()
    assert first.saved.flush(10)
    first.trainer.epoch(lambda: True)
    second.start(lambda _: start(tmp_path))  # another worker: the first one is lost
    assert second.epoch == 2
    assert history(finish(second.trainer)) == history(finish(start(tmp_path)))
    report = second.report("log_loss")
    assert report is not None
    assert report["done"]
    assert report["costs"] == {"size": second.trainer.size}


def test_a_trial_of_a_population_goes_on_from_anothers_trees_with_a_rate_of_its_own(
    tmp_path: Path, place: checkpoints.Place
) -> None:
    first, second = member.Member(1, {}, place), member.Member(2, {}, place)
    for one in (first, second):
        one.start(lambda _: start(tmp_path))
    first.trainer.epoch()
    first.save_state()
    assert first.saved.flush(10)
    grown = first.saved.saved
    assert grown is not None
    second.clone(lambda _: start(tmp_path, **{"train.lr": "0.5"}), {}, grown)
    assert second.trainer.progress == first.trainer.progress
    second.trainer.epoch()
    first.trainer.epoch()
    losses = [one.trainer.progress.history[-1]["train_loss"] for one in (first, second)]
    assert losses[1] < losses[0]


def test_trees_learn_by_the_distance_too(tmp_path: Path) -> None:
    running = finish(start(tmp_path, "regression", **{"train.loss": "mae"}))
    assert b"objective=regression_l1" in running.text
    assert running.progress.best["mae"] < running.progress.history[0]["mae"]


def test_trees_whose_loss_explodes_end_their_trial(tmp_path: Path) -> None:
    running = start(tmp_path, "regression", **{"train.lr": "3.0", "train.epochs": "40"})
    with pytest.raises(errors.TrainingError, match=r"loss must be finite, but is (inf|nan)"):
        finish(running)


def test_a_tree_is_grown_on_a_row_at_least(tmp_path: Path) -> None:
    finish(start(tmp_path, **{"model.row_share": "0.0001", "train.epochs": "1"}))
