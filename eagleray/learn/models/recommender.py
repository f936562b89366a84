"""`recommender`: a user's vector times an item's, and the item's popularity.

The vector of a user is learned for the user, and added to one that follows from the other columns
of a row. Part of the training rows hide their user, so that the other columns alone speak for users
who are unknown.

Legend: B rows, D factors, I items, N drawn items.
"""

import dataclasses

import torch
from torch import Tensor, nn

from eagleray.learn import features
from eagleray.learn.models import layers, options

FIRST_DEVIATION = 0.1
"""Of the first vectors, times the root of D."""
NEVER = -1e9
"""Score of a drawn item that is the row's own."""


class Recommender(layers.Fitted, layers.Sampled):
    """See `layers.Sampled` for what it gives; `vectors` and `items` give all scores."""

    def __init__(self, options: options.Recommender, shape: features.Shape, outputs: int) -> None:
        super().__init__()
        self._first = shape.table - shape.users  # of the user's rows: missing, unknown, each user
        self._negatives, self._hidden = options.negatives, options.unknown
        others = dataclasses.replace(
            shape, categories=shape.categories - 1, table=self._first, users=0
        )
        self.users = nn.Embedding(max(1, shape.users - 2), options.factors)
        self.items = nn.Embedding(outputs, options.factors)
        self.popularity = nn.Parameter(torch.zeros(outputs))
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=FIRST_DEVIATION * options.factors**-0.5)
        self.tabular = layers.Tabular(others, options.embedding)
        width = self.tabular.width
        self.columns = (
            layers.head(width, options.hidden, options.factors, dropout=options.dropout)
            if width
            else None
        )
        self.dropout = nn.Dropout(options.dropout)
        self.described: nn.Module | None = None
        if shape.items is not None:
            self.kinds = layers.Tabular(shape.items, options.embedding)
            self.described = layers.head(
                self.kinds.width, options.hidden, options.factors, dropout=options.dropout
            )
            numeric_IF = torch.zeros(outputs, shape.items.numeric)
            category_IK = torch.zeros(outputs, shape.items.categories, dtype=torch.int32)
            self.register_buffer("item_numeric", numeric_IF)
            self.register_buffer("item_categories", category_IK)

    @torch.no_grad()
    def describe(self, inputs: dict[str, Tensor]) -> None:
        """Take what describes each item: `numeric` (I, F) and `categories` (I, K)."""
        for name, value in inputs.items():
            self.get_buffer(f"item_{name}").copy_(value)

    @torch.no_grad()
    def fit(self, inputs: dict[str, Tensor]) -> None:
        """Begin with the logarithm of how often each item was chosen."""
        counts_I = torch.bincount(inputs["target"], minlength=len(self.popularity))
        logs_I = (counts_I + 1.0).log()
        self.popularity.copy_(logs_I - logs_I.mean())

    def numbers(self, inputs: dict[str, Tensor]) -> Tensor:
        """The number of each row's user, from 1 on; 0 for none who is known."""
        number_B: Tensor = inputs["categories"][:, -1].long() - (self._first + 1)
        return number_B.clamp(min=0)

    def vectors(self, inputs: dict[str, Tensor]) -> Tensor:
        """Vectors of the rows' users (B, D)."""
        number_B = self.numbers(inputs)
        if self.training and self.columns is not None and self._hidden:
            shown_B = torch.rand(len(number_B), device=number_B.device) >= self._hidden
            number_B = number_B * shown_B
        own_BD = self.users((number_B - 1).clamp(min=0)) * (number_B > 0)[:, None]
        if self.columns is not None:
            rest = {**inputs, "categories": inputs["categories"][:, :-1]}
            own_BD = own_BD + self.columns(torch.cat(self.tabular(rest), 1))
        vectors_BD: Tensor = self.dropout(own_BD)
        return vectors_BD

    def item_vectors(self, item_N: Tensor | slice = slice(None)) -> Tensor:
        """Vectors of some items (N, D), of all by default."""
        own_ND = self.items.weight[item_N]
        if self.described is None:
            return own_ND
        inputs = {
            "numeric": self.get_buffer("item_numeric")[item_N],
            "categories": self.get_buffer("item_categories")[item_N],
        }
        given: Tensor = self.described(torch.cat(self.kinds(inputs), 1))
        return own_ND + given

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        user_BD, target_B = self.vectors(inputs), inputs["target"]
        drawn_N = self._drawn(target_B.device)
        own_B = (user_BD * self.item_vectors(target_B)).sum(1) + self.popularity[target_B]
        others_BN = user_BD @ self.item_vectors(drawn_N).T + self.popularity[drawn_N]
        others_BN = others_BN.masked_fill(drawn_N == target_B[:, None], NEVER)
        return torch.cat([own_B[:, None], others_BN], 1)

    def _drawn(self, device: torch.device) -> Tensor:
        """All items, or so many at even chances; outside of training always the same."""
        count = len(self.popularity)
        if self._negatives >= count:
            return torch.arange(count, device=device)
        if not self.training:
            return torch.linspace(0, count - 1, self._negatives, device=device).long()
        return torch.randint(count, (self._negatives,), device=device)
