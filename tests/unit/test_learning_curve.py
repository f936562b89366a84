"""What more rows would bring: planted problems, their healthy twins, and what is left out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import eagleray
from eagleray import errors, evaluation
from eagleray.evaluation import learning_curve as law
from eagleray.learn import features, schema
from eagleray.state import evaluations, searches
from eagleray.state.evaluations import Evaluation
from eagleray.state.models import Registry
from ray_jobs import learner, learning_curve, search, winner
from ray_jobs.data import shares
from ray_jobs.report import outcome
from tests import judged

NUMBER = schema.Target(name="y", task="regression")
CLASS = schema.Target(name="y", task="binary", classes=("no", "yes"))
ROWS = (125, 250, 500, 1000)

TREES = """
name: waves
data: {source: rows.csv, target: y, split: {validation: 0.2, test: 0.3}}
model: {type: boosting, leaves: 15}
train: {epochs: 12, lr: 0.1}
"""
NETWORK = """
name: waves
data: {source: rows.csv, target: y, split: {validation: 0.2, test: 0.3}}
model: {type: mlp, hidden: [8]}
train: {epochs: 4, lr: 0.01, batch_size: 32}
"""


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A curve ends with its shares, however slow the machine is."""
    monkeypatch.setattr(learning_curve, "LEAST_S", learning_curve.MOST_S)


def off(sizes: np.ndarray, rows: int = 2000) -> list[evaluation.Judged]:
    """Models whose errors have these root mean squares, and are alike."""
    random = np.random.default_rng(0)
    truth_B, error_B = random.normal(size=(2, rows))
    own_KB = random.normal(0, 0.1, (len(sizes), rows))
    outputs_KB = truth_B + sizes[:, None] * (error_B + own_KB) / np.sqrt(1.01)
    return [evaluation.Judged(NUMBER, truth_B, one, ("rmse", "r2")) for one in outputs_KB]


def table(folder: Path, rows: int, *, hard: bool, seed: int = 0) -> None:
    """Five numbers, and waves of them, or a line with noise."""
    random = np.random.default_rng(seed)
    x_BF = random.uniform(-1, 1, (rows, 5))
    waves_B = np.sin(4 * x_BF[:, 0]) + np.cos(4 * x_BF[:, 1] + 2 * x_BF[:, 2]) + x_BF[:, 3]
    y_B = waves_B if hard else 2 * x_BF[:, 0] + random.normal(0, 1, rows)
    lines = [",".join(f"{value:.5f}" for value in (*x_F, y)) for x_F, y in zip(x_BF, y_B)]  # noqa: B905
    (folder / "rows.csv").write_text("\n".join(["a,b,c,d,e,y", *lines]) + "\n")


def kept(one: search.Search, result: searches.Result) -> Evaluation:
    registry = Registry(one.storage)
    version = registry.version(one.experiment.name, result.version)
    return evaluations.decode(registry.read(version, evaluations.FILE), "here")


@pytest.mark.parametrize("metric", ["rmse", "r2"])
def test_a_power_law_with_a_floor_is_found_and_goes_on(metric: str) -> None:
    """The errors are 0.2 + 0.4 (n / 1000) to -0.5, squared for R²."""
    sizes = 0.2 + 0.4 * (np.array(ROWS) / 1000) ** -0.5
    found = law.measure(ROWS, off(sizes), metric)
    assert found is not None
    expected = 0.6 - (0.2 + 0.4 * 2**-0.5)
    if metric == "r2":
        expected = 0.6**2 - (0.2 + 0.4 * 2**-0.5) ** 2
    assert found.gain.value == pytest.approx(expected, rel=0.15)
    assert found.gain.low < found.gain.value < found.gain.high
    assert found.outcome == "helps"
    assert found.last.value > found.gain.value
    assert found.expected(1000) == pytest.approx(found.points[-1].score.value, rel=0.02)
    assert [point.rows for point in found.points] == list(ROWS)


def test_what_the_law_does_not_explain_widens_the_interval() -> None:
    """The test rows are the same; trainings that scatter tell less."""
    smooth = 0.2 + 0.4 * (np.array(ROWS) / 1000) ** -0.5
    steady, scattered = (
        law.measure(ROWS, off(sizes), "rmse")
        for sizes in (smooth, smooth + np.array([0.0, 0.08, -0.08, 0.0]))
    )
    assert steady is not None
    assert scattered is not None
    wide, narrow = (one.gain.high - one.gain.low for one in (scattered, steady))
    assert wide > 2 * narrow


def test_errors_that_do_not_fall_say_that_more_rows_hardly_help() -> None:
    for sizes in (np.ones(4), np.array([1.0, 1.01, 1.0, 1.01])):
        found = law.measure(ROWS, off(sizes), "rmse")
        assert found is not None
        assert found.outcome == "hardly"
        assert found.gain.value < 0.01
        assert found.gain.high < 0.05
    perfect = law.measure(ROWS, off(np.array([0.1, 0.1, 0.1, 0.0])), "rmse")
    assert perfect is not None
    assert perfect.outcome == "hardly"


def test_two_and_three_models_are_a_straight_line_in_logarithms() -> None:
    sizes = 0.5 * (np.array(ROWS) / 1000) ** -0.4
    for count in (2, 3):
        found = law.measure(ROWS[-count:], off(sizes[-count:]), "rmse")
        assert found is not None
        assert found.law.floor == 0
        assert found.law.exponent == pytest.approx(0.4, abs=0.05)
        assert found.gain.value == pytest.approx(0.5 * (1 - 2**-0.4), rel=0.1)


def test_few_rows_of_a_test_part_leave_it_open() -> None:
    random, found = np.random.default_rng(0), []
    for _ in range(5):
        truth_B, *outputs = random.normal(size=(5, 12))
        models = [evaluation.Judged(NUMBER, truth_B, one, ("rmse",)) for one in outputs]
        curve = law.measure(ROWS, models, "rmse")
        assert curve is not None
        found.append(curve.outcome)
    assert set(found) == {"unclear"}


def test_what_the_rows_do_not_define_has_no_curve() -> None:
    outputs_BC = np.tile([0.4, 0.6], (20, 1))
    models = [evaluation.Judged(CLASS, np.ones(20, int), outputs_BC, ("roc_auc",))] * 3
    assert law.measure(ROWS[:3], models, "roc_auc") is None


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("text", [TREES, NETWORK], ids=["trees", "network"])
def test_a_hard_problem_with_few_rows_is_told_that_more_help_and_they_do(
    tmp_path: Path, text: str
) -> None:
    scores, found = [], []
    for rows in (700, 1400):
        folder = tmp_path / str(rows)
        folder.mkdir()
        table(folder, rows, hard=True)
        text = text.replace("epochs: 4", "epochs: 30").replace("[8]", "[64]")
        one = judged.searched(folder, text)
        result = judged.won(one, [judged.trial(one, 1)])
        scores.append(result.test["rmse"])
        found.append(result.learning_curve)
        report = eagleray.report("waves", one.storage.uri)
    curve = found[0]
    assert curve is not None
    assert curve.outcome == "helps"
    assert [point.rows for point in curve.points] == [43, 87, 175, 350]
    assert curve.points[-1].score.value == scores[0], "all rows are the winner itself"
    gained = scores[0] - scores[1]
    assert 0.4 * curve.gain.value < gained < 2.5 * curve.gain.value
    (told,) = [one for one in report.findings if one.check == "learning curve"]
    assert told.severity == "warn"
    assert told.message.startswith("More data would help: twice the rows (1,400) would lower rmse")
    assert "<strong>Learning curve by the number of rows</strong>" in report.html()
    assert report.json()["evaluation"]["learning_curve"]["outcome"] == "helps"


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("text", [TREES, NETWORK], ids=["trees", "network"])
def test_a_line_with_noise_is_told_that_more_rows_hardly_help(tmp_path: Path, text: str) -> None:
    """A network of 4 epochs too: with half of the rows it takes as many steps."""
    text = text.replace("leaves: 15}", "leaves: 4, min_rows: 40}")
    table(tmp_path, 4000, hard=False)
    one = judged.searched(tmp_path, text)
    result = judged.won(one, [judged.trial(one, 1)])
    curve = result.learning_curve
    assert curve is not None
    assert curve.outcome == "hardly", str(curve)
    sentence = str(curve)
    assert sentence in outcome.said(result)
    assert sentence.startswith("would hardly be better with more rows: twice the rows (4,000)")
    report = eagleray.report("waves", one.storage.uri)
    (told,) = [one for one in report.findings if one.check == "learning curve"]
    assert (told.severity, told.fix) == ("pass", "")


def marked(folder: Path, split: str, rows: int = 400) -> search.Search:
    """Rows with a group, a time and a class of which a tenth is `yes`."""
    random = np.random.default_rng(0)
    lines = [
        f"{random.normal():.4f},g{n % 37},{2000 + n // 5},{'yes' if n % 10 == 0 else 'no'}"
        for n in range(rows)
    ]
    (folder / "rows.csv").write_text("\n".join(["x,who,year,y", *lines]) + "\n")
    text = f"""
name: marks
data: {{source: rows.csv, target: y, split: {split}, drop: [who, year]}}
model: {{type: mlp, hidden: [4]}}
train: {{epochs: 2}}
"""
    return judged.searched(folder, text)


@pytest.mark.parametrize("split", ["{}", "{group: who}", "{time: year}"])
def test_shares_are_nested_and_drawn_as_the_split_is(tmp_path: Path, split: str) -> None:
    one = marked(tmp_path, split)
    halves, whole = shares.halves(one.dataset, one.experiment.data), one.dataset
    for _ in range(3):
        half = next(halves)
        rows, before = half.split.train, whole.split.train
        assert set(rows) < set(before)
        assert len(rows) == pytest.approx(len(before) / 2, rel=0.2)
        assert half.split.test is one.dataset.split.test
        for mark in (array for array in one.dataset.marks if array is not None):
            left = np.setdiff1d(before, rows)
            if split == "{time: year}":
                assert mark[rows].min() > mark[left].max()
            else:
                assert not set(mark[rows]) & set(mark[left])
        if split == "{}":
            assert one.dataset.targets[rows].mean() == pytest.approx(0.1, abs=0.03)
        whole = half


def test_a_share_that_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    few = shares.halves((tiny := marked(tmp_path, "{}", 50)).dataset, tiny.experiment.data)
    with pytest.raises(errors.DataError, match=r"a share needs at least 20 rows, but has 15"):
        next(few)
    same = marked(tmp_path, "{time: year}")
    times_B = np.ones(len(same.dataset.targets))
    level = dataclasses.replace(same.dataset, marks=features.Marks(times=times_B))
    with pytest.raises(errors.DataError, match="rows of different times are needed"):
        next(shares.halves(level, same.experiment.data))
    grouped = marked(tmp_path, "{group: who}")
    names_B = np.array(["one"] * len(times_B))
    level = dataclasses.replace(grouped.dataset, marks=features.Marks(groups=names_B))
    with pytest.raises(errors.DataError, match="two groups are needed, but got 1"):
        next(shares.halves(level, grouped.experiment.data))


@pytest.mark.usefixtures("unhurried")
def test_tiny_data_have_a_winner_and_a_note(tmp_path: Path) -> None:
    one = marked(tmp_path, "{}", 50)
    result = judged.won(one, [judged.trial(one, 1)])
    assert result.learning_curve is None
    notes = kept(one, result).notes
    assert "learning curve: left out: a share needs at least 20 rows, but has 15" in notes


@pytest.mark.usefixtures("unhurried")
def test_shares_that_lack_a_class_are_left_out(tmp_path: Path) -> None:
    """Of 120 training rows two are `rare`: one is left in a half, none in the next one."""
    lines = [f"{n % 7},{'rare' if n >= 196 else 'ab'[n % 2]}" for n in range(200)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,y", *lines]) + "\n")
    text = """
name: rare
data: {source: rows.csv, target: y}
model: {type: mlp, hidden: [4]}
train: {epochs: 2}
"""
    one = judged.searched(tmp_path, text)
    result = judged.won(one, [judged.trial(one, 1)])
    (note,) = [note for note in kept(one, result).notes if note.startswith("learning curve")]
    assert result.learning_curve is not None
    assert [point.rows for point in result.learning_curve.points] == [60, 120]
    assert note.startswith(
        "learning curve: smaller shares left out: rows of every class are needed"
    )


def test_a_learner_that_fails_again_leaves_the_winner_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = judged.searched(tmp_path, **{"train.epochs": "2"})
    trial = judged.trial(one, 1)

    def fails(*_: object, **__: object) -> learner.Learner:
        raise ZeroDivisionError("of its library")

    monkeypatch.setattr(learner, "build", fails)
    result = judged.won(one, [trial])
    assert (result.version, result.learning_curve) == (1, None)
    assert "learning curve: left out: of its library" in kept(one, result).notes


def test_a_storage_that_is_away_meanwhile_leaves_the_winner_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what was judged is registered, or kept here if storage stays away."""
    one = judged.searched(tmp_path, **{"train.epochs": "2"})
    trial = judged.trial(one, 1)

    def away(_: search.Search) -> float:
        raise errors.StorageUnavailableError("storage does not answer")

    monkeypatch.setattr(search.Search, "seconds", away)
    result = judged.won(one, [trial])
    assert (result.version, result.learning_curve) == (1, None)
    assert "learning curve: left out: storage does not answer" in kept(one, result).notes


def test_after_a_driver_that_was_killed_at_it_the_next_one_registers_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as for its memory, which the next one would not have either."""
    one = judged.searched(tmp_path, **{"train.epochs": "2"})
    trial = judged.trial(one, 1)

    class Killed(BaseException): ...

    def killed(*_: object, **__: object) -> learner.Learner:
        monkeypatch.setattr(one.storage, "delete", lambda _: None)  # nothing comes after a kill
        raise Killed

    monkeypatch.setattr(learner, "build", killed)
    with pytest.raises(Killed):
        judged.won(one, [trial])
    monkeypatch.undo()
    result = judged.won(one, [trial])
    assert (result.version, result.learning_curve) == (1, None)
    (note,) = [note for note in kept(one, result).notes if note.startswith("learning curve")]
    assert note == "learning curve: left out: the driver before was killed while it trained one"


def test_it_ends_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = judged.searched(tmp_path, **{"train.epochs": "2"})
    none = learning_curve.Plan(learning_curve.SHARES, 1.0, -1.0)
    monkeypatch.setattr(learning_curve, "plan", lambda *_: none)
    result = judged.won(one, [judged.trial(one, 1)])
    assert result.learning_curve is None
    assert "learning curve: left out: its time was over" in kept(one, result).notes


@pytest.mark.parametrize(
    ("text", "spent", "planned"),
    [
        (TREES, 8.0, ("1/2", "1/4", "1/8")),
        (TREES, 15.0, ("1/2",)),
        (TREES, 30.0, ()),
        (NETWORK, 3.0, ("1/2", "1/4", "1/8")),
        (NETWORK, 4.0, ("1/2", "1/4")),
        (NETWORK, 60.0, ()),
    ],
)
def test_there_are_as_many_shares_as_there_is_time_for(
    tmp_path: Path, text: str, spent: float, planned: tuple[str, ...]
) -> None:
    """10 s, where a search took less than 100: a network takes as long with fewer rows."""
    table(tmp_path, 100, hard=True)
    one = judged.searched(tmp_path, text)
    trial = searches.Record(number=1, values={}, spent=spent, epoch=4)
    found = learning_curve.plan(one, trial)
    assert found.shares == planned
    assert found.seconds <= found.limit == 10
    assert bool(found.why) == (len(planned) < 3)
    if found.why:
        assert f"a training takes about {spent:.0f} s, and all may take 10 s" in found.why


def test_a_longer_search_has_more_time_but_not_without_end(tmp_path: Path) -> None:
    one = judged.searched(tmp_path, judged.DIABETES, **{"train.lr": "0.01"})
    trial = searches.Record(number=1, values={}, spent=30.0, epoch=2)
    limits = []
    for gone in (50.0, 1000.0, 1e6):
        one.records.save(view(gone))
        limits.append(learning_curve.plan(one, trial).limit)
    assert limits == [10.0, 100.0, 600.0]


def view(gone: float) -> searches.View:
    fields = {"at": 0.0, "gone": gone, "metric": "roc_auc", "epochs": 2, "total": 1}
    return searches.View.model_validate(
        {**fields, "started": 1, "ended": 1, "best": None, "rows": []}
    )


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"compute.gpus": "1"}, "trained on GPUs"),
        ({"compute.workers": "2"}, "a group of workers"),
        (
            {"tune.scheduler": "pbt", "model.dropout": "0.1"},
            "the values of a population change",
        ),
    ],
)
def test_what_the_driver_cannot_train_is_said(
    tmp_path: Path, overrides: dict[str, str], why: str
) -> None:
    one = judged.searched(tmp_path, **overrides)
    found = learning_curve.plan(one, searches.Record(number=1, values={"train.lr": 0.01}))
    assert found.shares == ()
    assert why in found.why


def test_streamed_rows_have_none(tmp_path: Path) -> None:
    one = judged.searched(tmp_path)
    one.dataset = dataclasses.replace(one.dataset)
    object.__setattr__(one.dataset, "streamed", True)
    found = learning_curve.plan(one, searches.Record(number=1, values={}))
    assert found.why == "streamed rows are not in the driver's memory"


@pytest.mark.usefixtures("unhurried")
def test_a_registered_winner_is_the_same_whether_it_has_a_curve_or_not(tmp_path: Path) -> None:
    """The weights and the lineage are those of the trial; training again changes nothing of it."""
    one = judged.searched(tmp_path)
    trials = [judged.trial(one, 1), judged.trial(one, 2, **{"train.lr": 0.003})]
    first = winner.Winner(one, one.ranked(trials)).register()
    again = winner.Winner(one, one.ranked(trials)).register()
    assert (first.version, again.version) == (1, 1)
    assert first.learning_curve is not None
    assert again.learning_curve is not None
    assert first.learning_curve.points == again.learning_curve.points
