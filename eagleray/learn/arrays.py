"""Arrays as tensors."""

import warnings

import numpy as np
import torch


def tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the array's memory, which is read-only in Ray's object store."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)
