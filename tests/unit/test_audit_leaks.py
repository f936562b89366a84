"""The audit: inputs, groups and times that tell the target, and healthy twins that do not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from eagleray import audit
from eagleray.audit import estimates
from tests import audits


def nearly_copied(share: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(decided=audits.changed(frame.y, share)[0].str.upper())


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
        ("target copy", audits.copied, unrelated, "decided"),
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
    frame = faulty(audits.healthy())
    (found,) = audits.flagged(tmp_path, check, frame)
    assert (found.severity, found.column) == ("error", column)
    assert audits.flagged(tmp_path, check, frame, **yaml.safe_load(found.fix)) == []
    assert audits.flagged(tmp_path, check, twin(audits.healthy())) == []


def test_one_leak_has_one_name(tmp_path: Path) -> None:
    checks = ("target copy", "target near-copy", "target giveaway")
    for faulty in (audits.copied, nearly_copied(0.02), noisy(0.05), in_bands):
        table_ = audits.table(tmp_path, faulty(audits.healthy()))
        assert sum(len(list(audit.REGISTRY[one](table_))) for one in checks) == 1


@pytest.mark.parametrize(("deviation", "check"), [(0.0, "target copy"), (0.05, "target near-copy")])
def test_a_number_is_leaked_by_a_copy_in_another_unit_and_by_a_noisy_one(
    tmp_path: Path, deviation: float, check: str
) -> None:
    frame, rng = audits.healthy(), np.random.default_rng(5)
    frame["y"] = 3 * frame.a + frame.b + rng.normal(size=len(frame))
    noise = deviation * rng.normal(size=len(frame))
    (found,) = audits.flagged(tmp_path, check, frame.assign(cents=100 * (frame.y + noise)))
    assert (found.severity, found.column) == ("error", "cents")
    assert audits.flagged(tmp_path, check, frame) == []


def test_an_identifier_whose_order_tells_the_class_is_told(tmp_path: Path) -> None:
    frame = audits.healthy().sort_values("y", ignore_index=True)
    out = audits.flagged(tmp_path, "identifier order", frame.assign(row_id=range(audits.ROWS)))
    used = audits.flagged(
        tmp_path, "identifier order", frame.assign(taken=np.arange(audits.ROWS) * 1.5)
    )
    assert [(one.severity, one.column) for one in out] == [("note", "row_id")]
    assert [(one.severity, one.fix) for one in used] == [("warn", "data: {drop: [taken]}")]
    assert (
        audits.flagged(
            tmp_path, "identifier order", audits.healthy().assign(row_id=range(audits.ROWS))
        )
        == []
    )


def test_a_group_in_several_parts_is_found_where_it_makes_scores_look_better(
    tmp_path: Path,
) -> None:
    (found,) = audits.flagged(tmp_path, "groups across parts", audits.patients())
    assert (found.severity, found.column) == ("error", "patient")
    alone = audits.patients().assign(
        **dict.fromkeys("abcd", np.random.default_rng(0).normal(size=1200))
    )
    (found_alone,) = audits.flagged(tmp_path, "groups across parts", alone)
    assert found_alone.severity == "warn"
    assert found_alone.message.endswith(", unless later rows are of the same ones")
    assert found.numbers["apart"] > found.numbers["together"] + 0.5
    assert yaml.safe_load(found.fix) == {"data": {"split": {"group": "patient"}}}
    fixed = {"data": {"split": {"group": "patient"}}}
    assert audits.flagged(tmp_path, "groups across parts", audits.patients(), **fixed) == []
    assert audits.flagged(tmp_path, "groups across parts", audits.patients(alike=False)) == []


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
    (found,) = audits.flagged(tmp_path, "time across parts", hourly())
    assert (found.severity, found.column) == ("error", "at")
    assert yaml.safe_load(found.fix) == {"data": {"split": {"time": "at"}}}
    fixed = yaml.safe_load(found.fix)
    assert audits.flagged(tmp_path, "time across parts", hourly(), **fixed) == []
    assert audits.flagged(tmp_path, "time across parts", hourly(follows=False)) == []


def test_rows_without_a_time_that_follow_one_another_are_a_warning(tmp_path: Path) -> None:
    frame = hourly().drop(columns="at").assign(day=np.arange(1200) // 24)
    (found,) = audits.flagged(tmp_path, "time across parts", frame)
    assert (found.severity, found.fix) == ("warn", "")
    counted = frame.assign(row_id=range(1200))
    (found,) = audits.flagged(tmp_path, "time across parts", counted)
    assert (found.severity, found.fix) == ("warn", "data: {split: {time: row_id}}")
    fixed = {"data": {"split": {"time": "row_id"}}}
    assert audits.flagged(tmp_path, "time across parts", counted, **fixed) == []


def test_skill_is_none_by_chance_and_one_without_an_error() -> None:
    truth = np.random.default_rng(0).integers(0, 3, 300)
    assert estimates.hits(truth, truth, 3) == 1.0
    assert estimates.hits(truth, np.zeros(300), 3) == 0.0
    assert estimates.skill(truth, np.eye(3)[truth], 3) == 1.0
    assert estimates.skill(np.zeros(5, int), np.ones((5, 3)), 3) is None


def test_models_are_made_of_a_sample_and_the_finding_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eagleray.audit.table.MODEL_ROWS", 300)
    (found,) = audits.flagged(tmp_path, "groups across parts", audits.patients())
    assert found.evidence == ("estimated on 300 of 1,200 rows",)


def test_the_order_of_a_split_by_time_is_no_leak(tmp_path: Path) -> None:
    frame = audits.healthy()
    drift = (frame.y == frame.y.max()) + np.random.default_rng(0).normal(0, 0.6, len(frame))
    frame = frame.iloc[np.argsort(drift)].assign(taken=np.arange(audits.ROWS) * 1.5)
    data, features = {"split": {"time": "taken"}}, {"taken": {"type": "numeric"}}
    by_chance = audits.flagged(tmp_path, "identifier order", frame, features=features)
    by_time = audits.flagged(tmp_path, "identifier order", frame, data=data, features=features)
    assert (len(by_chance), by_time) == (1, [])


def test_a_counter_beside_the_time_of_a_split_is_no_leak_unless_its_order_is_another(
    tmp_path: Path,
) -> None:
    frame = audits.healthy()
    drift = (frame.y == frame.y.max()) + np.random.default_rng(0).normal(0, 0.6, len(frame))
    frame = frame.iloc[np.argsort(drift)].assign(
        row_id=range(audits.ROWS),
        sent=np.arange(audits.ROWS) * 60.5,
        taken=np.arange(audits.ROWS) * 1.5,
    )
    by_chance = audits.flagged(tmp_path, "identifier order", frame)
    assert {one.column for one in by_chance} == {"row_id", "sent", "taken"}
    data = {"split": {"time": "taken"}}
    assert audits.flagged(tmp_path, "identifier order", frame, data=data) == []
    shuffled = np.random.default_rng(1).permutation(audits.ROWS)
    other = frame.assign(taken=shuffled * 1.5)
    found = audits.flagged(tmp_path, "identifier order", other, data=data)
    assert {one.column for one in found} == {"row_id", "sent"}
