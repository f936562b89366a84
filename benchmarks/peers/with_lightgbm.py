"""LightGBM with a learning rate of 0.05 and early stopping on the validation part."""

import sys
from pathlib import Path

import lightgbm

from benchmarks.peers import tables

TREES = 2000
"""Most trees; training stops after 100 without a gain on the validation part."""

if __name__ == "__main__":
    problem = tables.Problem.read(Path(sys.argv[1]))
    train, validation, test = problem.load_parts(categories=True)
    kind = lightgbm.LGBMClassifier if problem.classes else lightgbm.LGBMRegressor
    model = kind(n_estimators=TREES, learning_rate=0.05, verbosity=-1, random_state=0, n_jobs=2)
    model.fit(
        train.drop(columns=problem.target),
        train[problem.target],
        eval_X=validation.drop(columns=problem.target),
        eval_y=validation[problem.target],
        callbacks=[lightgbm.early_stopping(100, verbose=False)],
    )
    rows = test.drop(columns=problem.target)
    problem.save(model.predict_proba(rows) if problem.classes else model.predict(rows))
