"""What one row's prediction takes is told of every winner, and of a slow one what is faster."""

from pathlib import Path

import pytest
import yaml

import eagleray
from eagleray import bundle, errors, spec
from eagleray.findings import Finding
from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import bundles, latency, search, winner
from ray_jobs.report import outcome
from tests import judged

TEXT = judged.TUMOURS.replace("hidden: [8]", "hidden: {choice: [[64, 64], [4]]}").replace(
    "epochs: 12, batch_size: 32", "epochs: 1, batch_size: 512"
)


def sized(folder: Path, **overrides: str) -> search.Search:
    return judged.searched(folder, TEXT, **overrides)


def trained(one: search.Search) -> list[searches.Record]:
    """A large network and a small one, in this order."""
    widths = ([64, 64], [4])
    return [judged.trial(one, n, **{"model.hidden": w}) for n, w in enumerate(widths, 1)]


@pytest.fixture
def by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kilobyte of weights takes a millisecond: the large network about 27, the small one 1."""

    def a_millisecond_a_kilobyte(model: bundle.Bundle, _: object) -> float:
        return sum(map(len, model.engine.files().values())) / 1000

    monkeypatch.setattr(latency, "milliseconds", a_millisecond_a_kilobyte)


def told(one: search.Search) -> Finding:
    report = eagleray.report("tumours", one.storage.uri)
    (found,) = [finding for finding in report.findings if finding.check == "latency"]
    return found


@pytest.mark.usefixtures("by_size")
def test_a_slow_winner_is_told_with_the_best_trial_that_is_fast_enough(tmp_path: Path) -> None:
    one = sized(tmp_path)
    trials = trained(one)
    result = winner.Winner(one, trials).register()
    found = result.latency
    assert found is not None
    assert found.over
    assert found.faster is not None
    assert (found.faster.trial, found.faster.model, found.tried) == (2, "mlp", 1)
    assert found.faster.ms < 5 < found.ms
    assert found.faster.score == trials[1].score
    assert str(found) in outcome.said(result)
    assert "more than tune.ensemble.latency_ms: 5; the best trial within it is trial 2" in str(
        found
    )
    assert (told(one).severity, told(one).fix) == ("warn", found.fix)
    assert told(one).message == f"It {found}."


@pytest.mark.usefixtures("by_size")
def test_the_fix_of_a_slow_winner_chooses_the_faster_trial(tmp_path: Path) -> None:
    """A search with these keys ranks the same trials by what they took in training."""
    one = sized(tmp_path)
    trials = trained(one)
    result = winner.Winner(one, trials).register()
    assert result.latency is not None
    chosen = yaml.safe_load(result.latency.fix.strip("`"))["tune"]
    other = sized(tmp_path, **{f"tune.{key}": str(value) for key, value in chosen.items()})
    costs = [one.model_copy(update={"costs": {"latency": 1 / one.number}}) for one in trials]
    assert other.ranked(costs)[0].number == 2


@pytest.mark.usefixtures("by_size")
def test_where_no_trial_is_fast_enough_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sized(tmp_path, **{"tune.ensemble.latency_ms": "0.001"})
    trials = trained(one)
    found = winner.Winner(one, trials).register().latency
    assert found is not None
    assert (found.over, found.faster, found.tried) == (True, None, 1)
    assert "of 1 other trials with weights in storage none is within it" in str(found)
    assert found.fix.startswith("a smaller model")
    monkeypatch.setenv("EAGLERAY_CACHE", str(tmp_path / "of another machine"))
    one.storage.put(blobs.key(trials[1].weights[0]), b"rotten")
    rotten = winner.Winner(one, trials).register().latency
    assert rotten is not None
    assert (rotten.faster, rotten.tried) == (None, 0)


@pytest.mark.usefixtures("by_size")
def test_storage_that_is_away_is_not_taken_for_trials_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sized(tmp_path)
    trials = trained(one)

    def away(*_: object) -> None:
        raise errors.StorageUnavailableError("storage: the connection failed")

    monkeypatch.setattr(bundles, "of", away)
    with pytest.raises(errors.StorageUnavailableError):
        latency.judge(one, trials, 100.0, {})


def test_a_winner_within_the_bound_says_what_it_takes_and_no_more(tmp_path: Path) -> None:
    """As it is measured."""
    one = sized(tmp_path, **{"tune.ensemble.latency_ms": "10000"})
    result = winner.Winner(one, trained(one)).register()
    found = result.latency
    assert found is not None
    assert found.ms > 0.01
    assert (found.over, found.faster, found.tried, found.fix) == (False, None, 0, "")
    assert str(found) not in outcome.said(result)
    assert told(one).severity == "pass"
    assert told(one).message.endswith(" on one core, within tune.ensemble.latency_ms: 10000.")


def test_without_a_bound_nothing_is_slow(tmp_path: Path) -> None:
    one = sized(tmp_path, **{"tune.ensemble.latency_ms": "null"})
    found = winner.Winner(one, trained(one)).register().latency
    assert found is not None
    assert (found.over, found.bound_ms) == (False, None)
    assert str(found).endswith(" ms for one row on one core")


@pytest.mark.parametrize(
    "tune", ["{search: cma}", "{ensemble: {members: 3}}", "{cost: size}", "{search: random}"]
)
def test_a_fix_keeps_the_laws_of_the_file(tmp_path: Path, tune: str) -> None:
    text = """
name: x
data: {source: 'dataset:wine', target: target}
model: {type: mlp}
train: {lr: {loguniform: [0.001, 0.1]}}
"""
    file = tmp_path / "x.yaml"
    file.write_text(f"{text}tune: {tune}\n")
    fix = latency.choosing(spec.load(file).tune, 0.0123)
    asked = {**yaml.safe_load(tune), **yaml.safe_load(fix.strip("`"))["tune"]}
    file.write_text(text + yaml.safe_dump({"tune": asked}))
    made = spec.load(file).tune
    assert (made.cost, made.tolerance) == ("latency", 0.014)
