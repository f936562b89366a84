"""Plain models that a winner is compared with: default settings, scikit-learn's interface.

The libraries are imported when the models are made.
"""

from typing import Any

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
