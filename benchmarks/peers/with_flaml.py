"""FLAML: LightGBM tuned for the minutes, and fitted again on train and validation."""

import sys
from pathlib import Path

from flaml import AutoML

from benchmarks.peers import tables

if __name__ == "__main__":
    asked = tables.Asked.read(Path(sys.argv[1]))
    train, validation, test = asked.parts(categories=True)
    automl = AutoML()
    automl.fit(
        train.drop(columns=asked.target),
        train[asked.target],
        X_val=validation.drop(columns=asked.target),
        y_val=validation[asked.target],
        task="classification" if asked.classes else "regression",
        metric=asked.metric,
        estimator_list=["lgbm"],
        time_budget=asked.minutes * 60,
        n_jobs=2,
        verbose=0,
        seed=0,
    )
    rows = test.drop(columns=asked.target)
    asked.answer(automl.predict_proba(rows) if asked.classes else automl.predict(rows))
