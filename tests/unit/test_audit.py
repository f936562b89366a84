"""The audit: each planted fault is found under its name, and its healthy twin is not flagged."""

import contextlib
import dataclasses
import datetime
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console
from sklearn import datasets

import eagleray
from eagleray import audit, cli, errors, plugins, spec
from eagleray.audit import estimates
from eagleray.findings import Finding
from eagleray.learn import columns
from eagleray.state import searches
from ray_jobs import audited, search
from ray_jobs.data import prepare

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
ROWS = 800


def healthy(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Rows in which nothing is wrong: two numbers tell the class, nearly."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 4)), columns=["a", "b", "c", "d"])
    frame["city"] = rng.choice(["Oslo", "Rome", "Lima"], rows)
    told = 2 * frame.a + frame.b + rng.normal(size=rows) > 0
    return frame.assign(y=np.where(told, "yes", "no"))


def table(folder: Path, frame: pd.DataFrame, **sections: Any) -> audit.Table:
    """The audit's table of a frame, whose experiment sets `sections`."""
    data = {"source": "rows.csv", "target": "y", **sections.pop("data", {})}
    file = folder / "audited.yaml"
    file.write_text(yaml.safe_dump({"name": "audited", "data": data, **sections}))
    experiment = spec.load(file)
    return prepare.audited(experiment, prepare.dataset(experiment, frame), NOW)


def flagged(folder: Path, check: str, frame: pd.DataFrame, **sections: Any) -> list[Finding]:
    """What one check finds."""
    return list(audit.REGISTRY[check](table(folder, frame, **sections)))


def changed(labels: pd.Series, share: float, seed: int = 1) -> tuple[pd.Series, np.ndarray]:
    """Labels of which a share, drawn by chance, is another one; and which rows these are."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(labels), round(share * len(labels)), replace=False)
    known, out = sorted(labels.unique()), labels.copy()
    out.iloc[rows] = [rng.choice([k for k in known if k != labels.iloc[row]]) for row in rows]
    return out, rows


def copied(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(decided=frame.y.map({"no": 7, "yes": 3}))


def nearly_copied(share: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(decided=changed(frame.y, share)[0].str.upper())


def noisy(deviation: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def made(frame: pd.DataFrame) -> pd.DataFrame:
        noise = np.random.default_rng(2).normal(size=len(frame))
        return frame.assign(level=(frame.y == "yes") + deviation * noise)

    return made


def in_bands(frame: pd.DataFrame) -> pd.DataFrame:
    """A number whose whole part is even for one class and odd for the other."""
    rng = np.random.default_rng(3)
    bands = 2 * rng.integers(0, 6, len(frame)) + (frame.y == "yes")
    return frame.assign(level=bands + rng.uniform(0, 0.9, len(frame)))


def unrelated(frame: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    return frame.assign(decided=rng.integers(0, 2, len(frame)), level=rng.normal(size=len(frame)))


@pytest.mark.parametrize(
    ("check", "faulty", "twin", "column"),
    [
        ("target copy", copied, unrelated, "decided"),
        ("target near-copy", nearly_copied(0.02), nearly_copied(0.3), "decided"),
        ("target near-copy", noisy(0.05), noisy(2.0), "level"),
        ("target giveaway", in_bands, unrelated, "level"),
    ],
)
def test_a_column_that_holds_the_target_is_an_error_and_its_line_mends_it(
    tmp_path: Path,
    check: str,
    faulty: Callable[[pd.DataFrame], pd.DataFrame],
    twin: Callable[[pd.DataFrame], pd.DataFrame],
    column: str,
) -> None:
    frame = faulty(healthy())
    (found,) = flagged(tmp_path, check, frame)
    assert (found.severity, found.column) == ("error", column)
    assert flagged(tmp_path, check, frame, **yaml.safe_load(found.fix)) == []
    assert flagged(tmp_path, check, twin(healthy())) == []


def test_one_leak_has_one_name(tmp_path: Path) -> None:
    checks = ("target copy", "target near-copy", "target giveaway")
    for faulty in (copied, nearly_copied(0.02), noisy(0.05), in_bands):
        table_ = table(tmp_path, faulty(healthy()))
        assert sum(len(list(audit.REGISTRY[one](table_))) for one in checks) == 1


@pytest.mark.parametrize(("deviation", "check"), [(0.0, "target copy"), (0.05, "target near-copy")])
def test_a_number_is_leaked_by_a_copy_in_another_unit_and_by_a_noisy_one(
    tmp_path: Path, deviation: float, check: str
) -> None:
    frame, rng = healthy(), np.random.default_rng(5)
    frame["y"] = 3 * frame.a + frame.b + rng.normal(size=len(frame))
    noise = deviation * rng.normal(size=len(frame))
    (found,) = flagged(tmp_path, check, frame.assign(cents=100 * (frame.y + noise)))
    assert (found.severity, found.column) == ("error", "cents")
    assert flagged(tmp_path, check, frame) == []


def test_rows_in_several_parts_are_found_and_dropped_by_the_line_that_is_given(
    tmp_path: Path,
) -> None:
    frame = healthy()
    twice = pd.concat([frame, frame], ignore_index=True)
    (found,) = flagged(tmp_path, "rows across parts", twice)
    assert found.severity == "error"
    assert found.numbers["test share"] > 0.5
    assert " is like row " in found.evidence[0]
    (repeated,) = flagged(tmp_path, "duplicate rows", twice)
    assert (repeated.severity, repeated.numbers["rows"]) == ("warn", 800)
    assert repeated.rows[0] == 801
    mended = table(tmp_path, twice, **yaml.safe_load(found.fix))
    assert len(mended) == 800
    some = pd.concat([frame, frame.iloc[:100]], ignore_index=True)
    assert [one.severity for one in flagged(tmp_path, "rows across parts", some)] == ["warn"]
    for check in ("rows across parts", "duplicate rows"):
        assert list(audit.REGISTRY[check](mended)) == []
        assert flagged(tmp_path, check, frame) == []


def test_rows_of_few_values_repeat_by_chance_and_are_not_flagged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 3, (600, 5)), columns=list("abcde"))
    frame["y"] = rng.choice(["no", "yes"], 600)
    for check in ("rows across parts", "duplicate rows", "near-duplicate rows"):
        assert flagged(tmp_path, check, frame) == []


def test_rows_that_differ_in_the_fourth_digit_and_in_case_are_near_duplicates(
    tmp_path: Path,
) -> None:
    frame = healthy()
    again = frame.iloc[:40].assign(city=frame.city.str.upper())
    again[["a", "b"]] = again[["a", "b"]].map(lambda one: float(f"{one:.3g}") * 1.0001)
    original = frame.copy()
    original.loc[:39, ["a", "b"]] = original.loc[:39, ["a", "b"]].map(lambda v: float(f"{v:.3g}"))
    (found,) = flagged(tmp_path, "near-duplicate rows", pd.concat([original, again]))
    assert (found.severity, found.numbers["rows"]) == ("warn", 40)
    assert flagged(tmp_path, "near-duplicate rows", frame) == []


def patients(groups: int = 60, size: int = 20, *, alike: bool = True) -> pd.DataFrame:
    """Rows of patients: of one they are alike, and so is the class; or each row is its own."""
    rng = np.random.default_rng(6)
    who = np.repeat(np.arange(groups), size)
    rows = rng.normal(size=(len(who), 4))
    body = rng.normal(size=(groups, 4))[who] + 0.1 * rows if alike else rows
    ill = rng.integers(0, 2, groups)[who] == 1 if alike else body[:, 0] + body[:, 1] > 0
    return pd.DataFrame(body, columns=list("abcd")).assign(
        patient=[f"p{one}" for one in who], y=np.where(ill, "ill", "well")
    )


def test_a_group_in_several_parts_is_found_where_it_makes_scores_look_better(
    tmp_path: Path,
) -> None:
    (found,) = flagged(tmp_path, "groups across parts", patients())
    assert (found.severity, found.column) == ("error", "patient")
    alone = patients().assign(**dict.fromkeys("abcd", np.random.default_rng(0).normal(size=1200)))
    (found_alone,) = flagged(tmp_path, "groups across parts", alone)
    assert found_alone.severity == "warn"
    assert found_alone.message.endswith(", unless later rows are of the same ones")
    assert found.numbers["apart"] > found.numbers["together"] + 0.5
    assert yaml.safe_load(found.fix) == {"data": {"split": {"group": "patient"}}}
    fixed = {"data": {"split": {"group": "patient"}}}
    assert flagged(tmp_path, "groups across parts", patients(), **fixed) == []
    assert flagged(tmp_path, "groups across parts", patients(alike=False)) == []


def hourly(rows: int = 1200, *, follows: bool = True) -> pd.DataFrame:
    """A number of each hour that is near the one before, or has no memory."""
    rng = np.random.default_rng(7)
    level = rng.normal(size=rows)
    for hour in range(1, rows if follows else 0):
        level[hour] += 0.97 * level[hour - 1]
    start = np.datetime64("2024-01-01T00", "h")
    frame = pd.DataFrame(rng.normal(size=(rows, 2)), columns=["a", "b"])
    frame["at"] = pd.Series((start + np.arange(rows)).astype("datetime64[s]")).astype(str)
    return frame.assign(y=level + 0.5 * frame.a)


def test_test_rows_older_than_training_rows_are_found_where_the_target_follows_time(
    tmp_path: Path,
) -> None:
    (found,) = flagged(tmp_path, "time across parts", hourly())
    assert (found.severity, found.column) == ("error", "at")
    assert yaml.safe_load(found.fix) == {"data": {"split": {"time": "at"}}}
    fixed = yaml.safe_load(found.fix)
    assert flagged(tmp_path, "time across parts", hourly(), **fixed) == []
    assert flagged(tmp_path, "time across parts", hourly(follows=False)) == []


def test_rows_without_a_time_that_follow_one_another_are_a_warning(tmp_path: Path) -> None:
    frame = hourly().drop(columns="at").assign(day=np.arange(1200) // 24)
    (found,) = flagged(tmp_path, "time across parts", frame)
    assert (found.severity, found.fix) == ("warn", "")
    counted = frame.assign(row_id=range(1200))
    (found,) = flagged(tmp_path, "time across parts", counted)
    assert (found.severity, found.fix) == ("warn", "data: {split: {time: row_id}}")
    fixed = {"data": {"split": {"time": "row_id"}}}
    assert flagged(tmp_path, "time across parts", counted, **fixed) == []


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
    labels, rows = changed(frame.y, 0.02)
    (found,) = flagged(tmp_path, "label noise", frame.assign(y=labels))
    suspects = set(found.rows)
    assert found.severity == "warn"
    assert len(suspects) <= 0.08 * len(frame)
    assert sum(row + 1 in suspects for row in rows) >= 0.6 * len(rows)
    assert 0.01 <= found.numbers["share"] <= 0.05
    assert flagged(tmp_path, "label noise", frame) == []


def test_a_hard_problem_is_no_label_noise(tmp_path: Path) -> None:
    frame, rng = healthy(1500), np.random.default_rng(8)
    frame["y"] = np.where(frame.a + 3 * rng.normal(size=len(frame)) > 0, "yes", "no")
    assert flagged(tmp_path, "label noise", frame) == []
    frame["y"] = np.where(rng.random(len(frame)) < 0.05, "yes", "no")
    assert flagged(tmp_path, "label noise", frame) == []


def test_rows_of_a_rare_class_that_look_like_others_are_no_label_noise(tmp_path: Path) -> None:
    frame, rng = healthy(2000), np.random.default_rng(9)
    frame["y"] = np.where((frame.a > 1.3) | (rng.random(len(frame)) < 0.03), "yes", "no")
    assert flagged(tmp_path, "label noise", frame) == []


def with_positives(count: int) -> pd.DataFrame:
    frame = healthy(1500)
    return frame.assign(y=np.where(frame.a.rank() <= count, "fraud", "fair"))


def test_one_in_a_hundred_is_imbalanced_and_a_weighted_loss_quietens_it(tmp_path: Path) -> None:
    (found,) = flagged(tmp_path, "imbalance", with_positives(15))
    assert (found.severity, found.numbers["rows"]) == ("warn", 9)
    assert found.numbers["ratio"] > 90
    (mended,) = flagged(tmp_path, "imbalance", with_positives(15), **yaml.safe_load(found.fix))
    assert (mended.severity, mended.fix) == ("note", "")
    assert flagged(tmp_path, "imbalance", with_positives(400)) == []


def test_a_large_number_that_enters_as_it_is_is_unscaled(tmp_path: Path) -> None:
    frame = healthy().assign(income=lambda one: 50_000 + 20_000 * one.c)
    given = {"features": {"income": {"type": "numeric", "scale": "none"}}}
    (found,) = flagged(tmp_path, "unscaled", frame, **given)
    assert (found.severity, found.column) == ("warn", "income")
    assert flagged(tmp_path, "unscaled", frame, **yaml.safe_load(found.fix)) == []
    assert flagged(tmp_path, "unscaled", frame) == []


def gaps(share: float) -> pd.DataFrame:
    frame = healthy()
    return frame.assign(a=frame.a.where(np.arange(ROWS) >= share * ROWS))


def at(*texts: str, column: str = "seen") -> pd.DataFrame:
    days = [f"2024-0{1 + n % 9}-1{n % 7}" for n in range(ROWS - len(texts))]
    return healthy().assign(**{column: [*texts, *days]})


FAR = [1e6] + [0.0] * (ROWS - 1)


@pytest.mark.parametrize(
    ("check", "faulty", "twin", "severity", "says"),
    [
        ("missing values", gaps(0.6), gaps(0.01), "warn", "a: 60 % of its values are missing"),
        ("missing values", gaps(0.2), gaps(0.0), "note", "a: 20 % of its values are missing"),
        ("constant", healthy().assign(k="x"), healthy(), "warn", "k: all rows have the same value"),
        (
            "mixed types",
            healthy().assign(k=[str(n) for n in range(600)] + ["old"] * 100 + ["new"] * 100),
            healthy().assign(k=[str(n / 4) for n in range(800)]),
            "warn",
            "k: 75 % of its values are numbers, but not 'old', 'new'",
        ),
        (
            "merging names",
            healthy().assign(k=["Oslo", "oslo ", "Rome", "New  York", "New York"] * 160),
            healthy(),
            "warn",
            "k: names that may be one: 'Oslo' and 'oslo', 'New  York'",
        ),
        (
            "rare categories",
            healthy().assign(k=["x"] * 760 + [f"r{n}" for n in range(40)]),
            healthy(),
            "note",
            "categories have fewer than 5 training rows each",
        ),
        (
            "outliers",
            healthy().assign(k=np.random.default_rng(0).normal(size=ROWS) + FAR),
            healthy(),
            "warn",
            "k: 1 value is more than 10 standard deviations from the mean",
        ),
        (
            "outliers",
            healthy().assign(k=[9999.0] * 20 + [n % 90 / 2 for n in range(780)]),
            healthy().assign(k=[46.0] * 20 + [n % 90 / 2 for n in range(780)]),
            "warn",
            "k: 9999 stands in 20 rows, far from all others, and may stand for a missing value",
        ),
        ("future dates", at("2126-01-01"), at(), "warn", "seen: 1 of 800 dates are in the future"),
        ("future dates", at("1026-01-01"), at(), "note", "seen: 1 of 800 dates are before 1900"),
        (
            "identifiers",
            healthy().assign(k=[f"code-{n}" for n in range(799)] + ["code-1"]),
            healthy(),
            "warn",
            "k: 799 different values in 800 rows",
        ),
        (
            "identifiers",
            healthy().assign(row_id=range(ROWS)),
            healthy(),
            "note",
            "row_id: only identifies rows, so it is no input",
        ),
    ],
)
def test_a_fault_of_a_column_is_told_and_its_twin_is_not(
    tmp_path: Path,
    check: str,
    faulty: pd.DataFrame,
    twin: pd.DataFrame,
    severity: str,
    says: str,
) -> None:
    found, *_ = flagged(tmp_path, check, faulty)
    assert found.severity == severity
    assert says in found.message
    assert flagged(tmp_path, check, twin) == []
    if found.fix and check != "rare categories":  # whose line is for the model, not for the data
        assert spec.load(_with(tmp_path, found.fix))


def _with(folder: Path, fix: str) -> Path:
    file = folder / "fixed.yaml"
    whole = {"name": "x", "data": {"source": "rows.csv", "target": "y"}}
    for section, keys in yaml.safe_load(fix).items():
        whole.setdefault(section, {}).update(keys)
    file.write_text(yaml.safe_dump(whole))
    return file


def test_spellings_of_one_number_are_read_as_one_name_and_told(tmp_path: Path) -> None:
    frame = healthy().assign(code_id=["1", "1.0", "2", "x7"] * 200)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    file = tmp_path / "read.yaml"
    file.write_text("name: read\ndata: {source: rows.csv, target: y}\n")
    experiment = spec.load(file)
    read = prepare.audited(experiment, prepare.dataset(experiment), NOW)
    (found,) = audit.REGISTRY["merging names"](read)
    assert found.message == "code_id: spellings are read as one name: '1' and '1.0'"


def test_classes_that_differ_in_case_are_told_as_names_of_the_target(tmp_path: Path) -> None:
    frame = healthy()
    frame.loc[::5, "y"] = frame.y[::5].str.upper()
    (found,) = flagged(tmp_path, "merging names", frame)
    assert found.column == "y"


def test_categories_that_training_lacks_are_told(tmp_path: Path) -> None:
    frame = healthy().assign(day=range(ROWS), k=["old"] * 640 + ["new"] * 160)
    found = flagged(tmp_path, "rare categories", frame, data={"split": {"time": "day"}})
    assert found[-1].message == (
        "k: 100 % of the rows of the test part have a category that the training part lacks"
    )


def test_an_identifier_whose_order_tells_the_class_is_told(tmp_path: Path) -> None:
    frame = healthy().sort_values("y", ignore_index=True)
    out = flagged(tmp_path, "identifier order", frame.assign(row_id=range(ROWS)))
    used = flagged(tmp_path, "identifier order", frame.assign(taken=np.arange(ROWS) * 1.5))
    assert [(one.severity, one.column) for one in out] == [("note", "row_id")]
    assert [(one.severity, one.fix) for one in used] == [("warn", "data: {drop: [taken]}")]
    assert flagged(tmp_path, "identifier order", healthy().assign(row_id=range(ROWS))) == []


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_clean_data_sets_have_no_error(tmp_path: Path, name: str) -> None:
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame.rename(columns={"target": "y"})
    found = audit.examine(table(tmp_path, frame))
    assert [one for one in found if one.severity == "error"] == []


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(healthy(12).assign(y=["no", "yes"] * 6), id="few rows"),
        pytest.param(healthy(60).assign(words=None), id="empty column"),
        pytest.param(
            healthy(60).assign(words=[f"a text of row {n}" for n in range(60)]), id="text"
        ),
        pytest.param(healthy(60).assign(huge=[1e300, -1e300] * 30), id="huge numbers"),
        pytest.param(healthy(60).assign(y=range(60)), id="a regression"),
        pytest.param(healthy(600).assign(y=[f"c{n % 30}" for n in range(600)]), id="many classes"),
        pytest.param(
            healthy(60).assign(picture=[np.full((2, 2), n / 60) for n in range(60)]), id="pictures"
        ),
    ],
)
def test_odd_tables_are_audited_too(tmp_path: Path, frame: pd.DataFrame) -> None:
    for one in audit.examine(table(tmp_path, frame)):
        assert one.check in audit.REGISTRY
        assert all(np.isfinite(value) for value in one.numbers.values())


def test_sample_rows_are_cut_and_numbered_as_in_the_source(tmp_path: Path) -> None:
    frame = healthy().assign(note=[f"{n} {'long ' * 100}" for n in range(ROWS)])
    frame.loc[0, "y"] = None  # left out: numbers of the others stay
    (first, *_) = table(tmp_path, frame).shown(np.array([0]))
    assert first.startswith("row 2: y ")
    assert len(first) <= 100


def test_models_are_made_of_a_sample_and_the_finding_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eagleray.audit.table.MODEL_ROWS", 300)
    (found,) = flagged(tmp_path, "groups across parts", patients())
    assert found.evidence == ("estimated on 300 of 1,200 rows",)


def test_no_line_is_given_that_the_file_cannot_have(tmp_path: Path) -> None:
    frame = pd.concat([healthy()] * 2, ignore_index=True)
    streamed = dataclasses.replace(table(tmp_path, frame), total=10**6)
    (repeated,) = audit.REGISTRY["duplicate rows"](streamed)
    assert repeated.fix == ""
    grouped = dataclasses.replace(table(tmp_path, patients()), total=10**6)
    (torn,) = audit.REGISTRY["groups across parts"](grouped)
    assert torn.fix == ""
    cancer = datasets.load_breast_cancer(as_frame=True).frame.rename(columns={"target": "y"})
    noisy_labels = cancer.assign(y=changed(cancer.y.map({0: "c0", 1: "c1"}), 0.02)[0])
    (smooth,) = flagged(tmp_path, "label noise", noisy_labels)
    (own,) = flagged(tmp_path, "label noise", noisy_labels, train={"loss": "focal"})
    assert (smooth.fix, own.fix) == ("train: {label_smoothing: 0.05}", "")


def test_a_sample_of_streamed_rows_is_called_so() -> None:
    document = searches.Audit(rows=10, total=1000, findings=[Finding("warn", "x: is odd")])
    assert document.sentence() == "1 warning in 10 rows, a sample of 1,000 streamed ones"


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


def test_skill_is_none_by_chance_and_one_without_an_error() -> None:
    truth = np.random.default_rng(0).integers(0, 3, 300)
    assert estimates.hits(truth, truth, 3) == 1.0
    assert estimates.hits(truth, np.zeros(300), 3) == 0.0
    assert estimates.skill(truth, np.eye(3)[truth], 3) == 1.0
    assert estimates.skill(np.zeros(5, int), np.ones((5, 3)), 3) is None


def test_a_check_of_ones_own_is_run_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.setattr(audit, "REGISTRY", plugins.Registry("check of the audit"))
    exec(code, {})
    (found,) = audit.examine(table(tmp_path, healthy(60).assign(Unnamed="x")))
    assert (found.check, found.message) == ("unnamed", "Unnamed: has no name")


def test_a_package_may_import_the_audit_while_the_experiment_file_is_being_defined() -> None:
    line = "import sys, eagleray.audit; sys.exit('eagleray.spec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], check=False).returncode == 0


def test_every_check_stands_in_the_table_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    assert re.findall(r"^\| ([a-z -]+) \| .* \| (?:error|warn|note)", page, re.MULTILINE) == list(
        audit.REGISTRY
    )


@pytest.mark.parametrize(
    ("options", "severity"),
    [
        ({"scale": "robust"}, "warn"),
        ({"scale": "quantile"}, "note"),
        ({"scale": "log"}, "note"),
        ({"clip": [0.01, 0.99]}, "note"),
    ],
)
def test_outliers_that_the_file_tames_are_a_note(
    tmp_path: Path, options: dict[str, Any], severity: str
) -> None:
    frame = healthy().assign(k=np.random.default_rng(0).normal(size=ROWS) + FAR)
    chosen = {"k": {"type": "numeric", **options}}
    (found,) = flagged(tmp_path, "outliers", frame, features=chosen)
    assert found.severity == severity
    assert bool(found.fix) == (severity == "warn")


def run_stage(searched: search.Search) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        audited.stage(searched, Console(file=out, width=400))
    return out.getvalue()


def experiment(folder: Path, frame: pd.DataFrame, fail_on: str = "never") -> Path:
    frame.to_csv(folder / "rows.csv", index=False)
    file = folder / "staged.yaml"
    file.write_text(
        "name: staged\ndata: {source: rows.csv, target: y}\n"
        f"audit: {{fail_on: {fail_on}}}\nstorage: {folder.as_uri()}\n"
    )
    return file


def test_a_run_keeps_its_audit_and_prints_no_row(tmp_path: Path) -> None:
    searched = search.Search(spec.load(experiment(tmp_path, copied(healthy()))))
    printed = run_stage(searched)
    kept = searched.records.audit()
    assert kept is not None
    assert kept.findings[0].check == "target copy"
    assert "  error: target copy: decided: is a copy of the target" in printed
    assert "fix: data: {drop: [decided]}" in printed
    assert not any(line in printed for one in kept.findings for line in one.evidence)
    assert run_stage(searched) == printed


@pytest.mark.parametrize(("fail_on", "faulty"), [("error", copied), ("warn", lambda one: one)])
def test_a_finding_of_the_severity_that_is_named_ends_a_run_before_any_trial(
    tmp_path: Path, fail_on: str, faulty: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    frame = faulty(healthy().assign(k="same"))
    searched = search.Search(spec.load(experiment(tmp_path, frame, fail_on)))
    with pytest.raises(errors.DataError) as refused:
        run_stage(searched)
    assert refused.value.problems[0].startswith(f"audit.fail_on: {fail_on}, and ")
    assert searched.records.trials() == []


def test_fail_on_makes_no_other_search(tmp_path: Path) -> None:
    ids = {
        search.Search(spec.load(experiment(tmp_path, healthy(60), one))).id
        for one in ("never", "error")
    }
    assert len(ids) == 1


def test_the_command_prints_the_findings_and_ends_with_1_where_the_file_asks_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(experiment(tmp_path, copied(healthy())))
    assert cli.main(["audit", file]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("staged: 1 error in 800 rows\n\nERROR   target copy: decided: is ")
    assert "        fix: data: {drop: [decided]}\n" in printed
    assert cli.main(["audit", file, "--json", "--set", "audit.fail_on=error"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["errors"], told["findings"][0]["column"]) == (1, "decided")


def test_bad_files_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = experiment(tmp_path, healthy(60), "sometimes")
    assert cli.main(["audit", str(file)]) == 2
    law = 'audit.fail_on: must be one of error, warn, never, but got "sometimes"'
    assert law in capsys.readouterr().err
    assert cli.main(["audit", str(tmp_path / "absent.yaml")]) == 2


def test_an_audit_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    found = eagleray.load(experiment(tmp_path, copied(healthy()))).audit()
    shown = found._repr_html_()
    assert [one.check for one in found.errors] == ["target copy"]
    assert "<td" in shown
    assert "decided: is a copy of the target" in shown
    assert repr(found) == "<Audit staged: 1 error in 800 rows>"
