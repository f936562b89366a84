"""Folds of cross-validation: who is in which, and what has too few rows for them."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eagleray import errors, spec
from eagleray.learn import features, schema
from eagleray.tabular import tables
from ray_jobs.data import folds, prepare, split

LAW = settings(max_examples=40)
NUMBER = schema.Target(name="y", task="regression")
COUNTS = st.integers(2, 6)


def table(targets: np.ndarray, target: schema.Target = NUMBER, **more: Any) -> tables.Learnable:
    known = schema.Schema(target=target, columns=())
    label = schema.Column(name="y", type="numeric")
    marks = {"groups": None, "times": None} | more
    rows = np.arange(1, len(targets) + 1)
    return tables.Learnable(known, {}, targets, label, rows, notes=(), **marks)


def parted(
    made: tables.Learnable, count: int, seed: int = 0, **shares: Any
) -> tuple[split.Split, tuple[split.Split, ...]]:
    """The whole split, and the folds of its training and validation rows."""
    data = spec.Data(source="rows.csv", target="y", seed=seed, split=spec.Split(**shares))
    whole = split.indices(
        made.targets, made.schema.target, data, groups=made.groups, times=made.times
    )
    return whole, folds.part(whole, made, data, count)


def classes(count: int) -> schema.Target:
    task = "binary" if count == 2 else "multiclass"
    return schema.Target(name="y", task=task, classes=tuple("abcdef"[:count]))


def assert_each_row_is_judged_once(whole: split.Split, found: tuple[split.Split, ...]) -> None:
    rows = split.whole(whole).train.tolist()
    assert sorted(np.concatenate([one.validation for one in found]).tolist()) == rows
    for one in found:
        assert sorted([*one.train.tolist(), *one.validation.tolist()]) == rows
        assert (np.diff(one.train) > 0).all()
        assert one.test is whole.test


@given(st.integers(20, 300), COUNTS, st.integers(0, 2**32 - 1), st.booleans())
@LAW
def test_each_row_beside_the_test_part_is_judged_in_one_fold_and_trained_on_in_the_others(
    rows: int, count: int, seed: int, stratify: bool
) -> None:
    values = np.random.default_rng(seed).normal(size=rows).astype(np.float32)
    whole, found = parted(table(values), count, seed, stratify=stratify)
    assert len(found) == count
    assert_each_row_is_judged_once(whole, found)
    sizes = [len(one.validation) for one in found]
    assert max(sizes) - min(sizes) <= (1 if not stratify else 10)


@given(st.lists(st.integers(0, 2), min_size=40, max_size=300), COUNTS, st.integers(0, 1000))
@LAW
def test_folds_keep_the_shares_of_the_classes(drawn: list[int], count: int, seed: int) -> None:
    targets = np.array(drawn)
    assume((np.bincount(targets, minlength=3) >= 2 * count).all())
    whole, found = parted(table(targets, classes(3)), count, seed)
    assert_each_row_is_judged_once(whole, found)
    each = np.array([np.bincount(targets[one.validation], minlength=3) for one in found])
    assert (each.max(0) - each.min(0) <= 1).all()


@pytest.mark.parametrize("target", [NUMBER, classes(2)], ids=["number", "classes"])
@given(drawn=st.lists(st.integers(0, 30), min_size=30, max_size=100), count=COUNTS)
@LAW
def test_no_group_is_in_two_folds(target: schema.Target, drawn: list[int], count: int) -> None:
    """Each group has rows of both classes, which every part needs."""
    groups = np.array([f"user {one}" for one in drawn for _ in range(2)], object)
    assume(len(set(drawn)) >= 20)
    targets = np.arange(len(groups)) % 2
    whole, found = parted(table(targets, target, groups=groups), count, group="who")
    assert_each_row_is_judged_once(whole, found)
    for one in found:
        assert not set(groups[one.train]) & set(groups[one.validation])
        assert not set(groups[one.train]) & set(groups[whole.test])


@given(st.lists(st.integers(0, 400), min_size=60, max_size=200), COUNTS)
@LAW
def test_time_never_runs_backwards_and_the_window_grows(drawn: list[int], count: int) -> None:
    times = np.array(drawn, float)
    assume(len(set(drawn)) >= 50)
    whole, found = parted(table(times, times=times), count, time="when")
    before = -np.inf
    for one in found:
        assert times[one.train].max() < times[one.validation].min()
        assert times[one.validation].max() < times[whole.test].min()
        assert times[one.validation].min() > before
        before = times[one.validation].max()
    for earlier, later in itertools.pairwise(found):
        joined = np.union1d(earlier.train, earlier.validation)
        assert joined.tolist() == later.train.tolist()
    last = np.union1d(found[-1].train, found[-1].validation)
    assert last.tolist() == split.whole(whole).train.tolist()


def test_the_test_part_is_that_of_a_search_without_folds() -> None:
    targets = np.arange(100) % 2
    whole, found = parted(table(targets, classes(2)), 4, seed=3)
    data = spec.Data(source="rows.csv", target="y", seed=3)
    assert split.indices(targets, classes(2), data).test.tolist() == whole.test.tolist()
    assert folds.part(whole, table(targets, classes(2)), data, 1) == ()
    assert [
        one.validation.tolist() for one in parted(table(targets, classes(2)), 4, seed=3)[1]
    ] == [one.validation.tolist() for one in found]


RARE = (np.arange(100) % 20 == 0).astype(int)
"""Four rows of the second class before the test part."""
NUMBERS, LATE = np.arange(100.0), ((np.arange(100) > 30) & (np.arange(100) % 4 == 0)).astype(int)
CLUSTERED = np.array([f"g{number // 10}" for number in range(100)], object)


@pytest.mark.parametrize(
    ("made", "count", "shares", "message"),
    [
        (table(NUMBERS), 41, {}, "41 folds need at least 82 rows .*, but got 80"),
        (
            table(RARE, classes(2)),
            5,
            {},
            "each class needs at least as many rows .* as folds, 5, but 'b' has 4",
        ),
        (
            table(RARE, classes(2)),
            5,
            {"stratify": False},
            "in fold [1-5] of 5 the validation part needs rows of each class, .* none of 'b'",
        ),
        (
            table(NUMBERS, groups=CLUSTERED),
            9,
            {"group": "who"},
            "9 folds need at least as many groups in who beside the test part, but got 8",
        ),
        (
            table((np.arange(100) < 12).astype(int), classes(2), groups=CLUSTERED),
            3,
            {"group": "who"},
            "in fold [1-3] of 3 the validation part needs rows of each class",
        ),
        (
            table(NUMBERS, times=NUMBERS // 20),
            5,
            {"time": "when"},
            "5 folds in the order of time need 6 spans of different times, but got 4 times",
        ),
        (
            table(LATE, classes(2), times=NUMBERS),
            3,
            {"time": "when"},
            "in fold 1 of 3 the training part needs rows of each class",
        ),
    ],
)
def test_what_is_too_little_for_folds_is_refused_before_any_trial(
    made: tables.Learnable, count: int, shares: dict[str, Any], message: str
) -> None:
    data = spec.Data(source="rows.csv", target="y", split=spec.Split(**shares))
    whole = split.Split(*np.split(np.arange(100), [60, 80]))
    with pytest.raises(errors.DataError, match=f"^tune.folds: .*{message}") as refused:
        folds.part(whole, made, data, count)
    assert len(refused.value.problems) == 1


def dataset(folder: Path, count: int) -> prepare.Dataset:
    """Sixty rows, whose number of the row that `planted` says is very large."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.normal(size=60), "y": random.normal(size=60)})
    frame.to_csv(folder / "rows.csv", index=False)
    file = folder / "x.yaml"
    file.write_text(
        f"name: x\ndata: {{source: rows.csv, target: y}}\ntune: {{trials: 1, folds: {count}}}\n"
        "storage: file:///tmp/unused\n"
    )
    return prepare.dataset(spec.load(file))


def test_transforms_of_a_fold_are_fitted_on_its_own_training_rows(tmp_path: Path) -> None:
    made = dataset(tmp_path, 4)
    for number in range(4):
        fold = made.fold(number)
        encoded = fold.encode(fold.fit({}))
        x = made.columns["x"][made.folds[number].train]
        (numeric,) = (one for name, one in encoded.train.inputs.items() if name == "numeric")
        assert numeric.mean() == pytest.approx(0, abs=1e-6)
        assert numeric.std() == pytest.approx(1, abs=1e-5)
        held = made.columns["x"][made.folds[number].validation]
        expected = (held - x.mean()) / x.std()
        np.testing.assert_allclose(encoded.validation.inputs["numeric"][:, 0], expected, rtol=1e-5)


def test_the_data_of_a_refit_have_all_rows_but_the_test_part(tmp_path: Path) -> None:
    made = dataset(tmp_path, 3)
    whole = made.whole()
    rows = np.concatenate([made.split.train, made.split.validation])
    assert whole.split.train.tolist() == sorted(rows.tolist())
    assert whole.split.test is made.split.test
    inputs = whole.encode(whole.fit({})).train.inputs
    assert isinstance(whole.fit({}), features.Transforms)
    assert len(inputs["numeric"]) == len(rows) == 48


def test_folds_that_the_data_cannot_have_are_refused_with_their_line(tmp_path: Path) -> None:
    from eagleray.api import checks

    dataset(tmp_path, 2)
    found = checks.examine(tmp_path / "x.yaml", {"tune.folds": "40"})
    (problem,) = found.problems
    assert re.match(r"--set tune.folds: 40 folds need at least 80 rows .*, but got 48", problem)
    said = str(checks.examine(tmp_path / "x.yaml", {}))
    assert "# folds: 24 + 24, 24 + 24 rows to train on and to be judged on" in said
    assert "# compared by: rmse on the mean over 2 folds" in said
