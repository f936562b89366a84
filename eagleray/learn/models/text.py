"""`text`: tokens pooled by weight and by learned attention, then dense layers."""

import torch
from torch import Tensor, nn

from eagleray.learn import features
from eagleray.learn.models import layers, options


class TextNet(nn.Module):
    """A bag of tokens beside an attention pooling that learns which tokens matter.

    The bag alone is fastText's classifier (Joulin et al. 2016, arXiv:1607.01759); the attention is
    the pooling of hierarchical attention networks (Yang et al. 2016) without recurrence.
    """

    def __init__(self, options: options.Text, shape: features.Shape, outputs: int) -> None:
        super().__init__()
        self.tabular = layers.Tabular(shape, 8)
        self.bag = layers.TokenBag(shape, options.embedding)
        self.attention = nn.Sequential(
            nn.Linear(options.embedding, options.embedding),
            nn.Tanh(),
            nn.Linear(options.embedding, 1),
        )
        width = self.tabular.width + 2 * options.embedding
        self.head = layers.head(width, options.hidden, outputs, dropout=options.dropout)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        tokens_BTE = nn.functional.embedding(inputs["tokens"], self.bag.bag.weight)
        empty_BT1 = (inputs["tokens"] == 0).unsqueeze(-1)
        score_BT1 = self.attention(tokens_BTE).masked_fill(empty_BT1, -1e9)
        pooled_BE = (score_BT1.softmax(1) * tokens_BTE).sum(1)
        logits_BC: Tensor = self.head(
            torch.cat([*self.tabular(inputs), self.bag(inputs), pooled_BE], 1)
        )
        return logits_BC
