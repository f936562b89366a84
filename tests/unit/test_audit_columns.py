"""The audit: faults of one column, and healthy twins that are not flagged."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from eagleray import audit, spec
from ray_jobs.data import prepare
from tests import audits


def test_a_large_number_that_enters_as_it_is_is_unscaled(tmp_path: Path) -> None:
    frame = audits.healthy().assign(income=lambda one: 50_000 + 20_000 * one.c)
    given = {"features": {"income": {"type": "numeric", "scale": "none"}}}
    (found,) = audits.flagged(tmp_path, "unscaled", frame, **given)
    assert (found.severity, found.column) == ("warn", "income")
    assert audits.flagged(tmp_path, "unscaled", frame, **yaml.safe_load(found.fix)) == []
    assert audits.flagged(tmp_path, "unscaled", frame) == []


def gaps(share: float) -> pd.DataFrame:
    frame = audits.healthy()
    return frame.assign(a=frame.a.where(np.arange(audits.ROWS) >= share * audits.ROWS))


def at(*texts: str, column: str = "seen") -> pd.DataFrame:
    days = [f"2024-0{1 + n % 9}-1{n % 7}" for n in range(audits.ROWS - len(texts))]
    return audits.healthy().assign(**{column: [*texts, *days]})


FAR = [1e6] + [0.0] * (audits.ROWS - 1)


@pytest.mark.parametrize(
    ("check", "faulty", "twin", "severity", "says"),
    [
        ("missing values", gaps(0.6), gaps(0.01), "warn", "a: 60 % of its values are missing"),
        ("missing values", gaps(0.2), gaps(0.0), "note", "a: 20 % of its values are missing"),
        (
            "constant",
            audits.healthy().assign(k="x"),
            audits.healthy(),
            "warn",
            "k: all rows have the same value",
        ),
        (
            "constant",
            pd.concat([audits.healthy()] * 2, ignore_index=True).assign(
                k=["x"] * (2 * audits.ROWS - 1) + ["y"]
            ),
            audits.healthy(),
            "note",
            "k: all rows but one have the same value",
        ),
        (
            "mixed types",
            audits.healthy().assign(k=[str(n) for n in range(600)] + ["old"] * 100 + ["new"] * 100),
            audits.healthy().assign(k=[str(n / 4) for n in range(800)]),
            "warn",
            "k: 75 % of its values are numbers, but not 'old', 'new'",
        ),
        (
            "mixed types",
            audits.healthy().assign(k=[f"{n / 8} kg" for n in range(800)]),
            audits.healthy().assign(k=[f"{n / 8} {'kg' if n % 2 else 'lb'}" for n in range(800)]),
            "warn",
            "k: its values are numbers with 'kg' behind them, which are text",
        ),
        (
            "merging names",
            audits.healthy().assign(k=["Oslo", "oslo ", "Rome", "New  York", "New York"] * 160),
            audits.healthy(),
            "warn",
            "k: names that may be one: 'Oslo' and 'oslo', 'New  York'",
        ),
        (
            "rare categories",
            audits.healthy().assign(k=["x"] * 760 + [f"r{n}" for n in range(40)]),
            audits.healthy(),
            "note",
            "categories have fewer than 5 training rows each",
        ),
        (
            "outliers",
            audits.healthy().assign(k=np.random.default_rng(0).normal(size=audits.ROWS) + FAR),
            audits.healthy(),
            "warn",
            "k: 1 value is more than 10 standard deviations from the mean",
        ),
        (
            "outliers",
            audits.healthy().assign(k=[9999.0] * 20 + [n % 90 / 2 for n in range(780)]),
            audits.healthy().assign(k=[46.0] * 20 + [n % 90 / 2 for n in range(780)]),
            "warn",
            "k: 9999 stands in 20 rows, far from all others, and may stand for a missing value",
        ),
        (
            "outliers",
            audits.healthy().assign(k=[50.0] * 5 + [n % 3 for n in range(795)]),
            audits.healthy().assign(k=[1.0] * 5 + [0.0] * 795),
            "note",
            "k: 5 values are more than 10 standard deviations from the mean",
        ),
        ("future dates", at("2126-01-01"), at(), "warn", "seen: 1 of 800 dates are in the future"),
        ("future dates", at("1026-01-01"), at(), "note", "seen: 1 of 800 dates are before 1900"),
        (
            "identifiers",
            audits.healthy().assign(k=[f"code-{n}" for n in range(799)] + ["code-1"]),
            audits.healthy(),
            "warn",
            "k: 799 different values in 800 rows",
        ),
        (
            "identifiers",
            audits.healthy().assign(row_id=range(audits.ROWS)),
            audits.healthy(),
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
    found, *_ = audits.flagged(tmp_path, check, faulty)
    assert found.severity == severity
    assert says in found.message
    assert audits.flagged(tmp_path, check, twin) == []
    if found.fix and check != "rare categories":  # whose line is for the model, not for the data
        assert spec.load(_with(tmp_path, found.fix))


def _with(folder: Path, fix: str) -> Path:
    file = folder / "fixed.yaml"
    whole = {"name": "x", "data": {"source": "rows.csv", "target": "y"}}
    for section, keys in yaml.safe_load(fix).items():
        whole.setdefault(section, {}).update(keys)
    file.write_text(yaml.safe_dump(whole))
    return file


@pytest.mark.parametrize(
    "amounts",
    [
        [f"{n / 8} kg" for n in range(800)],
        [f"{n / 8}" if n % 5 else f"about {n / 8}" for n in range(800)],
    ],
)
def test_sizes_in_words_are_not_told_as_identifiers(tmp_path: Path, amounts: list[str]) -> None:
    assert audits.flagged(tmp_path, "identifiers", audits.healthy().assign(k=amounts)) == []


def test_spellings_of_one_number_are_read_as_one_name_and_told(tmp_path: Path) -> None:
    frame = audits.healthy().assign(code_id=["1", "1.0", "2", "x7"] * 200)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    file = tmp_path / "read.yaml"
    file.write_text("name: read\ndata: {source: rows.csv, target: y}\n")
    experiment = spec.load(file)
    read = prepare.audited(experiment, prepare.dataset(experiment), audits.NOW)
    (found,) = audit.REGISTRY["merging names"](read)
    assert found.message == "code_id: spellings are read as one name: '1' and '1.0'"


def test_classes_that_differ_in_case_are_told_as_names_of_the_target(tmp_path: Path) -> None:
    frame = audits.healthy()
    frame.loc[::5, "y"] = frame.y[::5].str.upper()
    (found,) = audits.flagged(tmp_path, "merging names", frame)
    assert found.column == "y"


def test_categories_that_training_lacks_are_told(tmp_path: Path) -> None:
    frame = audits.healthy().assign(day=range(audits.ROWS), k=["old"] * 640 + ["new"] * 160)
    found = audits.flagged(tmp_path, "rare categories", frame, data={"split": {"time": "day"}})
    assert found[-1].message == (
        "k: 100 % of the rows of the test part have a category that the training part lacks"
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
    frame = audits.healthy().assign(k=np.random.default_rng(0).normal(size=audits.ROWS) + FAR)
    chosen = {"k": {"type": "numeric", **options}}
    (found,) = audits.flagged(tmp_path, "outliers", frame, features=chosen)
    assert found.severity == severity
    assert bool(found.fix) == (severity == "warn")
