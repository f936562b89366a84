"""Inputs of models with transforms of their own, side by side.

Those of the first transforms have their usual names, those of the others `{place}/{name}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eagleray.learn.features.transforms import Inputs, Transforms

if TYPE_CHECKING:
    from eagleray.learn import schema

_SEPARATOR = "/"


def apply(others: Sequence[Transforms], columns: schema.Columns) -> Inputs:
    """Encode B rows by all transforms but the first."""
    return {
        f"{place}{_SEPARATOR}{name}": array
        for place, one in enumerate(others, 1)
        for name, array in one.apply(columns).items()
    }


def of(inputs: Inputs, place: int) -> Inputs:
    """The inputs that the transforms at a place have given, by their usual names."""
    if place == 0:
        return {name: inputs[name] for name in inputs if not _is_numbered(name)}
    prefix = f"{place}{_SEPARATOR}"
    return {name.removeprefix(prefix): inputs[name] for name in inputs if name.startswith(prefix)}


def state(
    others: Sequence[Transforms],
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Values for JSON, and tensors by path; see `Transforms.state`."""
    found = [one.state() for one in others]
    tensors = {
        f"{place}{_SEPARATOR}{path}": array
        for place, (_, own) in enumerate(found, 1)
        for path, array in own.items()
    }
    return [values for values, _ in found], tensors


def from_state(
    states: Sequence[Mapping[str, Any]],
    tensors: Mapping[str, np.ndarray],
    files: Mapping[str, bytes],
) -> tuple[Transforms, ...]:
    """The transforms of what `state` gave; other tensors are left out."""
    return tuple(
        Transforms.from_state(one, of(dict(tensors), place), files)
        for place, one in enumerate(states, 1)
    )


def _is_numbered(name: str) -> bool:
    return name.partition(_SEPARATOR)[0].isdigit()
