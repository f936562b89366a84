"""Looks at a test part are counted once each, by however many processes, and survive a sweep."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from eagleray import errors, storage
from eagleray.state import evaluations, keys, sweep
from eagleray.state.evaluations import Look, look

PART = "ab" * 32


def one(trial: int, model: str = "churn") -> Look:
    return Look(model=model, search="s", trial=trial, epoch=3)


@pytest.fixture
def store(tmp_path: Path) -> storage.Storage:
    return storage.open(tmp_path.as_uri())


def test_each_look_counts_once_whichever_model_it_was_for(store: storage.Storage) -> None:
    assert [look(store, PART, 9, one(trial)) for trial in (1, 2, 1)] == [1, 2, 1]
    assert look(store, PART, 9, one(1, "other")) == 3
    assert look(store, "cd" * 32, 9, one(1)) == 1


def test_of_many_at_once_none_is_lost(store: storage.Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda trial: look(store, PART, 9, one(trial)), range(24)))
    assert sorted(counts) == list(range(1, 25))


def test_a_sweep_reads_looks_and_a_damaged_one_is_named(store: storage.Storage) -> None:
    look(store, PART, 9, one(1))
    assert sweep.sweep(store, timedelta(0)).documents == 1
    store.put(keys.LOOKS.format(part=PART), b"{")
    with pytest.raises(errors.CorruptObjectError, match=PART):
        look(store, PART, 9, one(2))


def test_an_evaluation_of_a_newer_release_is_refused_with_its_name() -> None:
    newer = b'{"kind": "evaluation", "format": 2, "written_by": "9.0"}'
    with pytest.raises(errors.NewerFormatError, match=r"EagleRay 9\.0 reads it"):
        evaluations.decode(newer, "here")
