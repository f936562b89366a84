"""Contributions by sampling against Shapley values: by enumeration, and those of `shap`.

`shap` replaces columns by those of background rows, as we do. Its explainers take matrices of
numbers, so a row is the place of each of its values in a table of background and row.
"""

import itertools
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from eagleray import bundle
from eagleray.learn import schema, shapley
from serving import explanation
from tests import bundles

Predict = Callable[[schema.Columns], np.ndarray]


def exact(predict: Predict, row: schema.Columns, background: schema.Columns) -> dict[str, float]:
    """Shapley values by all subsets of columns, averaged over the background rows."""
    names = list(row)
    value: dict[frozenset[str], float] = {}
    for size in range(len(names) + 1):
        for own in itertools.combinations(names, size):
            rows = len(background[names[0]])
            mixed = {
                name: np.repeat(row[name], rows, axis=0) if name in own else background[name]
                for name in names
            }
            value[frozenset(own)] = float(predict(mixed).mean())
    found = dict.fromkeys(names, 0.0)
    for own, without in value.items():
        for name in set(names) - own:
            weight = math.factorial(len(own)) * math.factorial(len(names) - len(own) - 1)
            found[name] += weight / math.factorial(len(names)) * (value[own | {name}] - without)
    return found


def numbers(rows: int, columns: int) -> schema.Columns:
    random = np.random.default_rng(rows)
    return {f"c{index}": random.normal(size=rows) for index in range(columns)}


def test_contributions_of_a_linear_model_are_exact() -> None:
    row, background = numbers(1, 5), numbers(30, 5)
    weights = dict(zip(row, (3.0, -2.0, 0.0, 1.0, 0.5), strict=True))

    def predict(columns: schema.Columns) -> np.ndarray:
        return sum((weights[name] * columns[name] for name in columns), np.zeros(1))

    found = shapley.contributions(predict, row, background)
    for name, weight in weights.items():
        expected = weight * float(row[name][0] - background[name].mean())
        assert found.by_column[name] == pytest.approx(expected)
    assert found.by_column["c2"] == 0


def test_contributions_of_columns_that_interact_are_near_those_of_all_subsets() -> None:
    row, background = numbers(1, 8), numbers(16, 8)

    def predict(columns: schema.Columns) -> np.ndarray:
        first, second, third = columns["c0"], columns["c1"], columns["c2"]
        return first * second + np.tanh(second * third) + np.abs(columns["c7"])

    found, expected = (
        shapley.contributions(predict, row, background),
        exact(predict, row, background),
    )
    error = max(abs(found.by_column[name] - expected[name]) for name in row)
    assert error < 0.05 * max(map(abs, expected.values()))
    assert found.mean + sum(found.by_column.values()) == pytest.approx(predict(row)[0])


def test_a_served_row_is_explained_by_its_answer_and_near_all_subsets() -> None:
    made = bundles.make()
    made.golden = bundles.golden(made)
    row = schema.parse(made.schema, bundles.rows(1, seed=5))
    outputs = made.predict_columns(row).outputs[0]
    found = explanation.Explainer(made).explain(row)
    background = schema.parse(made.schema, made.golden.rows)
    best = int(outputs.argmax())
    expected = exact(
        lambda columns: made.predict_columns(columns).outputs[:, best], row, background
    )
    for name, value in expected.items():
        assert found["contributions"][name] == pytest.approx(value, abs=0.01)
    total = found["mean"] + sum(found["contributions"].values())
    assert total == pytest.approx(outputs.max(), abs=1e-6)


def by_shap(predict: Predict, row: schema.Columns, background: schema.Columns) -> dict[str, float]:
    """Shapley values as shap's exact explainer gives them: all subsets, all background rows."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # its plots, of matplotlib
        patch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes 11 s, this 0.1
        import shap
    names, rows = list(row), len(next(iter(background.values())))
    both = {name: np.concatenate([background[name], row[name]]) for name in names}
    place_BF = np.tile(np.arange(rows + 1.0)[:, None], len(names))

    def predict_places(place_NF: np.ndarray) -> np.ndarray:
        place_FN = place_NF.astype(int).T
        return predict({name: both[name][at] for name, at in zip(names, place_FN, strict=True)})

    masker = shap.maskers.Independent(place_BF[:-1], max_samples=rows)
    found = shap.explainers.Exact(predict_places, masker)(place_BF[-1:])
    return dict(zip(names, found.values[0].tolist(), strict=True))


def golden_classifier() -> bundle.Bundle:
    made = bundles.make()
    raw = bundles.rows(bundle.GOLDEN_ROWS, seed=7)
    made.golden = bundle.Golden(raw, made.predict(raw).outputs.tolist())
    return made


@pytest.mark.parametrize("seed", range(4))
def test_a_served_row_is_explained_as_shap_does_within_1_percent(seed: int) -> None:
    made = golden_classifier()
    row = schema.parse(made.schema, bundles.rows(1, seed=seed))
    assert made.golden is not None
    background = schema.parse(made.schema, made.golden.rows)
    best = int(made.predict_columns(row).outputs[0].argmax())
    expected = by_shap(
        lambda columns: made.predict_columns(columns).outputs[:, best], row, background
    )
    found = explanation.Explainer(made).explain(row)["contributions"]
    span = sum(map(abs, expected.values()))
    assert span > 0.05
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.01 * span)


@pytest.mark.parametrize("columns", [3, 8, 11])
def test_columns_that_interact_in_pairs_are_explained_exactly_as_shap_does(columns: int) -> None:
    row, background = numbers(1, columns), numbers(32, columns)

    def predict(part: schema.Columns) -> np.ndarray:
        first, second, last = part["c0"], part["c1"], part[f"c{columns - 1}"]
        return first * second + np.tanh(second * last) + np.maximum(first, last)

    expected = by_shap(predict, row, background)
    found = shapley.contributions(predict, row, background).by_column
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("columns", [3, 8, 11])
def test_a_probability_of_columns_in_threes_is_explained_as_shap_does_within_a_hundredth(
    columns: int,
) -> None:
    row, background = numbers(1, columns), numbers(32, columns)

    def predict(part: schema.Columns) -> np.ndarray:
        first, second, last = part["c0"], part["c1"], part[f"c{columns - 1}"]
        return 1 / (1 + np.exp(-first - second * last - first * second * last))

    expected = by_shap(predict, row, background)
    found = shapley.contributions(predict, row, background).by_column
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.01)


def test_the_same_row_has_the_same_contributions() -> None:
    row, background = numbers(1, 4), numbers(9, 4)

    def predict(columns: schema.Columns) -> np.ndarray:
        return columns["c0"] * columns["c1"]

    assert shapley.contributions(predict, row, background) == shapley.contributions(
        predict, row, background
    )


@pytest.mark.parametrize("columns", [1, 14, 400, 3000])
def test_predictions_are_bounded_however_many_columns_there_are(columns: int) -> None:
    predicted = 0

    def predict(part: schema.Columns) -> np.ndarray:
        nonlocal predicted
        predicted += len(part["c0"])
        return part["c0"]

    row, background = numbers(1, columns), numbers(32, columns)
    found = shapley.contributions(predict, row, background)
    assert predicted <= max(shapley.MOST_PREDICTIONS, 2 * (columns + 1))
    assert found.mean + sum(found.by_column.values()) == pytest.approx(row["c0"][0])
