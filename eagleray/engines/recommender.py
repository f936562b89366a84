"""`recommender`: the best items for each row's user, without those that the user has chosen.

Scores of all items are one product of matrices; `learn.tasks.ranking` says what a row's outputs
are. An unknown user is judged by the other columns; if there are none, by popularity.

Legend: B rows, C outputs, D factors, I items, K places, U users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import numpy as safe_numpy
from safetensors import torch as safe_torch
from torch import Tensor

from eagleray.engines import placement
from eagleray.learn import arrays, features, models
from eagleray.learn.histories import Histories
from eagleray.learn.models.recommender import Recommender as Module
from eagleray.learn.tasks.ranking import MOST_PLACES

WEIGHTS, CHOSEN = "model.safetensors", "chosen.safetensors"
MOST_CELLS = 4_000_000
"""Maximum number of scores (rows times items) that are held at once."""
FEW = 64
"""Up to so many rows are computed as they are; of more, equal ones once."""


class Recommender:
    """A module on the CPU, and what each user has chosen.

    A `trains` module changes between two calls; of others the vectors of items are computed once.
    """

    name: ClassVar[str] = "recommender"
    chunk = 1 << 20

    def __init__(
        self,
        options: models.Options,
        module: Module,
        chosen: Histories | None = None,
        *,
        trains: bool = False,
    ) -> None:
        self.options, self.module = options, module.eval()
        self.tolerance = placement.TOLERANCES["fp32"]
        self._items = len(module.popularity)
        with torch.inference_mode():
            self._item_ID = None if trains else module.item_vectors()
        self._keep(module.chosen if chosen is None else chosen)

    @classmethod
    def load(
        cls,
        described: Mapping[str, Any],
        files: Mapping[str, bytes],
        shape: features.Shape,
        outputs: int,
    ) -> Recommender:
        options = models.parse(described["model"])
        module = models.build(options, shape, outputs)
        module.load_state_dict(safe_torch.load(files[WEIGHTS]))
        assert isinstance(module, Module)
        return cls(options, module, Histories(**safe_numpy.load(files[CHOSEN])))

    def run(self, inputs: features.Inputs) -> np.ndarray:
        return self._run(inputs, self._scores)

    def describe(self) -> dict[str, Any]:
        return {"model": self.options.model_dump(mode="json")}

    def files(self) -> dict[str, bytes]:
        state = {name: one.contiguous() for name, one in self.module.state_dict().items()}
        chosen = {"starts": self.module.chosen.starts, "items": self.module.chosen.items}
        return {WEIGHTS: safe_torch.save(state), CHOSEN: safe_numpy.save(chosen)}

    def remember(self, inputs: features.Inputs, target_B: np.ndarray) -> None:
        """Leave these items out of all later lists of the rows' users."""
        number_B = self.module.numbers(_tensors(inputs)).numpy()
        known_B = number_B > 0
        self._keep(self.module.chosen.joined(number_B[known_B], target_B[known_B]))

    def forget(self) -> None:
        """Forget what users have chosen."""
        none = np.zeros(0, np.int64)
        self._keep(Histories.of(none, none, len(self.module.chosen.starts) - 1))

    def baselines(self) -> dict[str, Callable[[features.Inputs], np.ndarray]]:
        """Outputs of plain recommenders, which leave out the same items."""
        return {"popularity": lambda inputs: self._run(inputs, self._popular)}

    def _keep(self, chosen: Histories) -> None:
        """Popularity is the number of users, with the first of equal items first."""
        self.module.remember(chosen)
        counts_I = chosen.counts(self._items)
        first_I = np.arange(self._items) / self._items
        self._popular_I = torch.from_numpy(np.log1p(counts_I) - 1e-5 * first_I).float()
        self._known_I = torch.from_numpy(counts_I > 0) if counts_I.any() else None

    def _run(
        self, inputs: features.Inputs, scores: Callable[[dict[str, Tensor]], Tensor]
    ) -> np.ndarray:
        place_B = None
        if len(inputs["categories"]) > FEW:
            inputs, place_B = _distinct(inputs)
        step = max(1, MOST_CELLS // self._items)
        rows = range(0, max(1, len(inputs["categories"])), step)
        parts = ({name: one[at : at + step] for name, one in inputs.items()} for at in rows)
        with torch.inference_mode():
            lists = np.concatenate([self._lists(_tensors(part), scores) for part in parts])
        return lists if place_B is None else lists[place_B]

    def _lists(
        self, inputs: dict[str, Tensor], scores: Callable[[dict[str, Tensor]], Tensor]
    ) -> np.ndarray:
        """The best of those items that are known and not chosen."""
        number_B, score_BI = self.module.numbers(inputs), scores(inputs)
        if self._known_I is not None:
            score_BI.masked_fill_(~self._known_I, -torch.inf)
        row_N, item_N = self.module.chosen.places(number_B.numpy())
        score_BI[torch.from_numpy(row_N), torch.from_numpy(item_N)] = -torch.inf
        best_BK, item_BK = score_BI.topk(min(MOST_PLACES, self._items))
        none_BK = best_BK == -torch.inf
        best_BK, item_BK = best_BK.masked_fill(none_BK, 0.0), item_BK.masked_fill(none_BK, -1)
        if self.module.columns is None:
            number_B = number_B - (number_B == 0).long()
        raw_BC = torch.cat([best_BK.double(), item_BK.double(), number_B[:, None].double()], 1)
        raw: np.ndarray = raw_BC.numpy()
        return raw

    def _scores(self, inputs: dict[str, Tensor]) -> Tensor:
        module = self.module
        item_ID = self._item_ID if self._item_ID is not None else module.item_vectors()
        score_BI = torch.addmm(module.popularity, module.vectors(inputs), item_ID.T)
        if module.columns is None:
            unknown_B = module.numbers(inputs) == 0
            score_BI[unknown_B] = self._popular_I
        return score_BI

    def _popular(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._popular_I.repeat(len(inputs["categories"]), 1)


def _tensors(inputs: features.Inputs) -> dict[str, Tensor]:
    return {name: arrays.tensor(array) for name, array in inputs.items()}


def _distinct(inputs: features.Inputs) -> tuple[features.Inputs, np.ndarray]:
    """Rows without repeats, and for each row (B) its place among them."""
    cells = [np.ascontiguousarray(one).view(np.int32) for one in inputs.values()]
    _, first, place_B = np.unique(
        np.concatenate(cells, 1), axis=0, return_index=True, return_inverse=True
    )
    return {name: one[first] for name, one in inputs.items()}, place_B.reshape(-1)
