"""How often 95 % intervals cover the true value, beside plain percentiles of the same resamples.

Also how often one of two equal models is called better. Run: python benchmarks/intervals.py
"""

import json
from collections.abc import Callable, Iterator

import numpy as np
from scipy import special

from eagleray import evaluation
from eagleray.learn import metrics, schema

SETS, POPULATION = 400, 400_000
EQUAL = 0.025
"""Share of equal models that are called better: one side of a 95 % interval."""
BINARY = schema.Target(name="left", task="binary", classes=("no", "yes"))
NUMBER = schema.Target(name="price", task="regression")
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def two_classes(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    known = random.normal(size=rows)
    truth = (random.random(rows) < special.expit(1.5 * known - 1)).astype(int)
    said = special.expit(1.2 * known - 0.8 + random.normal(0, 0.3, rows))
    return truth, np.stack([1 - said, said], axis=1)


def normal_errors(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    known = random.normal(size=rows)
    return known + random.normal(size=rows), 0.9 * known + 0.5


def skewed_errors(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    known = random.normal(size=rows)
    return known + random.gumbel(size=rows), 0.9 * known + 0.5


def coverage(target: schema.Target, draw: Draw, name: str, rows: int) -> tuple[float, float]:
    """Shares of the sets whose interval covers the true value: ours, and plain percentiles."""
    true = metrics.score(target, *draw(np.random.default_rng(10_000), POPULATION))[name]
    ours = plain = 0
    for seed in range(SETS):
        one = evaluation.Judged(target, *draw(np.random.default_rng(seed), rows), (name,))
        found = evaluation.estimates(one)[name]
        assert found.low is not None
        assert found.high is not None
        low, high = np.quantile(one.resampled[name], (0.025, 0.975))
        ours += found.low <= true <= found.high
        plain += low <= true <= high
    return ours / SETS, plain / SETS


def share_called_better(rows: int) -> float:
    better = 0
    for seed in range(SETS):
        random = np.random.default_rng(seed)
        known = random.normal(size=rows)
        truth = (random.random(rows) < special.expit(1.5 * known - 1)).astype(int)
        said = [special.expit(known - 1 + random.normal(0, 0.5, rows)) for _ in range(2)]
        pair = [
            evaluation.Judged(BINARY, truth, np.stack([1 - one, one], 1), ("roc_auc",))
            for one in said
        ]
        found = evaluation.verdict(pair[0], pair[1], "roc_auc")
        better += found is not None and found.outcome == "better"
    return better / SETS


def claims() -> Iterator[dict[str, object]]:
    cases: list[tuple[schema.Target, Draw, str, int]] = [
        (BINARY, two_classes, "roc_auc", 250),
        (BINARY, two_classes, "brier", 250),
        (BINARY, two_classes, "accuracy", 250),
        (NUMBER, normal_errors, "rmse", 250),
        (NUMBER, normal_errors, "r2", 250),
        (NUMBER, skewed_errors, "rmse", 250),
        (NUMBER, skewed_errors, "rmse", 100),
    ]
    for target, draw, name, rows in cases:
        ours, peer = coverage(target, draw, name, rows)
        drawn = draw.__name__.replace("_", " ")
        claim = f"{name}, {drawn}, {rows} rows: share of {SETS} intervals that cover"
        holds = 0.92 <= ours <= 0.98
        yield {"claim": claim, "ours": ours, "peer": peer, "ratio": ours / peer, "holds": holds}
    equal = share_called_better(250)
    claim = f"share of {SETS} equal models that are called better"
    noise = 2 * np.sqrt(EQUAL * (1 - EQUAL) / SETS)  # two standard errors of so many sets
    yield {"claim": claim, "ours": equal, "target": EQUAL, "holds": bool(equal <= EQUAL + noise)}


if __name__ == "__main__":
    for line in claims():
        print(json.dumps(line), flush=True)
