"""Recommenders: choices as rows, lists without what was chosen, users who are new, bad input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import recommend
from eagleray import bundle, compatibility, errors, predictions, spec, storage
from eagleray.engines.recommender import Recommender
from eagleray.learn import schema
from eagleray.learn.histories import Histories
from eagleray.state import evaluations
from eagleray.state.models import Registry
from ray_jobs import learner, recommending, snapshots
from ray_jobs.data import prepare
from serving import explanation, openapi, protocol
from serving.page import form
from serving.wire import inference
from tests import judged
from tests.unit import test_training as trainings

tastes = recommend.tastes
FILE = """
name: lists
data: {source: choices.csv, target: item, recommend: {user: user}}
model: {type: recommender, factors: 8}
train: {epochs: 15, lr: 0.02, early_stopping: {patience: 3}}
tune: {trials: 1}
"""


def write(folder: Path, frame: pd.DataFrame) -> None:
    frame.to_csv(folder / "choices.csv", index=False)


def choices(**columns: list[object]) -> pd.DataFrame:
    """Six users who each have chosen five of eight items."""
    random = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i}") for u in range(6) for i in random.permutation(8)[:5]]
    frame = pd.DataFrame(rows, columns=["user", "item"])
    return frame.assign(**columns)


def experiment(
    folder: Path, frame: pd.DataFrame | None = None, **overrides: str
) -> spec.Experiment:
    if frame is not None:
        write(folder, frame)
    file = folder / "lists.yaml"
    file.write_text(FILE)
    return spec.load(file, {"storage": "file:///tmp/unused"} | overrides)


def prepared(folder: Path, frame: pd.DataFrame | None = None, **overrides: str) -> prepare.Dataset:
    return prepare.dataset(experiment(folder, frame, **overrides))


def users(dataset: prepare.Dataset, rows: np.ndarray) -> list[str]:
    return dataset.columns["user"][rows].tolist()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, bundle.Bundle, Path]:
    """Planted choices, and the winner of a search over them."""
    folder, planted = tmp_path_factory.mktemp("small"), tastes.planted(300, 80, 25, seed=3)
    write(folder, planted.frame.drop(columns="group"))
    one = judged.searched(folder, FILE)
    result = judged.won(one, [judged.trial(one, 1)])
    registry = Registry(storage.open(one.experiment.storage))
    return planted, bundle.load(registry, registry.version("lists", result.version)), folder


def ask(made: bundle.Bundle, **columns: list[object]) -> list[dict[str, object]]:
    return list(made.task.answers(made.predict(columns).outputs))


def test_each_users_rows_are_split_and_the_first_is_always_for_training(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, choices())
    assert dataset.counts == {"train": 18, "validation": 6, "test": 6}
    for rows in dataset.split.parts().values():
        assert set(users(dataset, rows)) == {f"u{number}" for number in range(6)}
    lonely = pd.concat([choices(), pd.DataFrame({"user": ["new"], "item": ["i0"]})])
    dataset = prepared(tmp_path, lonely)
    assert "new" in users(dataset, dataset.split.train)
    assert "user: 6 of 7 have rows in the test part" in dataset.notes


def test_the_latest_choices_of_each_user_are_the_test_part(tmp_path: Path) -> None:
    frame = choices(day=list(range(30)))
    dataset = prepared(tmp_path, frame, **{"data.split.time": "day"})
    assert [dataset.rows[row] for row in dataset.split.test] == [5, 10, 15, 20, 25, 30]
    assert [column.name for column in dataset.schema.columns] == ["user"]


def test_users_and_items_are_names_whatever_they_look_like(tmp_path: Path) -> None:
    frame = choices()
    frame = frame.apply(lambda names: names.str[1:].astype(int))
    dataset = prepared(tmp_path, frame)
    assert dataset.schema.target.classes == tuple("01234567")
    assert dataset.schema.columns[0].type == "categorical"
    assert dataset.columns["user"].tolist()[:2] == ["0", "0"]
    codec = protocol.Codec(dataset.schema)
    assert codec.valid_rows(b'{"instances": [{"user": 3}, {"user": "3"}]}') is not None
    many = pd.DataFrame({"user": range(3000), "item": np.arange(3000) % 7})
    dataset = prepared(tmp_path, pd.concat([many, many.assign(item=8), many.assign(item=9)]))
    assert dataset.schema.columns[0].categories is None
    assert protocol.Codec(dataset.schema).valid_rows(b'{"instances": [{"user": 3}]}') is not None


def test_repeats_low_ratings_and_rows_without_a_user_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    frame = choices(stars=[5.0, 4, 3, 4, 5] * 6)
    again = frame.iloc[:3]
    frame = pd.concat([frame, again, pd.DataFrame({"user": [None], "item": "i1", "stars": 5})])
    keys = {"data.recommend.rating": "stars", "data.recommend.least": "4"}
    dataset = prepared(tmp_path, frame, **keys)
    assert len(dataset.targets) == 24
    said = "\n".join(dataset.notes)
    assert "user: 1 of 34 rows have none and are left out" in said
    assert "stars: 7 of 33 rows have less than 4 and are left out; it is no input" in said
    assert "item: 2 rows repeat an earlier one of their user and are left out" in said
    assert [column.name for column in dataset.schema.columns] == ["user"]


def test_items_without_a_training_row_are_counted_and_never_listed(tmp_path: Path) -> None:
    frame = choices(day=list(range(30)))
    frame.loc[4, "item"] = "late"
    write(tmp_path, frame)
    one = judged.searched(tmp_path, FILE, **{"data.split.time": "day"})
    (note,) = (text for text in one.dataset.notes if text.startswith("item: "))
    new = set(one.dataset.targets) - set(one.dataset.targets[one.dataset.split.train])
    assert f"{len(new)} of 9 items have no training row" in note
    assert "of 12 later rows count as missed" in note
    running = learner.build(
        one.experiment.default(),
        one.dataset.encode(one.transforms(one.experiment.default())),
        metric="ndcg_at_k",
    )
    assert isinstance(running, recommending.Recommending)
    running.epoch()
    listed = running._lists.run(running.data.validation.inputs)[:, 9:18]
    assert one.dataset.schema.target.classes.index("late") in new
    assert not new & set(listed.ravel().astype(int))


@pytest.mark.parametrize(
    ("keys", "law"),
    [
        ({"tune.folds": "3"}, "must be 1 beside data.recommend, which parts the rows of each user"),
        ({"tune.ensemble": "{members: 3}"}, "cannot stand beside data.recommend: lists of items"),
        ({"data.recommend.user": "who"}, "data.recommend.user: a column of .* got 'who'"),
        (
            {"data.recommend.rating": "x", "data.recommend.least": "1"},
            "data.recommend.rating: a co",
        ),
        ({"data.target": "thing"}, "data.target: a column of .* got 'thing'"),
        (
            {"data.recommend.rating": "stars", "data.recommend.least": "6"},
            "least: a row needs a st",
        ),
        ({"data.recommend.rating": "word", "data.recommend.least": "6"}, "numbers are needed, but"),
        ({"train.loss": "cross_entropy"}, "model.type: must fit train.loss: cross_entropy"),
        ({"tune.metric": "accuracy"}, "must fit tune.metric: accuracy"),
        ({"tune.metric": "ndcg@10"}, "did you mean ndcg_at_k"),
        (
            {"model": "{type: mlp}"},
            "model.type: must fit data.recommend: user: user, which is for ra",
        ),
        ({"data.recommend": "null"}, "data.recommend: is required beside model.type: recommender"),
        ({"data.recommend.k": "101"}, "data.recommend.k: must be at most 100, but got 101"),
        ({"data.recommend.least": "3"}, "data.recommend.least: needs rating beside it"),
        ({"data.recommend.rating": "stars"}, "data.recommend.least: is required beside rating"),
        ({"data.recommend.user": "item"}, "a column for each key, neither"),
        ({"data.split.group": "word"}, "cannot stand beside split.group"),
        ({"features": "{user: {type: text}}"}, "features.user: must be left out"),
        ({"compute.workers": "2"}, "compute.workers: must be 1 beside model.type: recommender"),
        ({"train.label_smoothing": "0.1"}, "would do nothing beside model.type: recommender"),
        ({"decide.maximize": "f1"}, "decide.maximize: must fit data.recommend: user: user"),
        ({"data.positive": "i1"}, "must fit data.positive: i1"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, keys: dict[str, str], law: str) -> None:
    write(tmp_path, choices(stars=[5, 4, 3, 4, 5] * 6, word=["a", "b", "c"] * 10))
    with pytest.raises(errors.EagleRayError, match=law):
        prepared(tmp_path, **keys)


def test_one_item_alone_cannot_be_recommended(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [f"u{n}" for n in range(9)], "item": "i"})
    with pytest.raises(errors.DataError, match="item: at least two items are needed, but got only"):
        prepared(tmp_path, frame)


def test_users_of_one_choice_each_leave_nothing_to_judge(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [f"u{n}" for n in range(9)], "item": list("abcabcabc")})
    with pytest.raises(errors.DataError, match="each part needs rows, but the validation part"):
        prepared(tmp_path, frame)


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_lists_come_near_the_planted_optimum_and_leave_popularity_behind(
    tmp_path: Path, loss: str
) -> None:
    """`benchmarks/recommend.py` has the full size: 0.9 of the optimum."""
    planted = tastes.planted(500, 200, 50, seed=5)
    write(tmp_path, planted.frame.drop(columns="group"))
    one = judged.searched(tmp_path, FILE, **{"train.loss": loss, "train.lr": "0.005"})
    result = judged.won(one, [judged.trial(one, 1)])
    (plain,) = result.baselines
    assert plain.name == "popularity"
    best = recommend.optimum(one.dataset, planted.logit_UI)["ndcg_at_k"]
    ours, popular = result.test["ndcg_at_k"], plain.metrics["ndcg_at_k"].value
    assert ours > 1.5 * popular
    assert ours > (0.82 if loss == "softmax" else 0.75) * best
    found = result.intervals["ndcg_at_k"]
    assert found.low < ours < found.high
    assert not result.unbeaten


def test_a_version_lists_k_items_that_the_user_has_not_chosen(
    small: tuple[Any, bundle.Bundle, Path],
) -> None:
    planted, made, _ = small
    made.verify()
    names = [f"u{number}" for number in range(300)]
    chosen = planted.frame.groupby("user")["item"].agg(set)
    for name, answer in zip(names, ask(made, user=names), strict=True):
        assert answer["basis"] == "user"
        assert len(set(answer["items"])) == 10
        assert not chosen[name] & set(answer["items"]), "of the test part too"
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        assert answer["item"] == answer["items"][0]


def test_one_row_and_many_rows_have_the_same_lists(
    small: tuple[Any, bundle.Bundle, Path],
) -> None:
    _, made, _ = small
    names = [f"u{number % 100}" for number in range(200)]
    many = made.predict({"user": names}).outputs
    alone = np.concatenate([made.predict({"user": [name]}).outputs for name in names[:20]])
    np.testing.assert_allclose(many[:20], alone, rtol=1e-5, atol=1e-6)


def test_an_unknown_user_gets_the_most_popular_items_and_a_warning(
    small: tuple[Any, bundle.Bundle, Path],
) -> None:
    planted, made, _ = small
    known = made.predict({"user": ["nobody", "u1"]})
    assert known.warnings == [["user: 'nobody' was not seen in training"], []]
    answer, _ = made.task.answers(known.outputs)
    assert answer["basis"] == "popularity"
    popular = planted.frame["item"].value_counts()
    counts = popular[answer["items"]].tolist()
    assert counts == sorted(popular.tolist(), reverse=True)[:10]
    with pytest.raises(errors.DataError, match="user: every input column is needed"):
        made.predict({})


def test_other_columns_speak_for_users_who_are_new(tmp_path: Path) -> None:
    """Two groups like disjoint halves of the items."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", "ab"[user % 2], f"i{item + 20 * (user % 2)}")
        for user in range(120)
        for item in random.permutation(20)[:8]
    ]
    write(tmp_path, pd.DataFrame(rows, columns=["user", "group", "item"]))
    one = judged.searched(tmp_path, FILE)
    judged.won(one, [judged.trial(one, 1)])
    registry = Registry(storage.open(one.experiment.storage))
    made = bundle.load(registry, registry.version("lists", 1))
    answers = ask(made, user=["new", "new", "u1"], group=["a", "b", "b"])
    assert [answer["basis"] for answer in answers] == ["columns", "columns", "user"]
    halves = [{int(item[1:]) // 20 for item in answer["items"]} for answer in answers]
    assert halves == [{0}, {1}, {1}]


def test_a_user_who_has_chosen_all_gets_an_empty_list(tmp_path: Path) -> None:
    whole = pd.DataFrame({"user": "all", "item": [f"i{n}" for n in range(8)]})
    write(tmp_path, pd.concat([choices(), whole]))
    one = judged.searched(tmp_path, FILE)
    judged.won(one, [judged.trial(one, 1)])
    registry = Registry(storage.open(one.experiment.storage))
    made = bundle.load(registry, registry.version("lists", 1))
    (answer,) = ask(made, user=["all"])
    assert (answer["item"], answer["items"], answer["scores"]) == (None, [], [])
    assert made.task.flat(answer)["item 1"] is None


def test_the_training_part_says_nothing_of_the_fit_and_users_are_no_group(
    small: tuple[Any, bundle.Bundle, Path],
) -> None:
    *_, folder = small
    registry = Registry(storage.open((folder / "storage").as_uri()))
    read = registry.read(registry.version("lists", 1), evaluations.FILE)
    found = evaluations.decode(read, "here")
    assert found.fit is not None
    assert found.fit.train == {}
    assert all("user" not in one.where for one in found.slices)
    assert [one.name for one in found.diagrams] == ["listed"]
    assert [one.column for one in found.importance] == ["user"]
    assert found.importance[0].drop.value > 0
    assert "lists an item that was chosen later among 10 for" in found.headline


def test_predictions_of_a_file_have_a_column_for_each_place(
    small: tuple[Any, bundle.Bundle, Path],
) -> None:
    _, made, _ = small
    table = predictions.predict(made, pd.DataFrame({"user": ["u1", None, "nobody"]})).table()
    assert list(table.columns)[:3] == ["basis", "item 1", "score 1"]
    assert table["basis"].tolist() == ["user", "popularity", "popularity"]
    assert table["item 10"].notna().all()


@pytest.mark.parametrize("batches", [0, 2])
def test_a_training_resumed_equals_one_that_was_not_interrupted_to_the_bit(
    tmp_path: Path, batches: int
) -> None:
    write(tmp_path, tastes.planted(60, 40, 15).frame)
    keys = {"train.batch_size": "64", "train.epochs": "4", "model.negatives": "16"}
    chosen = experiment(tmp_path, **keys)
    data = trainings.encode(chosen)

    def start() -> recommending.Recommending:
        made = learner.build(chosen.default(), data, metric="ndcg_at_k")
        assert isinstance(made, recommending.Recommending)
        return made

    whole, first, second = trainings.finish(start()), start(), start()
    first.epoch()
    stops = iter([False] * (batches - 1) + [True])
    assert not batches or first.epoch(lambda: next(stops)) is None
    trainings.copy(first, second, tmp_path)
    trainings.finish(second)
    assert trainings.without_seconds(second) == trainings.without_seconds(whole)
    assert trainings.equal(second.best_weights, whole.best_weights)
    assert set(snapshots.FILES) == {"model", "best", "optimizer"}


def test_a_row_is_measured_as_it_is_served(tmp_path: Path) -> None:
    write(tmp_path, choices())
    chosen = experiment(tmp_path)
    running = learner.build(chosen.default(), trainings.encode(chosen), metric="ndcg_at_k")
    running.probe()
    raw = running.one_row()()
    assert isinstance(raw, np.ndarray)
    assert raw.shape == (1, 2 * 8 + 1)


def test_histories_are_joined_without_repeats() -> None:
    first = Histories.of(np.array([2, 1, 2, 2]), np.array([5, 3, 4, 5]), users=4)
    both = first.joined(np.array([3, 1]), np.array([0, 3]))
    rows, items = both.places(np.array([3, 2, 0, 2]))
    assert rows.tolist() == [0, 1, 1, 3, 3]
    assert items.tolist() == [0, 4, 5, 4, 5]
    assert both.counts(6).tolist() == [1, 0, 0, 1, 1, 1]


def test_ten_thousand_items_are_served_from_data_alone(tmp_path: Path) -> None:
    """Files of a bundle are JSON and safetensors; `benchmarks/recommend.py` has the time."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user": np.repeat([f"u{n}" for n in range(500)], 30),
            "item": random.integers(0, 10_000, 15_000),
        }
    )
    write(tmp_path, frame)
    keys = {"train.epochs": "1", "train.batch_size": "4096", "model.negatives": "256"}
    one = judged.searched(tmp_path, FILE, **keys)
    judged.won(one, [judged.trial(one, 1)])
    registry = Registry(storage.open(one.experiment.storage))
    version = registry.version("lists", 1)
    assert set(version.files) >= {"bundle.json", "model.safetensors", "chosen.safetensors"}
    made = bundle.load(registry, version)
    made.verify()
    assert isinstance(made.engine, Recommender)
    (answer,) = ask(made, user=["u7"])
    assert len(answer["items"]) == 10
    golden = json.loads(registry.read(version, "golden.json"))
    assert np.array(golden["outputs"]).shape == (32, 21)


def test_a_label_that_is_the_first_item_is_right() -> None:
    target = schema.Target(name="item", task="ranking", classes=("1", "2"), user="who")
    from eagleray.learn import tasks

    task = tasks.of(target)
    assert task.reward("1", 1, {}) == 1.0
    assert task.reward("1", "2", {}) == 0.0
    assert task.outcomes == ("user", "columns", "popularity")


def test_columns_of_items_describe_them_and_are_not_asked_for(tmp_path: Path) -> None:
    """Of each item with few rows it is known that it is like others with many."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", ["sea", "hill"][item % 2], item / 10)
        for user in range(200)
        for item in 2 * random.permutation(40)[:6] + user % 2
    ]
    frame = pd.DataFrame(rows, columns=["user", "item", "kind", "size"])
    write(tmp_path, frame)
    keys = {"data.recommend.items": "[kind, size]", "train.epochs": "6"}
    one = judged.searched(tmp_path, FILE, **keys)
    assert [column.name for column in one.dataset.schema.columns] == ["user"]
    assert "kind: describes item, so it is no input" in one.dataset.notes
    result = judged.won(one, [judged.trial(one, 1)])
    plain = judged.searched(tmp_path, FILE, **{"train.epochs": "6", "data.drop": "[kind, size]"})
    assert plain.id != one.id
    assert result.test["recall_at_k"] > 0.2
    registry = Registry(storage.open(one.experiment.storage))
    made = bundle.load(registry, registry.version("lists", 1))
    made.verify()
    answers = ask(made, user=["u1", "u2"])
    odd = [sum(int(item[1:]) % 2 for item in answer["items"]) for answer in answers]
    assert odd[0] >= 9
    assert odd[1] <= 1
    with pytest.raises(errors.DataError, match=r"data.recommend.items: a column of .* got 'color'"):
        prepared(tmp_path, frame, **{"data.recommend.items": "[color]"})
    with pytest.raises(errors.SpecError, match="needs a column for each key"):
        prepared(tmp_path, frame, **{"data.recommend.items": "[item]"})


def test_tensors_of_lists_are_filled_to_k_and_the_document_describes_lists(
    small: tuple[Any, bundle.Bundle, Path],
) -> None:
    _, made, _ = small
    answers = [*ask(made, user=["u1"]), {"item": None, "items": [], "scores": [], "basis": "user"}]
    found = {one.name: one for one in inference.answered(inference.Request([]), made.task, answers)}
    assert found["items"].shape == found["scores"].shape == [2, 10]
    assert found["items"].values[10:] == [""] * 10
    assert found["scores"].values[10:] == [0.0] * 10
    assert found["item"].values[1] == ""
    described = openapi.document(made)["components"]["schemas"]["Answer"]["properties"]
    assert described["items"] == {"type": "array", "items": {"type": "string"}, "maxItems": 10}
    with pytest.raises(errors.RequestError, match="answers of ranking have no contributions"):
        explanation.check(made, 1)
    page = form.made(made).body.decode()
    assert "<label hidden>" in page, "its page does not ask for contributions"


def test_new_items_and_another_k_break_no_client(
    small: tuple[Any, bundle.Bundle, Path],
) -> None:
    _, made, _ = small
    target = made.schema.target
    more = target.model_copy(update={"classes": (*target.classes, "new"), "k": 5})
    later = made.schema.model_copy(update={"target": more})
    found = list(compatibility.changes(made.schema, later))
    assert {one.what for one in found} == {"classes", "recommended items"}
    assert not any(one.breakage for one in found)
