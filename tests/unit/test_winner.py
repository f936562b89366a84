"""The winner is judged once on the test part: intervals, baselines, the champion, and looks."""

from pathlib import Path
from typing import Any

import pytest

from eagleray import errors, storage
from eagleray.engines.torch import Torch
from eagleray.state import evaluations
from eagleray.state.evaluations import Evaluation
from eagleray.state.models import Registry
from ray_jobs import promotion, search, winner
from tests import judged


def evaluation(one: search.Search, number: int) -> Evaluation:
    registry = Registry(one.storage)
    version = registry.version(one.experiment.name, number)
    return evaluations.decode(registry.read(version, evaluations.FILE), "here")


def test_a_winner_has_intervals_baselines_and_a_place_beside_the_champion(tmp_path: Path) -> None:
    one = judged.searched(tmp_path)
    weak = judged.trial(one, 1, **{"train.lr": 1e-4})
    first = judged.won(one, [weak])
    assert (first.looks, first.compared) == (1, None)
    assert "finds" in first.headline
    assert "target is malignant" in first.headline
    assert [plain.name for plain in first.baselines] == [
        "always the same",
        "logistic regression",
        "boosting",
    ]
    found = first.intervals["roc_auc"]
    assert found.low < first.test["roc_auc"] < found.high
    assert first.baselines[0].metrics["roc_auc"].value == 0.5
    assert first.unbeaten
    assert "is worse than a baseline, logistic regression: roc_auc" in " ".join(first.unbeaten)

    other = judged.searched(tmp_path, **{"train.seed": "1"})
    second = judged.won(other, [judged.trial(other, 1, **{"train.lr": 1e-2})])
    assert (second.version, second.looks) == (2, 2)
    assert second.compared is not None
    assert second.compared.version == 1
    assert second.compared.verdict is not None
    assert second.compared.verdict.outcome == "better"
    assert second.compared.verdict.difference.low > 0
    assert second.compared.metrics["roc_auc"].value == pytest.approx(first.test["roc_auc"])
    registry = Registry(one.storage)
    versions = registry.version("tumours", 1), registry.version("tumours", 2)
    assert promotion.gate(registry, *versions) is None
    assert "was not compared with version 2" in (promotion.gate(registry, *versions[::-1]) or "")
    again = judged.won(other, [judged.trial(other, 1, **{"train.lr": 1e-2})])
    assert (again.version, again.looks) == (2, 2), "the same look counts once"


def test_an_evaluation_is_kept_whole_with_the_version(tmp_path: Path) -> None:
    one = judged.searched(tmp_path, judged.DIABETES)
    result = judged.won(one, [judged.trial(one, 1, **{"train.lr": 1e-2})])
    kept = evaluation(one, result.version)
    assert kept.values == result.test
    assert (kept.rows, kept.target, kept.mode) == (88, "target", "min")
    assert {diagram.name for diagram in kept.diagrams} == {"predicted", "residuals"}
    assert kept.importance[0].column in ("bmi", "s5")
    assert kept.importance[0].drop.value > kept.importance[-1].drop.value
    misses = [row.miss for row in kept.wrong]
    assert misses == sorted(misses, reverse=True)
    assert misses[0] == pytest.approx(abs(kept.wrong[0].truth - kept.wrong[0].prediction))
    assert kept.fit is not None
    assert kept.fit.rows == len(one.dataset.split.train)
    assert (kept.groups, kept.slices) == (6, [])


def test_damaged_layers_cost_the_report_of_them_alone(tmp_path: Path) -> None:
    one = judged.searched(tmp_path, judged.DIABETES, **{"train.epochs": "2"})
    trial = judged.trial(one, 1)
    (damaged,) = (tmp_path / "storage").rglob("layers/*.parquet")
    damaged.write_bytes(b"PAR1")
    kept = evaluation(one, judged.won(one, [trial]).version)
    (note,) = [line for line in kept.notes if line.startswith("training: ")]
    assert "nothing is said of its layers: " in note
    assert damaged.name in note


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"data.drop": "[mean radius]"}, "it needs the column mean radius, which the data lack"),
        (
            {"features": "{mean area: {type: categorical}}"},
            "its column mean area is numeric, in the data it is categorical",
        ),
    ],
)
def test_a_champion_that_cannot_predict_the_rows_leaves_the_winner_to_a_person(
    tmp_path: Path, overrides: dict[str, str], why: str
) -> None:
    one = judged.searched(tmp_path, **{"train.epochs": "2"})
    judged.won(one, [judged.trial(one, 1)])
    other = judged.searched(tmp_path, **{"train.epochs": "2"}, **overrides)
    found = judged.won(other, [judged.trial(other, 1)])
    assert found.compared is not None
    assert (found.compared.verdict, found.compared.why) == (None, why)
    registry = Registry(one.storage)
    versions = registry.version("tumours", 1), registry.version("tumours", 2)
    assert promotion.gate(registry, *versions) is not None


def test_a_champion_whose_code_fails_leaves_a_finished_search_its_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = judged.searched(tmp_path, **{"train.epochs": "2"})
    judged.won(one, [judged.trial(one, 1)])
    other = judged.searched(tmp_path, **{"train.epochs": "2", "train.seed": "1"})
    trials = [judged.trial(other, 1)]
    ready = winner.Winner(other, trials)

    mine, run = ready._bundle.engine, Torch.run

    def fails(engine: Torch, *rest: Any) -> Any:
        if engine is mine:
            return run(engine, *rest)
        raise ZeroDivisionError("of its own")

    monkeypatch.setattr(Torch, "run", fails)
    found = ready.register().compared
    assert found is not None
    assert (found.version, found.verdict) == (1, None)
    assert found.why == "it cannot predict these rows: ZeroDivisionError: of its own"


def test_a_storage_that_refuses_looks_registers_the_winner_without_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = judged.searched(tmp_path, **{"train.epochs": "2"})
    put = type(one.storage).put_if_absent

    def guarded(self: object, key: str, *rest: Any, **named: Any) -> Any:
        if key.startswith("looks/"):
            raise errors.AccessDeniedError(f"{key}: access denied")
        return put(self, key, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(type(one.storage), "put_if_absent", guarded)
    result = judged.won(one, [judged.trial(one, 1)])
    assert (result.version, result.looks) == (1, 0)
    assert evaluation(one, 1).looks == 0


def test_a_winner_is_judged_and_kept_though_storage_goes_away_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = judged.searched(tmp_path, **{"train.epochs": "2"})
    trials, table, asked = [judged.trial(one, 1)], winner.predictions, list[str]()

    def away(name: str) -> None:
        asked.append(name)
        raise errors.StorageUnavailableError(f"{name}: away")

    def leaves(*judging: Any) -> bytes:
        for name in ("get", "get_tagged", "list", "put_if_absent", "compare_and_swap", "upload"):
            monkeypatch.setattr(one.storage, name, lambda *_, name=name, **__: away(name))
        return table(*judging)

    monkeypatch.setattr(winner, "predictions", leaves)
    ready = winner.Winner(one, trials)
    with pytest.raises(errors.StorageUnavailableError):
        ready.register()
    assert asked, "it was away"
    registry = Registry(storage.open(ready.keep(tmp_path / "kept")))
    (version,) = registry.versions("tumours")
    known = evaluations.decode(registry.read(version, evaluations.FILE), "here")
    assert (version.number, known.rows) == (1, len(one.dataset.split.test))
