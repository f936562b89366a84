"""AutoGluon with `medium_quality`: models of all kinds, and a weighted ensemble of them."""

import sys
from pathlib import Path

import numpy as np
from autogluon.tabular import TabularPredictor

from benchmarks.peers import tables

if __name__ == "__main__":
    problem = tables.Problem.read(Path(sys.argv[1]))
    train, validation, test = problem.load_parts(categories=False)
    predictor = TabularPredictor(
        problem.target,
        problem_type={0: "regression", 2: "binary"}.get(problem.classes, "multiclass"),
        eval_metric=problem.metric,
        path=str(problem.folder / "autogluon"),
        verbosity=1,
    ).fit(
        train,
        tuning_data=validation,
        presets="medium_quality",
        time_limit=problem.minutes * 60,
        num_cpus=2,
    )
    if problem.classes:
        outputs = predictor.predict_proba(test).to_numpy()
    else:
        outputs = predictor.predict(test).to_numpy()
    if problem.classes == 2:  # those from its own threshold on are positive
        positive_B = np.interp(outputs[:, 1], [0, predictor.decision_threshold, 1], [0, 0.5, 1])
        outputs = np.stack([1 - positive_B, positive_B], axis=1)
    problem.save(outputs)
