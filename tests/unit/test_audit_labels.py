"""The audit: labels that look wrong, and classes that are rare."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import datasets

from tests import audits


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "generated"])
def test_six_of_ten_flipped_labels_are_among_the_suspects(tmp_path: Path, name: str) -> None:
    if name == "generated":
        x, y = datasets.make_classification(
            2000, 10, n_informative=6, flip_y=0, class_sep=1.5, random_state=0
        )
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    frame = pd.DataFrame(x, columns=[f"x{one}" for one in range(x.shape[1])])
    frame["y"] = [f"c{one}" for one in y]
    labels, rows = audits.changed(frame.y, 0.02)
    (found,) = audits.flagged(tmp_path, "label noise", frame.assign(y=labels))
    suspects = set(found.rows)
    assert found.severity == "warn"
    assert len(suspects) <= 0.08 * len(frame)
    assert sum(row + 1 in suspects for row in rows) >= 0.6 * len(rows)
    assert 0.01 <= found.numbers["share"] <= 0.05
    assert audits.flagged(tmp_path, "label noise", frame) == []


@pytest.mark.parametrize("seed", [2, 3])
def test_six_of_ten_flipped_labels_of_adult_are_listed_with_two_sound_ones_for_each(
    tmp_path: Path, seed: int
) -> None:
    frame = pd.read_csv(Path(__file__).parents[1] / "data" / "adult.csv.gz")
    frame = frame.rename(columns={"income": "y"})
    labels, rows = audits.changed(frame.y, 0.02, seed)
    (found,) = audits.flagged(tmp_path, "label noise", frame.assign(y=labels))
    suspects = set(found.rows)
    assert len(suspects) <= 3 * len(rows)
    assert sum(row + 1 in suspects for row in rows) >= 0.65 * len(rows)


def test_a_hard_problem_is_no_label_noise(tmp_path: Path) -> None:
    frame, rng = audits.healthy(1500), np.random.default_rng(8)
    frame["y"] = np.where(frame.a + 3 * rng.normal(size=len(frame)) > 0, "yes", "no")
    assert audits.flagged(tmp_path, "label noise", frame) == []
    frame["y"] = np.where(rng.random(len(frame)) < 0.05, "yes", "no")
    assert audits.flagged(tmp_path, "label noise", frame) == []


def test_rows_of_a_rare_class_that_look_like_others_are_no_label_noise(tmp_path: Path) -> None:
    frame, rng = audits.healthy(2000), np.random.default_rng(9)
    frame["y"] = np.where((frame.a > 1.3) | (rng.random(len(frame)) < 0.03), "yes", "no")
    assert audits.flagged(tmp_path, "label noise", frame) == []


def with_positives(count: int) -> pd.DataFrame:
    frame = audits.healthy(1500)
    return frame.assign(y=np.where(frame.a.rank() <= count, "fraud", "fair"))


def test_one_in_a_hundred_is_imbalanced_and_a_weighted_loss_quietens_it(tmp_path: Path) -> None:
    (found,) = audits.flagged(tmp_path, "imbalance", with_positives(15))
    assert (found.severity, found.numbers["rows"]) == ("warn", 9)
    assert found.numbers["ratio"] > 90
    (mended,) = audits.flagged(
        tmp_path, "imbalance", with_positives(15), **yaml.safe_load(found.fix)
    )
    assert (mended.severity, mended.fix) == ("note", "")
    assert audits.flagged(tmp_path, "imbalance", with_positives(400)) == []


def measured(noise: str = "normal", rows: int = 3000) -> pd.DataFrame:
    """A price that two numbers and a name tell, but for noise."""
    rng = np.random.default_rng(10)
    frame = pd.DataFrame(rng.normal(size=(rows, 4)), columns=["a", "b", "c", "d"])
    frame["city"] = rng.choice(["Oslo", "Rome", "Lima"], rows)
    told = 300 + 50 * frame.a + 20 * frame.b + 15 * (frame.city == "Rome")
    match noise:
        case "normal":
            return frame.assign(y=told + rng.normal(0, 4, rows))
        case "heavy":
            return frame.assign(y=told + 4 * rng.standard_t(3, rows))
        case "growing":
            return frame.assign(y=told * np.exp(0.01 * rng.normal(size=rows) * (1 + frame.a**2)))
        case "skewed":
            return frame.assign(y=np.exp(told / 40 + rng.normal(0, 0.1, rows)))
        case "hard":
            return frame.assign(y=told + 200 * rng.standard_t(2, rows))
    return frame.assign(y=np.where(rng.random(rows) < 0.9, 0.0, told))


def mistyped(frame: pd.DataFrame, how: str) -> tuple[pd.DataFrame, np.ndarray]:
    """2 % of the numbers replaced by those of other rows, or with a misplaced decimal point."""
    rng = np.random.default_rng(11)
    rows = rng.choice(len(frame), len(frame) // 50, replace=False)
    y = frame.y.to_numpy().copy()
    y[rows] = {
        "replaced": rng.permutation(y)[: len(rows)],
        "tenfold": y[rows] * 10,
        "tenth": y[rows] / 10,
        "either": y[rows] * rng.choice([0.01, 0.1, 10, 100], len(rows)),
    }[how]
    return frame.assign(y=y), rows


@pytest.mark.parametrize(
    ("how", "noise"),
    [
        ("replaced", "normal"),
        *itertools.product(
            ("tenfold", "tenth", "either"), ("normal", "heavy", "growing", "skewed")
        ),
    ],
)
def test_numbers_that_were_mistyped_are_found_and_heavy_tails_are_not(
    tmp_path: Path, how: str, noise: str
) -> None:
    frame, rows = mistyped(measured(noise), how)
    (found,) = audits.flagged(tmp_path, "label noise", frame)
    suspects = set(found.rows)
    assert (found.severity, found.fix) == ("warn", "train: {loss: huber}")
    assert sum(row + 1 in suspects for row in rows) >= 0.6 * len(rows)
    assert len(suspects) <= 2 * len(rows)
    assert 0.008 <= found.numbers["share"] <= 0.04
    assert " deviations off: row " in found.evidence[0]
    mended = audits.flagged(tmp_path, "label noise", frame, **yaml.safe_load(found.fix))
    assert [one.fix for one in mended] == [""]


@pytest.mark.parametrize("noise", ["normal", "heavy", "growing", "skewed", "hard", "zeros"])
def test_numbers_with_heavy_tails_are_no_label_noise(tmp_path: Path, noise: str) -> None:
    assert audits.flagged(tmp_path, "label noise", measured(noise)) == []
