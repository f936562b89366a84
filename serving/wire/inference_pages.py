"""Pages of the Open Inference Protocol v2: health, metadata, readiness; its form of errors."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

import eagleray
from eagleray import errors
from eagleray.bundle import Bundle
from serving.wire import inference

ROOT = "/v2"
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready))?/?")
SERVER = {
    "name": "eagleray",
    "version": eagleray.__version__,
    "extensions": ["binary_tensor_data"],
}


class Target(NamedTuple):
    """What a path below `/v2/models` names; `version` is None where it names none."""

    model: str
    version: str | None
    action: str | None  # infer, ready, or None for metadata


def owns(path: str) -> bool:
    """Whether the protocol defines what is at the path."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def target(path: str) -> Target | None:
    """What a path below `/v2/models` names; None for any other path."""
    match = _MODEL.fullmatch(path)
    return Target(*match.groups()) if match else None


def check(asked: Target, name: str, number: int | None) -> None:
    """RequestError 404 if another model or version is asked for than the one that serves."""
    if asked.model != name:
        law = f"the model served here is {name}, but got {asked.model[:100]!r}"
        raise errors.RequestError(law, status=404)
    if asked.version is not None and number is not None and asked.version != str(number):
        law = f"the version of {name} that serves is {number}, but got {asked.version[:100]!r}"
        raise errors.RequestError(law, status=404)


def metadata(version: Bundle) -> dict[str, Any]:
    """A version's inputs, one for each column, and its outputs."""
    columns = version.schema.columns
    made = inference.outputs(version.task)
    return {
        "name": version.name,
        "versions": [str(version.number)],
        "platform": "eagleray",
        "inputs": [_tensor(column.name, column.kind.tensor, [-1]) for column in columns],
        "outputs": [
            _tensor(name, output.datatype, [-1, output.width] if output.width else [-1])
            for name, output in made.items()
        ],
        "parameters": {name: output.names for name, output in made.items() if output.names},
    }


def restated(error: bytes) -> bytes:
    """An error of ours in the form of this protocol: one text, which names the field."""
    known = msgspec.json.decode(error)["error"]
    several = len(known.get("details") or ()) > 1
    field = "" if several or not known["field"] else f"{known['field']}: "
    return msgspec.json.encode({"error": f"{field}{known['message']}"})


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}
