"""A module of torch as a graph of ONNX Runtime, where a measurement at load says that it pays.

Legend: B rows, C outputs.
"""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from eagleray.engines.onnx import session
from eagleray.engines.torch import Torch
from eagleray.learn import arrays, features

log = logging.getLogger("ray.serve")  # a replica's log

PAYS = 0.8  # largest share of torch's time; below it lies the noise of a busy machine
REPEATS = 30
UNKNOWN = "tokens"  # an input whose layer the exporter refuses, and prints the whole graph
_OUTPUT = "outputs"
_OPSET = 17


class Graph:
    """The graph of a module."""

    def __init__(self, module: torch.nn.Module, inputs: features.Inputs) -> None:
        self._session = session(_graph(module, inputs))
        self._names = [one.name for one in self._session.get_inputs()]

    def run(self, inputs: features.Inputs) -> np.ndarray:
        """Raw outputs (B, C) of B rows."""
        taken = {name: inputs[name] for name in self._names}
        raw: np.ndarray = self._session.run([_OUTPUT], taken)[0].astype(np.float64)
        return raw


def choose(engine: Torch, inputs: features.Inputs, *, where: str) -> None:
    """Give the engine a graph if it is faster on these rows, one and all, with the same outputs.

    The log says which, and why. The user's own code runs in torch alone.
    """
    if engine.custom is not None or not engine.is_plain:
        return
    if UNKNOWN in inputs:
        log.info("%s: runs in torch: ONNX has no bags of %s with a padding", where, UNKNOWN)
        return
    try:
        graph = Graph(engine.module, inputs)
        off = max(_off(graph.run(some), engine.run(some)) for some in _sizes(inputs))
    except Exception as cause:  # noqa: BLE001 - an exporter refuses what it does not know by any
        why = (str(cause).splitlines() or [repr(cause)])[0]
        log.info("%s: runs in torch, since it has no graph of ONNX: %s", where, why)
        return
    if not off <= engine.tolerance:
        log.info("%s: runs in torch, since ONNX Runtime is off by %.2g", where, off)
        return
    times = [(_seconds(graph.run, some), _seconds(engine.run, some)) for some in _sizes(inputs)]
    pays = all(one <= PAYS * other for one, other in times)
    shown = ", ".join(f"{one * 1e6:.0f} µs against {other * 1e6:.0f}" for one, other in times)
    chosen = "ONNX Runtime" if pays else "torch"
    log.info("%s: runs in %s: a row, then all golden rows in %s of torch", where, chosen, shown)
    engine.graph = graph if pays else None


def _graph(module: torch.nn.Module, inputs: features.Inputs) -> bytes:
    names, packed = list(inputs), io.BytesIO()
    axes = {name: {0: "rows"} for name in (*names, _OUTPUT)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter itself: docs/adr/0033
        torch.onnx.export(
            _ByPlace(module, names),
            tuple(arrays.tensor(value) for value in inputs.values()),
            packed,  # type: ignore[arg-type] # a file
            input_names=names,
            output_names=[_OUTPUT],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    return packed.getvalue()


class _ByPlace(torch.nn.Module):
    """A module that takes its inputs one by one."""

    def __init__(self, module: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self._module, self._names = module, names
        self.eval()

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self._module(dict(zip(self._names, inputs, strict=True)))
        return outputs


def _sizes(inputs: features.Inputs) -> list[features.Inputs]:
    """One row, and all."""
    return [{name: value[:1] for name, value in inputs.items()}, inputs]


def _off(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(got - expected) / np.maximum(1.0, np.abs(expected))))


def _seconds(run: Callable[[features.Inputs], np.ndarray], inputs: features.Inputs) -> float:
    """The shortest of several runs: others on this machine only make them longer."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        run(inputs)
        best = min(best, time.perf_counter() - started)
    return best
