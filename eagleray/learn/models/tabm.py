"""`tabm`: an ensemble of MLPs that share most of their weights, over embeddings of numbers.

TabM (Gorishniy et al. 2025, arXiv:2410.24210) trains K members in one pass: the loss is the mean of
theirs, the prediction the mean of their probabilities, or of their values.

Legend: B batch, C outputs, F numbers, K members, N training rows.
"""

import math

import tabm
import torch
from torch import Tensor

from eagleray.learn import features
from eagleray.learn.models import layers, numbers, options


class TabM(layers.Ensemble):
    """Numbers embedded, categories one-hot, text as a bag of tokens, image flattened."""

    def __init__(self, options: options.TabM, shape: features.Shape, outputs: int) -> None:
        super().__init__()
        count, size = shape.numeric, options.embedding
        self.numbers = numbers.build(options, count, size) if count else None
        self.bag = layers.TokenBag(shape, options.width) if shape.tokens else None
        self._rows, self.members = shape.table, options.members
        embedded = self.numbers is not None and options.numbers != "none"
        sizes = [options.embedding if embedded else 1] * shape.numeric  # each is scaled as one
        sizes += [1] * shape.table
        sizes += [options.width] if shape.tokens else []
        sizes += [1] * math.prod(shape.image or (0,))
        self.backbone = tabm.make_tabm_backbone(
            d_in=sum(sizes),
            n_blocks=options.blocks,
            d_block=options.width,
            dropout=options.dropout,
            k=options.members,
            start_scaling_init="normal" if embedded else "random-signs",
            start_scaling_init_chunks=sizes,
        )
        self.head = tabm.LinearEnsemble(options.width, outputs, k=options.members)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits (B, C) of the ensemble; in training, logits (B K, C) of its K members."""
        one = torch.cat(self._parts(inputs), 1)
        output_BKC = self.head(self.backbone(one[:, None].expand(-1, self.members, -1)))
        if self.training:
            each: Tensor = output_BKC.flatten(0, 1)
            return each
        if self.values or output_BKC.shape[2] == 1:
            values_BC: Tensor = output_BKC.mean(1)
            return values_BC
        # logits whose softmax is the mean of the members'
        logits_BC: Tensor = output_BKC.log_softmax(2).logsumexp(1) - math.log(self.members)
        return logits_BC

    def _parts(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        parts = []
        if self.numbers is not None:
            parts.append(self.numbers(inputs["numeric"]).flatten(1))
        if self._rows:
            row_BK = inputs["categories"].long()
            count = row_BK.shape[0]  # which a graph of ONNX sees, unlike `len`
            none = torch.zeros(count, self._rows, device=row_BK.device)
            parts.append(none.scatter(1, row_BK, 1.0))
        if self.bag is not None:
            parts.append(self.bag(inputs))
        if "image" in inputs:
            parts.append(inputs["image"].flatten(1))
        return parts
