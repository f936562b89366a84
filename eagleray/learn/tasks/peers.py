"""Plain models that a winner is compared with: default settings, scikit-learn's interface.

The libraries are imported when the models are made.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_BOOSTED = 50
"""Maximum number of classes of a boosted model, which has a tree for each class in each round."""
_TREES: dict[str, Any] = {"random_state": 0, "verbosity": -1, "n_jobs": 1, "deterministic": True}


def classifiers(classes: int) -> dict[str, Any]:
    """Classifiers by name."""
    import lightgbm
    from sklearn.linear_model import LogisticRegression

    found: dict[str, Any] = {"logistic regression": LogisticRegression(max_iter=200)}
    if classes <= MOST_BOOSTED:
        found["boosting"] = lightgbm.LGBMClassifier(**_TREES)
    return found


def regressors() -> dict[str, Any]:
    """Regressors by name."""
    import lightgbm
    from sklearn.linear_model import Ridge

    return {"linear regression": Ridge(), "boosting": lightgbm.LGBMRegressor(**_TREES)}


def quantiles(levels: Sequence[float]) -> dict[str, Any]:
    """Regressors that give (B, C) quantiles, by name."""
    import lightgbm
    from sklearn.linear_model import Ridge

    trees = [lightgbm.LGBMRegressor(objective="quantile", alpha=one, **_TREES) for one in levels]
    return {"linear regression": _Shifted(Ridge(), levels), "boosting": _EachLevel(trees)}


class _Shifted:
    """A regressor whose quantiles are its prediction, moved by those of its training errors."""

    def __init__(self, plain: Any, levels: Sequence[float]) -> None:
        self._plain, self._levels = plain, levels

    def fit(self, matrix: Any, target_B: np.ndarray) -> "_Shifted":
        off_B = target_B - self._plain.fit(matrix, target_B).predict(matrix)
        self._shift_C = np.quantile(off_B, self._levels)
        return self

    def predict(self, matrix: Any) -> np.ndarray:
        moved_BC: np.ndarray = np.asarray(self._plain.predict(matrix))[:, None] + self._shift_C
        return moved_BC


class _EachLevel:
    """A regressor for each level."""

    def __init__(self, each: Sequence[Any]) -> None:
        self._each = each

    def fit(self, matrix: Any, target_B: np.ndarray) -> "_EachLevel":
        for one in self._each:
            one.fit(matrix, target_B)
        return self

    def predict(self, matrix: Any) -> np.ndarray:
        return np.sort(np.stack([one.predict(matrix) for one in self._each], 1), axis=1)
