"""What is watched of a training, rarely enough to cost little: layers, dead units, losses.

Layers are measured at one batch of an epoch, once in `APART` steps at most; dead
units at the validation rows that are evaluated anyway; losses of batches are seen together.

Legend: B batch, K configurations in one pass (1 for a trial alone), L layers, P parameters,
S sampled weights, U units.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eagleray import messages
from eagleray.state.watches import BINS, LOWEST, PER_DECADE, Row

MOST_EPOCHS = 32
"""Most epochs of a trial in which layers are measured, evenly spaced."""
APART = 64
"""Least steps between two epochs in which they are, but for the first and the last."""
MOST_LAYERS = 32
"""Most layers that are measured, evenly spaced."""
SAMPLE = 256
"""Weights of a layer that histograms and the size of the step are taken of, evenly spaced."""
FOLD = 1000
"""Batches whose losses are looked at together."""
NAMED = 3
"""Layers that a failure names."""

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over the workers of a group."""


def is_due(epoch: int, epochs: int, steps: int) -> bool:
    """Whether layers are measured in an epoch, from 1, of so many steps; in the first they are."""
    stride = max(math.ceil(epochs / MOST_EPOCHS), math.ceil(APART / steps))
    return epoch in (1, epochs) or epoch % stride == 0


def layers(model: nn.Module) -> dict[str, list[int]]:
    """The places among the model's parameters of those that each layer trains, in their order."""
    places = {id(one): place for place, one in enumerate(model.parameters())}
    found = {}
    for name, module in model.named_modules():
        own = [one for one in module.parameters(recurse=False) if one.requires_grad]
        if own:
            found[name or "model"] = [places[id(one)] for one in own]
    return found


class Begun(NamedTuple):
    """Layers before a step: squares of their gradients (K, L), and sampled weights (K, S)."""

    square_KL: Tensor
    weight_KS: Tensor


class Layers:
    """Measures the layers of a model at a step.

    Gradients and weights are those of all parameters, each with K in front; of a sharded model what
    this worker holds of them, and `total` sums over the workers.
    """

    def __init__(self, model: nn.Module, total: Total) -> None:
        every = layers(model)
        names = list(every)
        if len(names) > MOST_LAYERS:
            step = (len(names) - 1) / (MOST_LAYERS - 1)
            names = [names[round(place * step)] for place in range(MOST_LAYERS)]
        self._places, self._total = {name: every[name] for name in names}, total
        self._layer_S: Tensor | None = None  # of each sampled weight

    def begin(self, gradients: Sequence[Tensor | None], weights: Sequence[Tensor]) -> Begun:
        """Called before the step and before gradients are clipped."""
        filled = [
            torch.zeros_like(weight) if one is None else one
            for one, weight in zip(gradients, weights, strict=True)
        ]
        return Begun(self._squares(filled), self._sampled(weights))

    def end(self, begun: Begun, weights: Sequence[Tensor]) -> list[list[Row]]:
        """Called after the step: a row for each layer (epoch 0), for each of K."""
        size_KS = begun.weight_KS.abs()
        step_KS = (self._sampled(weights) - begun.weight_KS).abs()
        sums = [begun.square_KL, self._squares(weights)]
        sums += [self._by_layer(one.double().square()) for one in (step_KS, size_KS)]
        bins_KLN = self._histograms(torch.stack([size_KS, step_KS / size_KS], 1))
        found_KLN = self._total(torch.cat([torch.stack(sums, 2), bins_KLN], 2))
        return [self._rows(one) for one in found_KLN.tolist()]

    def _rows(self, found: Sequence[Sequence[float]]) -> list[Row]:
        rows = []
        for name, (gradient, weight, step, size, *counts) in zip(self._places, found, strict=True):
            histogram = [int(one) for one in counts]
            rows.append(
                Row(
                    epoch=0,
                    layer=name,
                    gradient=math.sqrt(gradient),
                    weight=math.sqrt(weight),
                    update=math.sqrt(step / size) if size else 0.0,
                    dead=None,
                    weights=histogram[:BINS],
                    updates=histogram[BINS:],
                )
            )
        return rows

    def _squares(self, tensors: Sequence[Tensor]) -> Tensor:
        """The sum of squares of each layer (K, L)."""
        each = []
        for places in self._places.values():
            norms = [torch.linalg.vector_norm(tensors[one].flatten(1), dim=1) for one in places]
            each.append(torch.stack(norms).double().square().sum(0))
        return torch.stack(each, 1)

    def _sampled(self, weights: Sequence[Tensor]) -> Tensor:
        """Some of the largest parameter of each layer (K, S)."""
        chosen = []
        for places in self._places.values():
            flat = max((weights[one] for one in places), key=torch.numel).flatten(1)
            chosen.append(flat[:, :: math.ceil(max(1, flat.shape[1]) / SAMPLE)])
        sampled_KS = torch.cat(chosen, 1)
        if self._layer_S is None:
            counts = torch.tensor([one.shape[1] for one in chosen])
            of_each = torch.arange(len(chosen)).repeat_interleave(counts)
            self._layer_S = of_each.to(sampled_KS.device)
        return sampled_KS

    def _by_layer(self, value_KS: Tensor) -> Tensor:
        """Sums by layer (K, L)."""
        assert self._layer_S is not None
        sum_KL = value_KS.new_zeros(len(value_KS), len(self._places))
        return sum_KL.index_add_(1, self._layer_S, value_KS)

    def _histograms(self, value_KHS: Tensor) -> Tensor:
        """How many values of each layer are in each bin of H histograms (K, L, N of all)."""
        assert self._layer_S is not None
        many, kinds, _ = value_KHS.shape
        count = len(self._places)
        bin_KHS = (value_KHS.log10_() - LOWEST).mul_(PER_DECADE).floor_().add_(1)
        bin_KHS = bin_KHS.nan_to_num_(nan=BINS, posinf=BINS, neginf=0).clamp_(0, BINS - 1).long()
        place_KH1 = torch.arange(many * kinds, device=value_KHS.device).reshape(many, kinds, 1)
        bin_KHS += (self._layer_S * (many * kinds) + place_KH1) * BINS
        counts = torch.bincount(bin_KHS.flatten(), minlength=count * many * kinds * BINS)
        return counts.reshape(count, many, kinds * BINS).transpose(0, 1).double()


class Firing:
    """Notes in its block which units of ReLUs give some row more than zero.

    A unit is an output of a row, or a channel of pictures. What `nn.ReLU` modules compute is seen,
    the function is not.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._behind = dict(_behind(model))  # the layer before each ReLU
        self._hooks: list[Any] = []
        self.found: dict[str, list[Tensor]] = {}  # by layer, each (U)

    def __enter__(self) -> "Firing":
        for name, layer in self._behind.items():
            module = self._model.get_submodule(name)
            self._hooks.append(module.register_forward_hook(self._noting(layer)))
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._hooks:
            one.remove()

    def take(self) -> dict[str, list[Tensor]]:
        """What was noted since the last call."""
        found, self.found = self.found, {}
        return found

    def _noting(self, layer: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(module: nn.Module, inputs: Any, output_BU: Tensor) -> None:  # noqa: ARG001
            pictures = (2, 3) if output_BU.dim() == 4 else ()
            self.found.setdefault(layer, []).append((output_BU > 0).sum((0, *pictures)))

        return note


def dead(fired: Mapping[str, Sequence[Tensor]], total: Total) -> dict[str, float]:
    """The part of the units of each layer that never fired, of counts (U)."""
    found = {}
    for layer, counts in fired.items():
        every = total(torch.cat([one.flatten() for one in counts]))
        found[layer] = float((every == 0).double().mean())
    return found


def filled(rows: Sequence[Row], epoch: int, shares: Mapping[str, float]) -> list[Row]:
    """Rows of an epoch with the parts of dead units."""
    return [one._replace(epoch=epoch, dead=shares.get(one.layer)) for one in rows]


class Losses:
    """The losses of an epoch's batches: the largest, and the first that is not finite.

    `batches` were done before, of which `peaks` and `broken` are known.
    """

    def __init__(
        self,
        total: Total,
        batches: int = 0,
        peaks: Sequence[float | None] = (),
        broken: Sequence[int | None] = (),
    ) -> None:
        self._total, self._done = total, batches
        self._peaks, self._broken = list(peaks), list(broken)
        self._sums: list[Tensor] = []
        self._rows: list[int] = []

    def add(self, loss_K: Tensor, rows: int) -> None:
        """Add a batch: the sum of its rows' losses, or one for each of K."""
        self._sums.append(loss_K)
        self._rows.append(rows)
        if len(self._sums) == FOLD:
            self._fold()

    def found(self) -> tuple[list[float | None], list[int | None]]:
        """For each of K the largest finite mean of a batch, and the first batch that has none.

        Batches are counted from 1.
        """
        self._fold()
        return self._peaks, self._broken

    def _fold(self) -> None:
        if not self._sums:
            return
        sum_NK = self._total(torch.stack(self._sums)).reshape(len(self._sums), -1)
        mean_NK = sum_NK / torch.tensor(self._rows, device=sum_NK.device)[:, None]
        fine_NK = mean_NK.isfinite()
        peaks = mean_NK.where(fine_NK, -math.inf).amax(0).tolist()
        fine = fine_NK.all(0).tolist()
        first = (~fine_NK).long().argmax(0).tolist()
        self._peaks = self._peaks or [None] * len(peaks)
        self._broken = self._broken or [None] * len(peaks)
        for k, peak in enumerate(peaks):
            known = self._peaks[k]
            if peak > -math.inf:
                self._peaks[k] = peak if known is None else max(known, peak)
            if not fine[k] and self._broken[k] is None:
                self._broken[k] = self._done + first[k] + 1
        self._done += len(self._sums)
        self._sums, self._rows = [], []


@torch.no_grad()
def blame(model: nn.Module, inputs: dict[str, Tensor]) -> str:
    """Where what is not finite comes from: weights, or outputs of a layer at finite weights."""
    weights = list(model.parameters())
    broken = [
        name
        for name, places in layers(model).items()
        if not all(bool(weights[one].isfinite().all()) for one in places)
    ]
    if broken:
        return f"weights of {messages.listed(broken, NAMED)} are not finite"
    found: list[str] = []

    def noting(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            if isinstance(output, Tensor) and not bool(output.isfinite().all()):
                found.append(name)

        return note

    hooks = [
        module.register_forward_hook(noting(name)) for name, module in model.named_modules() if name
    ]
    try:
        model(inputs)
    finally:
        for one in hooks:
            one.remove()
    if found:
        return f"the output of {found[0]} is not finite"
    return "of outputs that are finite"


def _behind(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Each ReLU, and the last layer with weights before it."""
    last = None
    trained = layers(model)
    for name, module in model.named_modules():
        if name in trained:
            last = name
        elif isinstance(module, nn.ReLU) and last is not None:
            yield name, last
