"""Options of a search on real Ray: a population, a cost beside the metric, a budget."""

import io
from pathlib import Path

import pytest
from rich import console

from eagleray import spec
from ray_jobs import pipeline
from ray_jobs.report.outcome import Outcome
from tests import records

FILE = """
name: wine
data: {source: 'dataset:wine', target: target}
model: {hidden: [16]}
train: {lr: {loguniform: [1.0e-5, 1.0e-1]}, epochs: 9, batch_size: 64}
tune: {trials: 8, metric: log_loss, search: random, scheduler: pbt}
"""


def run(folder: Path, text: str = FILE, **overrides: str) -> tuple[Outcome, str]:
    (folder / "storage").mkdir(exist_ok=True)
    file = folder / "wine.yaml"
    file.write_text(text + f"storage: file://{folder}/storage\n")
    out = io.StringIO()
    ended = pipeline.run(spec.load(file, overrides), console.Console(file=out, width=200))
    return ended, out.getvalue()


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_cost_is_measured_weighed_and_shown_and_a_later_search_learns_of_it(
    ray_cluster: None, tmp_path: Path
) -> None:
    text = FILE.replace("[16]", "{choice: [[4], [64], [256]]}").replace("pbt", "none")
    options = {"tune.search": "tpe", "tune.cost": "size", "tune.tolerance": "100"}
    first, _ = run(tmp_path, text, **options)
    sizes = {str(one.values["model.hidden"]): one.costs["size"] for one in first.trials}
    assert sizes["[4]"] == 4 * (13 * 4 + 4 + 4 * 3 + 3)
    assert first.winner.values["model.hidden"] == [4]
    front = first.summary()["front"]
    assert first.winner.number in [one["number"] for one in front]
    assert "best log_loss for its size" in first.page()
    second, _ = run(tmp_path, text, **options, **{"tune.warm_start": "true", "tune.trials": "2"})
    assert second.search.id != first.search.id
    assert len(second.search.earlier()) == len(first.trials)


@pytest.mark.slow
def test_a_budget_counts_over_all_runs_and_a_larger_one_goes_on(
    ray_cluster: None, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "import time, torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self, shape, outputs):\n"
        "        super().__init__(shape.numeric, outputs)\n"
        "    def forward(self, inputs):\n"
        "        time.sleep(0.02)\n"
        "        return super().forward(inputs['numeric'])\n"
    )
    text = FILE.replace("{hidden: [16]}", "{type: 'own:Net'}").replace("pbt", "none")
    options = {"tune.trials": "1000", "tune.pack": "1", "compute.price": "3600"}

    def spend(money: int) -> tuple[Outcome, str, float]:
        ended, said = run(tmp_path, text, **options, **{"tune.budget": f"{{money: {money}}}"})
        return ended, said, sum(one.seconds for one in ended.trials)

    first, said, seconds = spend(2)
    assert f"the budget ends after {len(first.trials)} of 1000 trials" in said
    assert seconds >= 2
    assert "has already ended" in spend(2)[1]
    more, said, later = spend(4)
    done = sum(not one.unfinished for one in first.trials)  # the budget may end within a trial
    assert f"resuming: {done} of 1000 trials done" in said
    assert later >= 4
    assert len(more.trials) > len(first.trials)
    assert (more.search.id, more.result.hours) == (first.search.id, 4 / 3600)
