"""`torch`: modules that EagleRay has trained, and the user's own. Legend: B rows, C outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from safetensors import torch as safe_torch

from eagleray import code
from eagleray.engines import placement
from eagleray.learn import arrays, features, models
from eagleray.learn.models import layers

if TYPE_CHECKING:
    from eagleray.engines.exported import Graph

WEIGHTS = "model.safetensors"
CHUNKS = {"cpu": 1024, "cuda": 65_536}
"""Rows of one pass by device; docs/adr/0033 has what was measured."""
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Torch:
    """A module on the device of this process; its weights stay float32, see `placement`."""

    name: ClassVar[str] = "torch"

    def __init__(
        self, options: models.Options, module: torch.nn.Module, custom: code.Code | None = None
    ) -> None:
        place = placement.now()
        self.options, self.custom = options, custom
        self._device = torch.device(place.device)
        self.module = module.eval().to(self._device)
        self.chunk, self.tolerance = CHUNKS[place.device], placement.TOLERANCES[place.precision]
        self._half = _HALVES.get(place.precision)
        self.graph: Graph | None = None  # in place of the module, see `exported`
        self.is_plain = place.device == "cpu" and self._half is None

    @classmethod
    def load(
        cls,
        described: Mapping[str, Any],
        files: Mapping[str, bytes],
        shape: features.Shape,
        outputs: int,
    ) -> Torch:
        options = models.parse(described["model"])
        custom = code.from_files(described["code"]["name"], files) if described["code"] else None
        values = described.get("values", False)
        module = models.build(options, shape, outputs, values=values, custom=custom)
        module.load_state_dict(safe_torch.load(files[WEIGHTS]))
        return cls(options, module, custom)

    def run(self, inputs: features.Inputs) -> np.ndarray:
        if self.graph is not None:
            return self.graph.run(inputs)
        tensors = {name: arrays.tensor(array) for name, array in inputs.items()}
        with torch.inference_mode():
            raw_BC = self.module(tensors) if self.is_plain else self._run_placed(tensors)
        raw: np.ndarray = raw_BC.double().numpy()
        return raw

    def describe(self) -> dict[str, Any]:
        named = {"name": self.custom.name} if self.custom else None
        averaged = isinstance(self.module, layers.Ensemble) and self.module.values
        values = {"values": True} if averaged else {}
        return {"model": self.options.model_dump(mode="json"), "code": named, **values}

    def files(self) -> dict[str, bytes]:
        state = self.module.state_dict()
        weights = {name: value.cpu().contiguous() for name, value in state.items()}
        source = {self.custom.path: self.custom.source.encode()} if self.custom else {}
        return {WEIGHTS: safe_torch.save(weights), **source}

    def _run_placed(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Run on the device, from pinned memory, in the precision of this process."""
        if self._device.type == "cuda":
            pinned = {name: value.pin_memory() for name, value in tensors.items()}
            tensors = {k: v.to(self._device, non_blocking=True) for k, v in pinned.items()}
        half = self._half or torch.bfloat16
        with torch.autocast(self._device.type, half, enabled=self._half is not None):
            raw_BC: torch.Tensor = self.module(tensors)
        return raw_BC.float().cpu()
