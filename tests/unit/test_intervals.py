"""Intervals are honest: they cover the true value, and an equal model is rarely called better."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special, stats

from eagleray import evaluation
from eagleray.evaluation import intervals
from eagleray.learn import metrics, schema

BINARY = schema.Target(name="left", task="binary", classes=("no", "yes"))
NUMBER = schema.Target(name="price", task="regression")
SETS, ROWS, POPULATION = 400, 250, 400_000


def binary(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and the probabilities of a model that is not quite right."""
    known = random.normal(size=rows)
    truth = (random.random(rows) < special.expit(1.5 * known - 1)).astype(int)
    said = special.expit(1.2 * known - 0.8 + random.normal(0, 0.3, rows))
    return truth, np.stack([1 - said, said], axis=1)


def number(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    known = random.normal(size=rows)
    return known + random.normal(size=rows), 0.9 * known + 0.5


CASES = [
    (BINARY, binary, ("roc_auc", "brier", "accuracy")),
    (NUMBER, number, ("rmse", "mae", "r2")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "draw", "names"), CASES, ids=["binary", "regression"])
def test_a_95_percent_interval_covers_the_true_value_95_times_in_a_hundred(
    target: schema.Target,
    draw: Callable[..., tuple[np.ndarray, np.ndarray]],
    names: tuple[str, ...],
) -> None:
    """92 to 98 in a hundred, of 400 data sets."""
    true = metrics.score(target, *draw(np.random.default_rng(10_000), POPULATION))
    covered = dict.fromkeys(names, 0)
    for seed in range(SETS):
        one = evaluation.Judged(target, *draw(np.random.default_rng(seed), ROWS), names)
        for name, found in evaluation.estimates(one).items():
            assert found.low is not None
            assert found.high is not None
            covered[name] += found.low <= true[name] <= found.high
    assert all(0.92 * SETS <= times <= 0.98 * SETS for times in covered.values()), covered


@pytest.mark.slow
def test_an_equal_model_is_called_better_1_time_in_40() -> None:
    """Two models that differ by noise alone; at most two standard errors of 400 pairs above."""
    better = 0
    for seed in range(SETS):
        random = np.random.default_rng(seed)
        known = random.normal(size=ROWS)
        truth = (random.random(ROWS) < special.expit(1.5 * known - 1)).astype(int)
        said = [special.expit(known - 1 + random.normal(0, 0.5, ROWS)) for _ in range(2)]
        ours, theirs = (
            evaluation.Judged(BINARY, truth, np.stack([1 - one, one], 1), ("roc_auc",))
            for one in said
        )
        found = evaluation.verdict(ours, theirs, "roc_auc")
        better += found is not None and found.outcome == "better"
    noise = 2 * np.sqrt(0.025 * 0.975 / SETS)
    assert better <= (0.025 + noise) * SETS


def judged(seed: int, off: float, metric: str) -> evaluation.Judged:
    truth, value = number(np.random.default_rng(seed), 400)
    return evaluation.Judged(NUMBER, truth, value + off, (metric,))


@pytest.mark.parametrize(
    ("off", "metric", "outcome"),
    [
        (1.5, "rmse", "better"),
        (1.5, "r2", "better"),
        (0.0, "rmse", "no difference"),
        (0.0, "mae", "no difference"),
    ],
)
def test_the_direction_of_a_metric_decides_what_is_better(
    off: float, metric: str, outcome: str
) -> None:
    ours, theirs = judged(1, 0.0, metric), judged(1, off, metric)
    found, other = (evaluation.verdict(*pair, metric) for pair in ((ours, theirs), (theirs, ours)))
    assert found is not None
    assert other is not None
    assert found.outcome == outcome
    assert other.outcome == {"better": "worse"}.get(outcome, outcome)
    assert found.difference.value == pytest.approx(-other.difference.value)


def test_where_every_resample_scores_the_same_a_share_of_rows_alone_has_an_interval() -> None:
    truth = np.arange(40) % 2
    perfect = evaluation.Judged(BINARY, truth, np.eye(2)[truth], ("accuracy", "roc_auc"))
    found, by_wilson = evaluation.estimates(perfect), stats.binomtest(40, 40).proportion_ci
    assert found["accuracy"].low == pytest.approx(by_wilson(method="wilson").low, rel=1e-4)
    assert (found["accuracy"].value, found["accuracy"].high) == (1.0, 1.0)
    assert (found["roc_auc"].value, found["roc_auc"].low) == (1.0, None)
    assert evaluation.verdict(perfect, perfect, "roc_auc").outcome == "no difference"  # type: ignore[union-attr]


@pytest.mark.parametrize(("rows", "outcome"), [(28, "no difference"), (40, "better")])
def test_a_difference_that_all_resamples_have_decides_where_rows_are_enough(
    rows: int, outcome: str
) -> None:
    truth = np.arange(rows) % 2
    perfect, constant = (
        evaluation.Judged(BINARY, truth, outputs, ("roc_auc",))
        for outputs in (np.eye(2)[truth], np.full((rows, 2), 0.5))
    )
    found = evaluation.verdict(perfect, constant, "roc_auc")
    assert found is not None
    assert (found.outcome, found.difference.value) == (outcome, 0.5)
    other = evaluation.verdict(constant, perfect, "roc_auc")
    assert other is not None
    assert other.outcome == {"better": "worse"}.get(outcome, outcome)


def test_of_one_class_alone_what_is_not_defined_is_left_out() -> None:
    outputs = np.stack([np.linspace(0.1, 0.9, 9), np.linspace(0.9, 0.1, 9)], 1)
    alone = evaluation.Judged(BINARY, np.zeros(9, int), outputs, ("roc_auc", "accuracy"))
    assert list(evaluation.estimates(alone)) == ["accuracy"]
    assert evaluation.verdict(alone, alone, "roc_auc") is None


def test_many_rows_are_drawn_in_part_and_their_interval_is_as_narrow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth, value = number(np.random.default_rng(3), 4000)

    def width() -> float:
        found = evaluation.estimates(evaluation.Judged(NUMBER, truth, value, ("mae",)))["mae"]
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    whole = width()
    monkeypatch.setattr(intervals, "MOST_DRAWN", 400)
    assert width() == pytest.approx(whole, rel=0.15)


def test_the_same_rows_have_the_same_hash_in_any_order_of_columns() -> None:
    rows, targets = np.arange(5), np.arange(5) % 2
    assert evaluation.rows_hash(rows, targets) == evaluation.rows_hash(rows.copy(), targets)
    assert evaluation.rows_hash(rows, targets) != evaluation.rows_hash(rows + 1, targets)
