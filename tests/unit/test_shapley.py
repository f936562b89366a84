"""Contributions by sampling against Shapley values by enumeration."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

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
