"""Schedulers on real Ray: a population that exchanges weights, and trials that fail once."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich import console

from eagleray import spec
from ray_jobs import cluster, pipeline
from ray_jobs.report.outcome import Outcome
from tests import records

FILE = """
name: wine
data: {source: 'dataset:wine', target: target}
model: {hidden: [16]}
train: {lr: {loguniform: [1.0e-5, 1.0e-1]}, epochs: 9, batch_size: 64}
tune: {trials: 8, metric: log_loss, search: random, scheduler: pbt}
"""


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    with cluster.connected():
        yield


def run(folder: Path, text: str = FILE, **overrides: str) -> tuple[Outcome, str]:
    (folder / "storage").mkdir(exist_ok=True)
    file = folder / "wine.yaml"
    file.write_text(text + f"storage: file://{folder}/storage\n")
    out = io.StringIO()
    ended = pipeline.run(spec.load(file, overrides), console.Console(file=out, width=200))
    return ended, out.getvalue()


def test_a_population_trains_together_and_ends_better_than_its_trials_alone(
    ray_cluster: None, tmp_path: Path
) -> None:
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    alone, _ = run(tmp_path / "alone", **{"tune.scheduler": "none"})
    together, said = run(tmp_path / "together")
    assert "a population trains together" in said
    first = {one.number: one for one in alone.trials}
    changed = [one for one in together.trials if one.values != first[one.number].values]
    assert changed
    assert all(len(one.history) == one.epoch == 9 for one in together.trials)
    assert all(1e-5 <= one.values["train.lr"] <= 1e-1 for one in together.trials)
    worst = max(one.score or 0.0 for one in alone.trials)
    assert max(one.score or 0.0 for one in together.trials) < worst
    assert records.of(together.search.experiment.storage, "wine")
