"""LightGBM tuned by FLAML, which then fits it again on train and validation."""

import sys
from pathlib import Path

from flaml import AutoML

from benchmarks.peers import tables

if __name__ == "__main__":
    problem = tables.Problem.read(Path(sys.argv[1]))
    train, validation, test = problem.load_parts(categories=True)
    automl = AutoML()
    automl.fit(
        train.drop(columns=problem.target),
        train[problem.target],
        X_val=validation.drop(columns=problem.target),
        y_val=validation[problem.target],
        task="classification" if problem.classes else "regression",
        metric=problem.metric,
        estimator_list=["lgbm"],
        time_budget=problem.minutes * 60,
        n_jobs=2,
        verbose=0,
        seed=0,
    )
    rows = test.drop(columns=problem.target)
    problem.save(automl.predict_proba(rows) if problem.classes else automl.predict(rows))
