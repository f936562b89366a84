"""The audit: rows that repeat others."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import datasets

from eagleray import audit, spec
from eagleray.learn import columns
from ray_jobs.data import prepare
from tests import audits


def test_rows_in_several_parts_are_found_and_dropped_by_the_line_that_is_given(
    tmp_path: Path,
) -> None:
    frame = audits.healthy()
    twice = pd.concat([frame, frame], ignore_index=True)
    (found,) = audits.flagged(tmp_path, "rows across parts", twice)
    assert found.severity == "error"
    assert found.numbers["test share"] > 0.5
    assert " is like row " in found.evidence[0]
    (repeated,) = audits.flagged(tmp_path, "duplicate rows", twice)
    assert (repeated.severity, repeated.numbers["rows"]) == ("warn", 800)
    assert repeated.rows[0] == 801
    mended = audits.table(tmp_path, twice, **yaml.safe_load(found.fix))
    assert len(mended) == 800
    some = pd.concat([frame, frame.iloc[:100]], ignore_index=True)
    assert [one.severity for one in audits.flagged(tmp_path, "rows across parts", some)] == ["warn"]
    for check in ("rows across parts", "duplicate rows"):
        assert list(audit.REGISTRY[check](mended)) == []
        assert audits.flagged(tmp_path, check, frame) == []


def test_rows_of_few_values_repeat_by_chance_and_are_not_flagged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 3, (600, 5)), columns=list("abcde"))
    frame["y"] = rng.choice(["no", "yes"], 600)
    for check in ("rows across parts", "duplicate rows", "near-duplicate rows"):
        assert audits.flagged(tmp_path, check, frame) == []


def test_rows_that_repeat_by_chance_are_not_dropped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 2, (600, 3)), columns=list("abc"))
    frame["y"] = rng.choice(["no", "yes"], 600, p=[0.9, 0.1])
    made = prepared(tmp_path, frame)
    assert len(made.rows) == 600
    (note,) = made.notes
    assert re.search(r": 0 of 600 rows .*; 5\d\d others may repeat one by chance, and stay$", note)


@pytest.mark.parametrize(
    ("marks", "split"),
    [
        pytest.param({"row_id": range(1600)}, {}, id="identifier"),
        pytest.param(
            {"patient": [f"p{row // 20}" for row in range(1600)]}, {"group": "patient"}, id="group"
        ),
        pytest.param({"at": range(1600)}, {"time": "at"}, id="time"),
        pytest.param({"y": ["no"] * 800 + ["yes"] * 800}, {}, id="target"),
    ],
)
def test_equal_inputs_of_different_things_stay_and_no_line_is_given_that_does_nothing(
    tmp_path: Path, marks: dict[str, Sequence[Any]], split: dict[str, str]
) -> None:
    frame = audits.healthy()
    twice = pd.concat([frame, frame], ignore_index=True).assign(**marks)
    data = {"split": split} if split else {}
    assert audits.flagged(tmp_path, "duplicate rows", twice, data=data) == []
    assert len(prepared(tmp_path, twice, **data).rows) == 1600
    (found,) = audits.flagged(tmp_path, "rows across parts", twice, data=data)
    rows = int(found.numbers["validation rows"] + found.numbers["test rows"])
    assert (found.fix, found.numbers["other rows"]) == ("", rows)
    named = " or ".join(dict.fromkeys(["y", *marks]))
    assert found.evidence[0] == f"{rows} of these {rows} rows differ in {named}, and would stay"


def test_the_audit_counts_just_the_rows_that_are_dropped(tmp_path: Path) -> None:
    frame = audits.healthy()
    other = frame.iloc[:50].assign(y=frame.y.map({"no": "yes", "yes": "no"}))
    mixed = pd.concat([frame, frame.iloc[:200], other], ignore_index=True)
    (repeated,) = audits.flagged(tmp_path, "duplicate rows", mixed)
    (torn,) = audits.flagged(tmp_path, "rows across parts", mixed)
    assert repeated.fix == torn.fix == "data: {duplicates: drop}"
    assert 0 < torn.numbers["other rows"] < 50
    made = prepared(tmp_path, mixed)
    assert len(mixed) - len(made.rows) == repeated.numbers["rows"] == 200
    assert made.notes == [
        "data.duplicates: 200 of 1,050 rows repeat an earlier one, and are left out"
    ]
    (left,) = audits.flagged(tmp_path, "rows across parts", mixed, data={"duplicates": "drop"})
    assert left.fix == ""


def prepared(folder: Path, frame: pd.DataFrame, **data: Any) -> prepare.Dataset:
    """The data of an experiment that drops repeated rows."""
    file = folder / "dropped.yaml"
    keys = {"source": "rows.csv", "target": "y", "duplicates": "drop", **data}
    file.write_text(yaml.safe_dump({"name": "dropped", "data": keys}))
    return prepare.dataset(spec.load(file), frame)


def test_rows_that_differ_in_the_fourth_digit_and_in_case_are_near_duplicates(
    tmp_path: Path,
) -> None:
    frame = audits.healthy()
    again = frame.iloc[:40].assign(city=frame.city.str.upper())
    again[["a", "b"]] = again[["a", "b"]].map(lambda one: float(f"{one:.3g}") * 1.0001)
    original = frame.copy()
    original.loc[:39, ["a", "b"]] = original.loc[:39, ["a", "b"]].map(lambda v: float(f"{v:.3g}"))
    (found,) = audits.flagged(tmp_path, "near-duplicate rows", pd.concat([original, again]))
    assert (found.severity, found.numbers["rows"]) == ("warn", 40)
    assert audits.flagged(tmp_path, "near-duplicate rows", frame) == []


def test_hashes_of_rows_are_equal_for_equal_rows_alone() -> None:
    pictures = np.random.default_rng(0).normal(size=(50, 1, 4, 4)).astype(np.float32)
    names = np.array(["a", None, "b", "a"], object)
    numbers = np.array([0.0, -0.0, np.nan, 1.0])
    assert len(set(columns.hashed(np.concatenate([pictures, pictures])).tolist())) == 50
    assert columns.hashed(names)[0] == columns.hashed(names)[3] != columns.hashed(names)[1]
    assert columns.hashed(numbers)[0] == columns.hashed(numbers)[1]
    rows = columns.hashed_rows([names, numbers])
    assert len(set(rows.tolist())) == 4
    assert columns.first_of_each(rows[[0, 1, 0]]).tolist() == [True, True, False]


NOISE = "near-duplicates with noise"


def noisily(frame: pd.DataFrame, rows: int, copies: int = 1) -> pd.DataFrame:
    """The frame, and so many of its rows again with small noise on each number, in any order."""
    rng = np.random.default_rng(12)
    again = pd.concat([frame.iloc[:rows]] * copies, ignore_index=True)
    numbers = again.select_dtypes("number").columns
    deviations = 0.01 * frame[numbers].std().to_numpy()
    again[numbers] += rng.normal(size=again[numbers].shape) * deviations
    whole = pd.concat([frame, again], ignore_index=True)
    return whole.iloc[rng.permutation(len(whole))].reset_index(drop=True)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize(
    ("rows", "severity"), [pytest.param(800, "error", id="all"), pytest.param(60, "warn", id="few")]
)
def test_copies_with_noise_are_found_and_are_an_error_where_most_have_one_in_training(
    tmp_path: Path, rows: int, severity: str, copies: int
) -> None:
    frame = noisily(audits.healthy(), rows, copies)
    (found,) = audits.flagged(tmp_path, NOISE, frame)
    assert (found.severity, found.fix) == (severity, "")
    copied = (copies + 1) * rows
    assert 0.8 * copied <= found.numbers["rows"] <= 1.1 * copied
    assert found.numbers["test share"] > (0.4 if rows == 800 else 0.03)
    told = re.findall(r"^row ([\d,]+) is nearly row ([\d,]+): ", found.evidence[0])[0]
    row, other = (int(number.replace(",", "")) for number in told)
    assert np.allclose(*frame.loc[[row - 1, other - 1], list("abcd")].to_numpy(), atol=0.1)


@pytest.mark.parametrize(("kind", "least"), [("breast_cancer", 180), ("prices", 60)])
def test_copies_with_noise_are_found_among_columns_that_go_together(
    tmp_path: Path, kind: str, least: int
) -> None:
    (found,) = audits.flagged(tmp_path, NOISE, noisily(clouds(kind), 100))
    assert found.severity == "warn"
    assert found.numbers["rows"] >= least


def clouds(kind: str) -> pd.DataFrame:
    """Rows without copies that lie near each other in other ways."""
    rng = np.random.default_rng(13)
    if kind in ("breast_cancer", "wine", "diabetes", "digits", "iris"):
        x, y = getattr(datasets, f"load_{kind}")(return_X_y=True)
        y = y > 140 if kind == "diabetes" else y
    elif kind == "prices":  # few numbers with heavy tails that go together
        x = np.exp(rng.normal(size=(2000, 5)) @ rng.normal(size=(5, 8)))
        y = x[:, 0] > 1
    elif kind == "clusters":
        x, y = datasets.make_blobs(1500, 6, centers=40, cluster_std=0.3, random_state=0)
    elif kind == "curve":  # a level that moves slowly, read at any time
        time = np.sort(rng.uniform(size=1500)) * 20
        x = np.stack([np.sin(time * rate) for rate in (1, 2.3, 3.1, 0.7)], axis=1)
        x, y = x + rng.normal(scale=0.01, size=x.shape), x[:, 0] > 0
    elif kind == "whole numbers":
        x, y = rng.poisson(3, size=(2000, 6)).astype(float), rng.integers(0, 2, 2000)
    else:  # mostly zero, with rare large numbers
        x = rng.lognormal(size=(2000, 6)) * (rng.random((2000, 6)) < 0.2)
        y = x.sum(axis=1) > 1
    frame = pd.DataFrame(x, columns=[f"x{one}" for one in range(x.shape[1])])
    return frame.assign(y=[f"c{int(one)}" for one in y])


@pytest.mark.parametrize(
    "kind",
    [
        *("breast_cancer", "wine", "diabetes", "digits", "iris"),
        *("prices", "clusters", "curve", "whole numbers", "zeros"),
    ],
)
def test_rows_that_are_merely_alike_are_no_copies_with_noise(tmp_path: Path, kind: str) -> None:
    assert audits.flagged(tmp_path, NOISE, clouds(kind)) == []


def test_copies_of_a_group_that_stays_in_one_part_leak_nothing(tmp_path: Path) -> None:
    frame = audits.healthy(400)
    frame = frame.assign(shop=[f"s{one}" for one in range(400)])
    data = {"split": {"group": "shop"}}
    (found,) = audits.flagged(tmp_path, NOISE, noisily(frame, 400), data=data)
    assert (found.severity, found.numbers["test share"]) == ("warn", 0)
