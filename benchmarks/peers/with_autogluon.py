"""AutoGluon with `medium_quality`: models of all kinds, and a weighted ensemble of them."""

import sys
from pathlib import Path

import numpy as np
from autogluon.tabular import TabularPredictor

from benchmarks.peers import tables

if __name__ == "__main__":
    asked = tables.Asked.read(Path(sys.argv[1]))
    train, validation, test = asked.parts(categories=False)
    predictor = TabularPredictor(
        asked.target,
        problem_type={0: "regression", 2: "binary"}.get(asked.classes, "multiclass"),
        eval_metric=asked.metric,
        path=str(asked.folder / "autogluon"),
        verbosity=1,
    ).fit(
        train,
        tuning_data=validation,
        presets="medium_quality",
        time_limit=asked.minutes * 60,
        num_cpus=2,
    )
    if asked.classes:
        outputs = predictor.predict_proba(test).to_numpy()
    else:
        outputs = predictor.predict(test).to_numpy()
    if asked.classes == 2:  # those from its own threshold on are positive
        positive_B = np.interp(outputs[:, 1], [0, predictor.decision_threshold, 1], [0, 0.5, 1])
        outputs = np.stack([1 - positive_B, positive_B], axis=1)
    asked.answer(outputs)
