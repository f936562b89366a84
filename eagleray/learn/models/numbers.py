"""Embeddings of numbers (Gorishniy et al. 2022, arXiv:2203.05556), by `rtdl_num_embeddings`.

Legend: B batch, F numbers, N training rows.
"""

import warnings

import rtdl_num_embeddings as rtdl
import torch
from torch import Tensor, nn

from eagleray.learn.models import layers, options

FINEST = 1e-5
"""Least length of a bin beside its ends: shorter ones are lost in float32."""


def build(options: options.TabM | options.Mlp, count: int, size: int) -> nn.Module:
    """The embedding of so many numbers that `options.numbers` names, `size` numbers for each."""
    if options.numbers == "periodic":
        waves: nn.Module = rtdl.PeriodicEmbeddings(
            count,
            size,
            n_frequencies=options.frequencies,
            frequency_init_scale=options.frequency_scale,
            lite=False,
        )
        return waves
    if options.numbers == "piecewise":
        return Piecewise(count, options.bins, size)
    return nn.Identity()


class Piecewise(layers.Fitted):
    """Piecewise-linear embeddings; the bins are buffers, and so are saved with the weights.

    A number with fewer bins than the most has zeros in their place.
    """

    def __init__(self, count: int, bins: int, size: int) -> None:
        super().__init__()
        even = [torch.arange(bins + 1.0)] * count
        self.embedding = rtdl.PiecewiseLinearEmbeddings(even, size, activation=False, version="B")
        single_F = torch.zeros(count, dtype=torch.bool)
        self.embedding.impl.register_buffer("single_bin_mask", single_F)

    @torch.no_grad()
    def fit(self, inputs: dict[str, Tensor]) -> None:
        own = self.embedding.impl
        bins = own.weight.shape[1]
        edges = [_edges(column_N, bins) for column_N in inputs["numeric"].cpu().T]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a number with one bin, which an indicator has
            made = rtdl.PiecewiseLinearEmbeddings(edges, 1, activation=False, version="B").impl
        for mine, other in ((own.weight, made.weight), (own.bias, made.bias)):
            mine.zero_()
            mine[:, : other.shape[1] - 1] = other[:, :-1]
            mine[:, -1] = other[:, -1]
        own.single_bin_mask.copy_(torch.tensor([len(one) == 2 for one in edges]))

    def forward(self, numeric_BF: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(numeric_BF)
        return embedded


def _edges(values_N: Tensor, bins: int) -> Tensor:
    """Edges of at most so many bins of one number; at least two edges.

    A value that more rows share than a bin has is an edge; of all others the quantiles are, so that
    such values take no bins from them.
    """
    low, high = values_N.aminmax()
    ends = torch.stack([low, high])
    if not _apart(ends).all():
        return torch.stack([low, low + low.abs().clamp(min=1.0)])
    distinct, place_N, counts = values_N.unique(return_inverse=True, return_counts=True)
    shared = counts * bins > len(values_N)
    kept = distinct[shared]
    left = bins - len(kept)
    found = torch.cat([ends, kept, _quantiles(values_N[~shared[place_N]], left)]).unique()
    apart = torch.cat([torch.tensor([True]), _apart(found)])
    apart[-1] = True
    edges = found[apart]
    return edges if _apart(edges).all() else ends


def _quantiles(values_N: Tensor, bins: int) -> Tensor:
    """Edges of so many bins at quantiles; none where there are not as many values."""
    few = bins < 2 or len(values_N) <= bins
    if few or bool((values_N == values_N[0]).all()):
        return values_N[:0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one bin
        edges: Tensor = rtdl.compute_bins(values_N[:, None], n_bins=bins)[0]
    return edges


def _apart(edges: Tensor) -> Tensor:
    """Whether each edge but the first lies far enough from the one before."""
    larger = torch.maximum(edges[1:].abs(), edges[:-1].abs())
    return edges.diff() > FINEST * larger.clamp(min=1e-6)
