"""The audit: rows that repeat others."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

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
