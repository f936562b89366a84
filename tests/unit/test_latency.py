"""What one row's prediction takes is told of every winner, and of a slow one what is faster."""

import math
import shutil
from pathlib import Path

import pytest
import yaml

import eagleray
from eagleray import spec
from eagleray.findings import Finding
from eagleray.state import searches
from eagleray.storage import blobs
from ray_jobs import bundles, latency, search, winner
from ray_jobs.report import outcome
from tests import judged

TEXT = judged.TUMOURS.replace("hidden: [8]", "hidden: {choice: [[2500, 2500], [4]]}").replace(
    "epochs: 12, batch_size: 32", "epochs: 1, batch_size: 512"
)


Sizes = tuple[Path, list[searches.Record], float]


def sized(folder: Path, **overrides: str) -> search.Search:
    return judged.searched(folder, TEXT, **overrides)


def trained(one: search.Search) -> list[searches.Record]:
    """A large network and a small one, in this order."""
    widths = ([2500, 2500], [4])
    return [judged.trial(one, n, **{"model.hidden": w}) for n, w in enumerate(widths, 1)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Sizes:
    """Two trials, and a bound between what they take."""
    folder = tmp_path_factory.mktemp("sizes")
    one = sized(folder)
    trials = trained(one)
    row = one.dataset.take(one.dataset.split.test[:1])
    slow, fast = (latency.milliseconds(bundles.of(one, trial), row) for trial in trials)
    assert slow > 3 * fast
    return folder, trials, math.sqrt(slow * fast)


def told(one: search.Search) -> Finding:
    report = eagleray.report("tumours", one.storage.uri)
    (found,) = [finding for finding in report.findings if finding.check == "latency"]
    return found


def test_a_slow_winner_is_told_with_the_best_trial_that_is_fast_enough(
    both: Sizes, tmp_path: Path
) -> None:
    whole, trials, bound = both
    folder = shutil.copytree(whole, tmp_path / "own")
    one = sized(folder, **{"tune.ensemble.latency_ms": str(bound)})
    result = winner.Winner(one, trials).register()
    found = result.latency
    assert found is not None
    assert found.over
    assert found.faster is not None
    assert (found.faster.trial, found.faster.model, found.tried) == (2, "mlp", 1)
    assert found.faster.ms < bound < found.ms
    assert found.faster.score == trials[1].score
    assert str(found) in outcome.said(result)
    assert "the best trial within it is trial 2 (mlp): " in str(found)
    assert told(one).severity == "warn"
    assert told(one).message == f"It {found}."
    assert told(one).fix == found.fix


def test_the_fix_of_a_slow_winner_chooses_the_faster_trial(both: Sizes, tmp_path: Path) -> None:
    """As a search with these keys would rank the same trials, by what they took in training."""
    whole, trials, bound = both
    folder = shutil.copytree(whole, tmp_path / "own")
    one = sized(folder, **{"tune.ensemble.latency_ms": str(bound)})
    result = winner.Winner(one, trials).register()
    assert result.latency is not None
    chosen = yaml.safe_load(result.latency.fix.strip("`"))["tune"]
    other = sized(folder, **{f"tune.{key}": str(value) for key, value in chosen.items()})
    costs = [one.model_copy(update={"costs": {"latency": 1 / one.number}}) for one in trials]
    assert other.ranked(costs)[0].number == 2


def test_a_winner_within_the_bound_says_what_it_takes_and_no_more(
    both: Sizes, tmp_path: Path
) -> None:
    whole, trials, _ = both
    folder = shutil.copytree(whole, tmp_path / "own")
    one = sized(folder, **{"tune.ensemble.latency_ms": "10000"})
    result = winner.Winner(one, trials).register()
    found = result.latency
    assert found is not None
    assert (found.over, found.faster, found.tried, found.fix) == (False, None, 0, "")
    assert str(found) not in outcome.said(result)
    assert told(one).severity == "pass"
    assert told(one).message.endswith("ms for one row on one core, within"
                                      " tune.ensemble.latency_ms: 10000.")  # fmt: skip


def test_where_no_trial_is_fast_enough_it_says_so(
    both: Sizes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, trials, _ = both
    folder = shutil.copytree(whole, tmp_path / "own")
    one = sized(folder, **{"tune.ensemble.latency_ms": "0.000001"})
    found = winner.Winner(one, trials).register().latency
    assert found is not None
    assert (found.over, found.faster, found.tried) == (True, None, 1)
    assert "of 1 other trials with weights in storage none is within it" in str(found)
    assert found.fix.startswith("a smaller model")
    monkeypatch.setenv("EAGLERAY_CACHE", str(folder / "of another machine"))
    one.storage.put(blobs.key(trials[1].weights[0]), b"rotten")
    rotten = winner.Winner(one, trials).register().latency
    assert rotten is not None
    assert rotten.tried == 0


def test_without_a_bound_nothing_is_slow(both: Sizes, tmp_path: Path) -> None:
    whole, trials, _ = both
    folder = shutil.copytree(whole, tmp_path / "own")
    one = sized(folder, **{"tune.ensemble.latency_ms": "null"})
    found = winner.Winner(one, trials).register().latency
    assert found is not None
    assert (found.over, found.bound_ms) == (False, None)
    assert str(found).endswith(" ms for one row on one core")


@pytest.mark.parametrize(
    "tune", ["{search: cma}", "{ensemble: {members: 3}}", "{cost: size}", "{search: random}"]
)
def test_a_fix_keeps_the_laws_of_the_file(tmp_path: Path, tune: str) -> None:
    file = tmp_path / "x.yaml"
    text = "name: x\ndata: {source: 'dataset:wine', target: target}\n"
    rates = "model: {type: mlp}\ntrain: {lr: {loguniform: [0.001, 0.1]}}\n"
    file.write_text(f"{text}{rates}tune: {tune}\n")
    fix = latency.choosing(spec.load(file).tune, 0.0123)
    chosen = yaml.safe_load(fix.strip("`"))["tune"]
    file.write_text(f"{text}{rates}tune: {yaml.safe_dump({**yaml.safe_load(tune), **chosen})}")
    made = spec.load(file).tune
    assert (made.cost, made.tolerance) == ("latency", 0.014)
