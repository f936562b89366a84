"""From canonical columns to what a model eats, fitted on the training part, the same in serving.

What is fitted is kept as JSON and tensors and comes back exactly. A row is encoded alike alone and
in a batch, to the bit; only the padding of tokens depends on the batch.
"""

from eagleray.learn.features import reference
from eagleray.learn.features.transforms import Inputs, Shape, Transforms, seen

__all__ = ["Inputs", "Shape", "Transforms", "reference", "seen"]
