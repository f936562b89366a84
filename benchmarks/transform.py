"""Transforms of a million rows of 20 columns, fitted and applied, beside scikit-learn's.

The peer is a ColumnTransformer of transformers that do the same: gaps filled and told, five scales,
bins, and the most frequent categories. Both start from columns in memory, in one process. The
median of several turns counts.

Run: python -m benchmarks.transform [--rows 1000000] [--turns 3]
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OrdinalEncoder,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from eagleray import spec
from eagleray.learn import features, schema

TARGET = 1.5
MOST = 100  # categories of a column
SCALERS: dict[str, Callable[[], Any]] = {
    "standard": StandardScaler,
    "robust": RobustScaler,
    "minmax": MinMaxScaler,
    "log": lambda: make_pipeline(FunctionTransformer(_log), StandardScaler()),
    "quantile": lambda: QuantileTransformer(output_distribution="normal", subsample=None),
}
NUMBERS = {f"{scale}_{place}": scale for scale in SCALERS for place in range(3)}
BINNED = "binned"
WORDS = [f"word_{place}" for place in range(4)]


def table(count: int) -> schema.Columns:
    """15 scaled columns of numbers, one in five with gaps, one with bins, and four of names."""
    rng = np.random.default_rng(0)
    columns: schema.Columns = {name: rng.lognormal(size=count) for name in [*NUMBERS, BINNED]}
    for name in list(NUMBERS)[::5]:
        columns[name][rng.random(count) < 0.05] = np.nan
    for name in WORDS:
        codes = rng.zipf(1.5, count) % 200
        columns[name] = np.array([f"name {code}" for code in range(200)], object)[codes]
    return columns


def ours(columns: schema.Columns) -> np.ndarray:
    """The numbers of `features.Transforms`, fitted to these columns."""
    kinds = {name: "categorical" if name in WORDS else "numeric" for name in columns}
    known = schema.Schema(
        columns=tuple(schema.Column(name=name, type=kind) for name, kind in kinds.items()),
        target=schema.Target(name="y", task="regression"),
    )
    options = {
        name: spec.FeatureOptions(type="numeric", scale=scale) for name, scale in NUMBERS.items()
    }
    options[BINNED] = spec.FeatureOptions(type="numeric", bins=10)
    return features.Transforms.fit(known, options, columns).apply(columns)["numeric"]


def peer() -> ColumnTransformer:
    """scikit-learn's transformers of the same columns."""
    impute = SimpleImputer(strategy="median", add_indicator=True)
    parts: list[tuple[str, Any, list[str]]] = [
        (scale, make_pipeline(impute, made()), [one for one in NUMBERS if NUMBERS[one] == scale])
        for scale, made in SCALERS.items()
    ]
    bins = KBinsDiscretizer(
        10, encode="onehot-dense", quantile_method="linear", subsample=None, dtype=np.float32
    )
    words = OrdinalEncoder(
        max_categories=MOST, handle_unknown="use_encoded_value", unknown_value=-1
    )
    parts += [("value", StandardScaler(), [BINNED]), ("bins", bins, [BINNED])]
    return ColumnTransformer([*parts, ("words", words, WORDS)], sparse_threshold=0)


def seconds(turns: int, work: Callable[[], object]) -> float:
    """The median of several turns."""
    taken = []
    for _ in range(turns):
        began = perf_counter()
        work()
        taken.append(perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    columns = table(chosen.rows)
    frame = pd.DataFrame(columns)
    mine = seconds(chosen.turns, lambda: ours(columns))
    other = seconds(chosen.turns, lambda: peer().fit_transform(frame))
    print(f"  EagleRay {mine:.2f} s, scikit-learn {other:.2f} s", file=sys.stderr)
    print(
        json.dumps(
            {
                "claim": f"seconds to fit and apply transforms of {chosen.rows:,} rows of 20 "
                "columns; the peer is scikit-learn's ColumnTransformer",
                "ours": round(mine, 2),
                "peer": round(other, 2),
                "ratio": round(mine / other, 2),
                "target": TARGET,
                "holds": mine / other <= TARGET,
            }
        )
    )


def _log(values: np.ndarray) -> np.ndarray:
    logged: np.ndarray = np.sign(values) * np.log1p(np.abs(values))
    return logged


if __name__ == "__main__":
    main()
