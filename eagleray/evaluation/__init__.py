"""How good a model is, and where it fails: numpy and scikit-learn, no storage, no Ray.

intervals    metrics with 95 % intervals, and the verdict on two models
baselines    plain models on the same rows
slices       groups that are predicted worse
fairness     predictions by the groups of a protected column
importance   what each column is worth
learning_curve what more rows would bring
fit          over- and under-fitting
calibrations temperature, isotonic curves, and intervals that hold what they say
training     gradients, dead units, spikes of the loss, columns that are not scaled
decisions    threshold and costs
ensembles    which trials a mean is made of, and what it gains
whole        all of it, as the document `eagleray.state.evaluations.Evaluation`
"""

import hashlib

import numpy as np

from eagleray.evaluation.intervals import Judged as Judged
from eagleray.evaluation.intervals import estimates as estimates
from eagleray.evaluation.intervals import verdict as verdict
from eagleray.evaluation.training import Training as Training
from eagleray.evaluation.whole import Model as Model
from eagleray.evaluation.whole import Part as Part
from eagleray.evaluation.whole import evaluate as evaluate
from eagleray.evaluation.whole import unbeaten as unbeaten


def rows_hash(row_B: np.ndarray, target_B: np.ndarray) -> str:
    """What names a test part: a hash of the rows' numbers in their source and of their targets."""
    digest = hashlib.sha256()
    for array in (row_B, target_B):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
