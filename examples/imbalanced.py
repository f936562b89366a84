"""The rows of imbalanced.yaml: one class in twenty."""

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits


def rows() -> pd.DataFrame:
    """Handwritten digits as 64 numbers: is it an eight? Of the eights every other one is left."""
    digits = load_digits(as_frame=True)
    eights = np.flatnonzero(digits.target == 8)
    frame = digits.data.assign(digit=np.where(digits.target == 8, "eight", "other"))
    return pd.DataFrame(frame.drop(index=eights[::2]))
