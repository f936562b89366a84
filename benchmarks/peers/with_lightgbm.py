"""LightGBM as people use it: a rate of 0.05, as many trees as the validation part allows."""

import sys
from pathlib import Path

import lightgbm

from benchmarks.peers import tables

TREES = 2000
"""Most trees; the validation part ends it after 100 without a gain."""

if __name__ == "__main__":
    asked = tables.Asked.read(Path(sys.argv[1]))
    train, validation, test = asked.parts(categories=True)
    kind = lightgbm.LGBMClassifier if asked.classes else lightgbm.LGBMRegressor
    model = kind(n_estimators=TREES, learning_rate=0.05, verbosity=-1, random_state=0, n_jobs=2)
    model.fit(
        train.drop(columns=asked.target),
        train[asked.target],
        eval_X=validation.drop(columns=asked.target),
        eval_y=validation[asked.target],
        callbacks=[lightgbm.early_stopping(100, verbose=False)],
    )
    rows = test.drop(columns=asked.target)
    asked.answer(model.predict_proba(rows) if asked.classes else model.predict(rows))
