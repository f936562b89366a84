"""What is printed of a search that has ended: it fits the screen, and says the most telling."""

import io

import numpy as np
import pytest
from rich.console import Console, RenderableType

from eagleray.learn import schema, tasks
from eagleray.learn.tasks import classes
from eagleray.state import searches
from ray_jobs.report import outcome

METRIC = "balanced_accuracy"


def trials(count: int) -> list[searches.Record]:
    values = {"model.hidden": [128, 64], "train.lr": 0.00123, "model.dropout": 0.25}
    return [
        searches.Record(
            number=number,
            values=values,
            status="finished",
            score=0.9,
            best_epoch=12,
            history=[{"seconds": 61.5}],
        )
        for number in range(1, count + 1)
    ]


def printed(drawn: RenderableType, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(drawn)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def target(count: int) -> schema.Target:
    return schema.Target(
        name="kind", task="multiclass", classes=tuple(f"class {one:03}" for one in range(count))
    )


def result(known: schema.Target, truth: np.ndarray, label: np.ndarray) -> searches.Result:
    evaluation = tasks.of(known).evaluate(truth, np.eye(len(known.classes))[label], {})
    keys = ("truth", "predicted", "rows")
    pairs = [dict(zip(keys, pair, strict=True)) for pair in evaluation.confused]
    return searches.Result(
        version=1,
        winner=1,
        metric="accuracy",
        test={},
        confusion=evaluation.confusion,
        confused=[searches.Confusion.model_validate(pair) for pair in pairs],
    )


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (120, ["trial", METRIC, "best epoch", "seconds", "values"]),
        (96, ["trial", METRIC, "best epoch", "values"]),
        (80, ["trial", METRIC, "values"]),
        (60, ["trial", METRIC, "values"]),
        (40, ["trial", METRIC]),
    ],
)
def test_the_leaderboard_has_the_columns_that_fit_and_a_line_a_trial(
    width: int, columns: list[str]
) -> None:
    lines = printed(outcome.leaderboard(trials(24), METRIC, width), width)
    heading = next(line for line in lines if METRIC in line)
    assert " ".join(heading.split()) == " ".join(columns)
    assert len([line for line in lines if " 0.9000 " in f"{line} "]) == outcome.ROWS
    assert max(map(len, lines)) <= width
    assert lines[0] == "24 trials, 0 stopped early, 0 failed"
    assert "…" not in "".join(lines) or width <= 60


def test_a_search_without_a_space_or_a_score_has_a_leaderboard_too() -> None:
    plain = searches.Record(number=1, values={}, status="finished", score=1.0)
    failed = searches.Record(number=2, values={}, status="failed")
    assert "1.0000" in "".join(printed(outcome.leaderboard([plain, failed], METRIC, 60), 60))
    assert "1 failed" in printed(outcome.leaderboard([failed], METRIC, 60), 60)[0]


def test_a_matrix_that_fits_is_shown_whole_and_one_that_does_not_as_its_mistakes() -> None:
    truth, label = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 0, 2])
    found = result(target(3), truth, label)
    wide = printed(outcome.confusion(found, target(3).classes, 80), 80)
    assert wide[0] == "confusion on the test part"
    narrow = printed(outcome.confusion(found, target(3).classes, 40), 40)
    assert narrow[0] == "most confused on the test part"
    assert [line.split() for line in narrow if "class" in line] == [
        ["class", "002", "class", "000", "2"],
        ["class", "000", "class", "001", "1"],
    ]


def test_five_hundred_classes_print_their_most_confused_pairs_in_few_lines() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 500, 5000)
    label = np.where(random.random(5000) < 0.2, random.integers(0, 500, 5000), truth)
    label[truth == 7] = 8
    found = result(target(500), truth, label)
    assert found.confusion is None
    assert found.confused[0] == searches.Confusion(
        truth="class 007", predicted="class 008", rows=int((truth == 7).sum())
    )
    assert len(found.confused) == classes.MOST_PAIRS
    assert len(found.model_dump_json()) < 1000
    lines = printed(outcome.confusion(found, target(500).classes, 80), 80)
    assert len(lines) < 20
    assert max(map(len, lines)) <= 80


def test_a_class_is_printed_as_it_is_called() -> None:
    names = ("[red]", "[/b]")
    both = schema.Target(name="kind", task="binary", classes=names)
    shown = result(both, np.array([0, 1]), np.array([1, 1]))
    for width in (80, 30):
        text = "".join(printed(outcome.confusion(shown, names, width), width))
        assert all(name in text for name in names)


def test_a_metric_stands_beside_its_interval_and_the_best_baseline() -> None:
    estimate = {"value": 0.9, "low": 0.85, "high": 0.95}
    gap = {"outcome": "no difference", "metric": "accuracy", "difference": {"value": 0.01}}
    plain = [
        {"name": name, "metrics": {"accuracy": {"value": value}}, "verdict": gap}
        for name, value in (("always the same", 0.6), ("boosting", 0.89), ("linear", 0.7))
    ]
    found = searches.Result.model_validate(
        {
            "version": 2,
            "winner": 1,
            "metric": "accuracy",
            "looks": 2,
            "test": {"accuracy": 0.9, "f1": 0.8},
            "intervals": {"accuracy": estimate},
            "baselines": plain,
            "headline": "is right for 90 of 100 rows",
            "compared": {"version": 1, "verdict": gap},
        }
    )
    lines = printed(outcome.scores({"accuracy": 0.91}, found), 90)
    cells = [line.split() for line in lines if line.strip()]
    assert cells[1] == ["metric", "validation", "test", "95", "%", "interval", "boosting"]
    assert cells[3] == ["accuracy", "0.9100", "0.9000", "0.8500", "to", "0.9500", "0.8900"]
    assert cells[4] == ["f1", "nan", "0.8000"]
    assert list(outcome.said(found)) == [
        "is right for 90 of 100 rows",
        "beside version 1, the champion when it was judged, on the same rows: no difference"
        " (accuracy +0.01)",
        "is look 2 at this test part: each look makes it a less honest judge",
    ]
