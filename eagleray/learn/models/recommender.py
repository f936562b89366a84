"""`recommender`: a user's vector times an item's, and the item's popularity.

The vector of a user is the sum of one that is learned for the user, of one that follows from what
the user has chosen (as in SVD++, Koren 2008, and FISM, Kabbur et al. 2013), and of one that follows
from the other columns of a row. A row's own item is left out of what its user has chosen, and no
other such item is compared with it. Part of the training rows hide their user, so that the other
columns alone speak for users who are unknown.

Legend: B rows, D factors, I items, N drawn items or choices.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from eagleray.learn import features
from eagleray.learn.histories import Histories
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
        self.taken = nn.Embedding(outputs, options.factors)  # what a chosen item says of its user
        none = np.zeros(0, np.int64)
        self.remember(Histories.of(none, none, self.users.num_embeddings + 1))
        for table in (self.users, self.items, self.taken):
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

    def remember(self, chosen: Histories) -> None:
        """Take what users have chosen; vectors follow from it from now on."""
        self.chosen = chosen

    def vectors(self, inputs: dict[str, Tensor]) -> Tensor:
        """Vectors of the rows' users (B, D)."""
        return self._vectors(inputs, self._histories(inputs, self.numbers(inputs)))

    def item_vectors(self, item_N: Tensor | slice = slice(None)) -> Tensor:
        """Vectors of some items (N, D), of all by default."""
        own_ND = self.items.weight[item_N]
        if self.described is None:
            return own_ND
        held = self.named_buffers(recurse=False)
        inputs = {name.removeprefix("item_"): one[item_N] for name, one in held}
        given_ND: Tensor = self.described(torch.cat(self.kinds(inputs), 1))
        return own_ND + given_ND

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        number_B, target_B = self.numbers(inputs), inputs["target"]
        if self.training and self.columns is not None and self._hidden:
            number_B = number_B * (torch.rand(len(number_B)) >= self._hidden)
        before = self._histories(inputs, number_B)
        user_BD, drawn_N = self._vectors(inputs, before), self._drawn()
        own_B = (user_BD * self.item_vectors(target_B)).sum(1) + self.popularity[target_B]
        others_BN = user_BD @ self.item_vectors(drawn_N).T + self.popularity[drawn_N]
        never_BN = before.among(drawn_N, len(self.popularity)) | (drawn_N == target_B[:, None])
        return torch.cat([own_B[:, None], others_BN.masked_fill(never_BN, NEVER)], 1)

    def _vectors(self, inputs: dict[str, Tensor], before: "_Before") -> Tensor:
        own_BD = self.users((before.number_B - 1).clamp(min=0))
        own_BD = own_BD * (before.number_B > 0)[:, None] + before.summed(self.taken.weight)
        if self.columns is not None:
            rest = {**inputs, "categories": inputs["categories"][:, :-1]}
            own_BD = own_BD + self.columns(torch.cat(self.tabular(rest), 1))
        vectors_BD: Tensor = self.dropout(own_BD)
        return vectors_BD

    def _histories(self, inputs: dict[str, Tensor], number_B: Tensor) -> "_Before":
        """What the rows' users have chosen beside the rows' own items, which are to be found."""
        row_N, item_N = map(torch.from_numpy, self.chosen.places(number_B.numpy()))
        if self.training:
            beside = item_N != inputs["target"][row_N]
            row_N, item_N = row_N[beside], item_N[beside]
        return _Before(number_B, row_N, item_N)

    def _drawn(self) -> Tensor:
        """All items, or so many at even chances; outside of training always the same."""
        count = len(self.popularity)
        if self._negatives >= count:
            return torch.arange(count)
        if not self.training:
            return torch.linspace(0, count - 1, self._negatives).long()
        return torch.randint(count, (self._negatives,))


class _Before(NamedTuple):
    """The users of B rows, and their N choices: the row of each, ascending, and its item."""

    number_B: Tensor
    row_N: Tensor
    item_N: Tensor

    def summed(self, weight_ID: Tensor) -> Tensor:
        """The sum of the items' vectors by row (B, D), over the root of their number."""
        count_B = torch.bincount(self.row_N, minlength=len(self.number_B))
        first_B = count_B.cumsum(0) - count_B
        sum_BD = functional.embedding_bag(self.item_N, weight_ID, first_B, mode="sum")
        return sum_BD / count_B.clamp(min=1).sqrt()[:, None]

    def among(self, drawn_N: Tensor, items: int) -> Tensor:
        """Whether each drawn item was chosen by each row's user (B, N)."""
        chosen_BN = torch.zeros(len(self.number_B), len(drawn_N), dtype=torch.bool)
        place_I = torch.full((items,), -1)
        place_I[drawn_N] = torch.arange(len(drawn_N))
        place_N = place_I[self.item_N]
        chosen_BN[self.row_N[place_N >= 0], place_N[place_N >= 0]] = True
        return chosen_BN
