"""Predictions by the groups of a protected column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import eagleray
from eagleray import errors, evaluation
from eagleray.evaluation import fairness
from eagleray.learn import columns, schema
from eagleray.reports import findings
from eagleray.state.evaluations import Fairness
from ray_jobs.report import outcome
from tests import judged

SEX = schema.Column(name="sex", type=columns.CATEGORICAL.name)
BINARY = schema.Target(name="hired", task="binary", classes=("no", "yes"))
NUMBER = schema.Target(name="wage", task="regression")
FILE = """
name: hiring
data: {source: people.csv, target: hired, positive: 'yes', drop: [sex], protected: [sex]}
model: {type: mlp, hidden: [8]}
train: {epochs: 12, batch_size: 32, lr: 0.01}
tune: {trials: 1}
"""


def of_classes(truth: list[int], said: list[int], sex: list[str]) -> Fairness:
    model = evaluation.Judged(BINARY, np.array(truth), np.eye(2)[said])
    (found,) = fairness.measure(model, "accuracy", [(SEX, np.array(sex, object))])
    return found


def test_rates_and_their_largest_differences_are_those_of_the_counts() -> None:
    women = ([1] * 20 + [0] * 20, [1] * 10 + [0] * 10 + [1] * 4 + [0] * 16)
    men = ([1] * 30 + [0] * 30, [1] * 27 + [0] * 3 + [1] * 9 + [0] * 21)
    found = of_classes(women[0] + men[0], women[1] + men[1], ["w"] * 40 + ["m"] * 60)
    m, w = found.groups
    assert (m.name, m.rows, w.name, w.rows) == ("m", 60, "w", 40)
    rates = [
        [getattr(one, key).value for key in ("positive", "true_positive", "false_positive")]
        for one in (m, w)
    ]
    assert rates == [pytest.approx([0.6, 0.9, 0.3]), pytest.approx([0.35, 0.5, 0.2])]
    assert w.true_positive is not None
    assert (w.true_positive.low, w.true_positive.high) == pytest.approx((0.299, 0.701), abs=1e-3)
    assert w.score is not None
    assert w.score.value == pytest.approx(26 / 40)
    parity, odds = found.gaps
    assert (parity.name, parity.value) == (fairness.PARITY, pytest.approx(0.25))
    assert (odds.value, odds.rate) == (pytest.approx(0.4), "true_positive")
    assert (odds.highest, odds.lowest, odds.sure) == ("m", "w", True)
    assert str(found) == (
        "by sex: demographic parity difference 0.25 (m above w, within noise);"
        " equalised odds difference 0.4 (m above w)"
    )


def test_groups_that_are_treated_alike_differ_within_noise() -> None:
    draw = np.random.default_rng(0)
    truth, sex = draw.integers(0, 2, 600), draw.choice(["w", "m"], 600)
    said = np.where(draw.random(600) < 0.2, 1 - truth, truth)
    found = of_classes(truth.tolist(), said.tolist(), sex.tolist())
    assert not any(gap.sure for gap in found.gaps)


def test_a_group_of_few_rows_is_shown_but_not_compared() -> None:
    found = of_classes([1, 0] * 30 + [1] * 5, [1, 0] * 30 + [0] * 5, ["w"] * 60 + ["x"] * 5)
    assert [(one.name, one.score is None) for one in found.groups] == [("w", False), ("x", True)]
    assert found.groups[1].false_positive is None
    assert str(found) == "by sex: no two groups of 25 rows can be compared"


def test_numbers_have_a_mean_error() -> None:
    draw = np.random.default_rng(0)
    truth, sex = draw.normal(size=200), np.array(["w", "m"] * 100, object)
    said = truth + np.where(sex == "w", -0.5, 0.1) + 0.1 * draw.normal(size=200)
    (found,) = fairness.measure(evaluation.Judged(NUMBER, truth, said), "mae", [(SEX, sex)])
    by = {one.name: one for one in found.groups}
    assert by["w"].error is not None
    assert by["w"].error.value == pytest.approx(-0.5, abs=0.05)
    assert by["w"].positive is None
    (gap,) = found.gaps
    assert (gap.name, gap.highest, gap.lowest, gap.sure) == ("mean error", "m", "w", True)


def people(folder: Path) -> None:
    """Skill counts, but men are hired with less of it; shoe size tells sex."""
    draw = np.random.default_rng(0)
    sex = draw.choice(["w", "m"], 1200)
    skill, shoe = draw.normal(size=1200), np.where(sex == "m", 44, 38) + draw.integers(-2, 3, 1200)
    hired = np.where(skill + np.where(sex == "m", 0.8, -0.8) > 0, "yes", "no")
    frame = pd.DataFrame({"skill": skill, "shoe": shoe, "sex": sex, "hired": hired})
    frame.to_csv(folder / "people.csv", index=False)


def test_a_column_that_is_no_input_is_compared_in_report_json_and_console(tmp_path: Path) -> None:
    people(tmp_path)
    one = judged.searched(tmp_path, FILE)
    assert [column.name for column in one.dataset.schema.columns] == ["skill", "shoe"]
    result = judged.won(one, [judged.trial(one, 1)])
    report = eagleray.report("hiring", (tmp_path / "storage").as_uri())
    (found,) = report.json()["evaluation"]["fairness"]
    assert (found["column"], sum(group["rows"] for group in found["groups"])) == ("sex", 240)
    assert {gap["highest"] for gap in found["gaps"]} == {"m"}
    assert any("Its predictions differ by sex: demographic" in one.message
               for one in report.findings if one.severity == "warn")  # fmt: skip
    assert ">By protected column</h2>" in report.html()
    assert "false positive rate" in report.html()
    (line,) = [line for line in outcome.said(result) if "by sex" in line]
    assert line.startswith("differs on the test part by sex: demographic parity difference 0.")


def test_rows_that_are_left_out_are_left_out_of_the_groups_too(tmp_path: Path) -> None:
    people(tmp_path)
    frame = pd.read_csv(tmp_path / "people.csv")
    frame["height"] = np.random.default_rng(1).normal(1.7, 0.1, len(frame))  # no chance repeats it
    frame.loc[3, "hired"] = None
    pd.concat([frame, frame.head(50)]).to_csv(tmp_path / "people.csv", index=False)
    data = judged.searched(tmp_path, FILE, **{"data.duplicates": "drop"}).dataset
    (found,) = data.protected
    assert found.array.tolist() == frame["sex"].drop(index=3).tolist()
    assert len(found.array) == len(data.targets) == 1199


def test_an_evaluation_without_protected_columns_says_nothing_of_them(tmp_path: Path) -> None:
    one = judged.searched(tmp_path)
    result = judged.won(one, [judged.trial(one, 1)])
    report = eagleray.report("tumours", (tmp_path / "storage").as_uri())
    assert result.fairness == []
    assert "By protected column" not in report.html()
    assert report.evaluation is not None
    assert not list(findings._fairness(report.evaluation))


@pytest.mark.parametrize(
    ("old", "new", "law"),
    [
        (
            "protected: [sex]",
            "protected: [sexx]",
            "data.protected: a column of people.csv is needed",
        ),
        ("protected: [sex]", "protected: [hired]", "must be other columns than the target"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, old: str, new: str, law: str) -> None:
    people(tmp_path)
    with pytest.raises(errors.EagleRayError, match=law):
        _ = judged.searched(tmp_path, FILE.replace(old, new)).dataset
