"""Visits for grouped.yaml: each patient of scikit-learn's diabetes table, seen three times."""

import numpy as np
import pandas as pd
from sklearn import datasets

VISITS = 3
NOISE = 0.05  # of a measurement's standard deviation, from visit to visit


def visits() -> pd.DataFrame:
    """A row for each visit: the patient, ten measurements, and the progress after a year."""
    table = datasets.load_diabetes(as_frame=True, scaled=False).frame
    seen = table.loc[table.index.repeat(VISITS)]
    random, measured = np.random.default_rng(0), list(table.columns.drop(["sex", "target"]))
    noise = random.normal(0, NOISE, (len(seen), len(measured))) * table[measured].std().to_numpy()
    seen[measured] += noise
    names = [f"patient {number}" for number in seen.index]
    return pd.DataFrame(seen.assign(patient=names).reset_index(drop=True))
