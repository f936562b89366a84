"""Values of the chart, for tests of several tiers."""

from collections.abc import Mapping
from typing import Any


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with some changed, key by key; a list is replaced as a whole, as Helm does."""
    out = dict(values)
    for key, value in changes.items():
        old = out.get(key)
        deeper = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[key] = merged(dict(old or {}), value) if deeper else value
    return out
