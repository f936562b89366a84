"""Distributions, which may stand for values in the experiment file, and trees of them.

All values are valid if the `ends` are, which come with their places in `arguments`. Bounds are
those of ray.tune: `randint` leaves its upper end out, `quniform` includes both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeGuard

from eagleray.spec.document import Key

if TYPE_CHECKING:
    import optuna

Tree = dict[str, Any]  # the file's value with distributions in their places

_LAWS = {
    "choice": "a list of at least one value, each once",
    "uniform": "[low, high], two numbers with low < high",
    "loguniform": "[low, high], two numbers with 0 < low < high",
    "randint": "[low, high], whole numbers with low < high, high left out",
    "quniform": "[low, high, step], three numbers with low < high and whole steps between",
}
KINDS = tuple(_LAWS)


@dataclass(frozen=True)
class Choice:
    """One of several values of any kind, lists and mappings included."""

    kind: str
    arguments: list[Any]

    def suggest(self, trial: optuna.trial.BaseTrial, key: str) -> object:
        labels = _labels(self.arguments)
        return self.arguments[labels.index(trial.suggest_categorical(key, labels))]

    def parameter(self, value: object) -> object:
        """What `suggest` gives this value for; ValueError if it is none of this distribution."""
        labels = _labels(self.arguments)
        return labels[labels.index(json.dumps(value, sort_keys=True))]

    def size(self) -> float:
        return len(self.arguments)

    def grid(self) -> list[object]:
        return list(self.arguments)

    def default(self) -> object:
        return self.arguments[0]

    def ends(self) -> Iterable[tuple[int, object]]:
        return enumerate(self.arguments)


@dataclass(frozen=True)
class Continuous:
    """A number between two, uniform; of `loguniform`, uniform in its logarithm."""

    kind: str
    arguments: list[Any]

    def suggest(self, trial: optuna.trial.BaseTrial, key: str) -> object:
        low, high = self.arguments
        return trial.suggest_float(key, low, high, log=self.kind == "loguniform")

    def parameter(self, value: object) -> object:
        low, high = self.arguments
        if not (_is_number(value) and low <= value <= high):
            raise ValueError(f"must be between {low} and {high}, but got {value!r}")
        return float(value)

    def size(self) -> float:
        return math.inf

    def grid(self) -> list[object]:
        raise ValueError("a continuous distribution has no grid")

    def default(self) -> object:
        low, high = self.arguments
        if self.kind == "loguniform":
            return math.sqrt(low) * math.sqrt(high)
        return low / 2 + high / 2

    def ends(self) -> Iterable[tuple[int, object]]:
        return enumerate(map(float, self.arguments))


@dataclass(frozen=True)
class Stepped:
    """A number between two in equal steps; whole where low and step are."""

    kind: str
    arguments: list[Any]

    def suggest(self, trial: optuna.trial.BaseTrial, key: str) -> object:
        low, high, step = self._bounds()
        if isinstance(self._at(0), int):
            return trial.suggest_int(key, int(low), int(high), step=int(step))
        near = trial.suggest_float(key, low, high, step=step)
        return self._at(round((near - low) / step))

    def parameter(self, value: object) -> object:
        low, _, step = self._bounds()
        place = round((value - low) / step) if _is_number(value) else -1
        if not 0 <= place < self._count() or self._at(place) != value:
            raise ValueError(f"must be a step of {self.arguments}, but got {value!r}")
        return value

    def size(self) -> float:
        return self._count()

    def grid(self) -> list[object]:
        return [self._at(place) for place in range(self._count())]

    def default(self) -> object:
        return self._at((self._count() - 1) // 2)

    def ends(self) -> Iterable[tuple[int, object]]:
        return enumerate((self._at(0), self._at(self._count() - 1)))

    def _bounds(self) -> tuple[float, float, float]:
        """The least value, the greatest, and the step."""
        low, high, *step = self.arguments
        return (low, high, step[0]) if step else (low, high - 1, 1)

    def _count(self) -> int:
        return int(_steps(*self._bounds())) + 1

    def _at(self, place: int) -> float:
        low, _, step = self._bounds()
        value = Fraction(str(low)) + place * Fraction(str(step))
        return int(value) if isinstance(low, int) and isinstance(step, int) else float(value)


Distribution = Choice | Continuous | Stepped


def kind_of(value: object) -> str | None:
    """The kind of distribution that a value of the file looks like: `{uniform: …}`."""
    if isinstance(value, dict) and len(value) == 1:
        return next((kind for kind in value if kind in KINDS), None)
    return None


def parse(kind: str, arguments: object) -> Distribution:
    """The distribution `{kind: arguments}`; ValueError where the arguments break its law."""
    if not isinstance(arguments, list) or not _are_legal(kind, arguments):
        raise ValueError(f"{kind} needs {_LAWS[kind]}")
    if kind == "choice":
        return Choice(kind, arguments)
    family = Continuous if kind in ("uniform", "loguniform") else Stepped
    return family(kind, arguments)


def find(node: object, key: Key = ()) -> list[tuple[Key, Distribution]]:
    """The distributions in a tree, with their places, in its order."""
    if isinstance(node, Distribution):
        return [(key, node)]
    return [found for name, value in _inside(node) for found in find(value, (*key, name))]


def defaults(node: object) -> dict[Key, object]:
    """The default of each distribution in a tree."""
    return {key: drawn.default() for key, drawn in find(node)}


def fill(node: object, values: Mapping[Key, object], key: Key = ()) -> Any:
    """The tree with `values` in the places of its distributions."""
    if isinstance(node, Distribution):
        return values[key]
    filled = {name: fill(value, values, (*key, name)) for name, value in _inside(node)}
    if isinstance(node, list):
        return list(filled.values())
    return filled if isinstance(node, dict) else node


def _are_legal(kind: str, arguments: list[Any]) -> bool:
    if kind == "choice":
        return 0 < len(set(_labels(arguments))) == len(arguments)
    if not all(map(_is_number, arguments)):
        return False
    match kind, arguments:
        case "uniform", [low, high]:
            return bool(low < high)
        case "loguniform", [low, high]:
            return bool(0 < low < high)
        case "randint", [int(low), int(high)]:
            return low < high
        case "quniform", [low, high, step]:
            return low < high and step > 0 and _steps(low, high, step).denominator == 1
    return False


def _labels(values: list[Any]) -> list[str]:
    """Names for optuna, which takes only scalars and treats 1, 1.0 and True as equal."""
    return [json.dumps(value, sort_keys=True) for value in values]


def _steps(low: float, high: float, step: float) -> Fraction:
    """The number of steps between numbers as written: three steps of 0.1 make 0.3."""
    first, last, width = (Fraction(str(number)) for number in (low, high, step))
    return (last - first) / width


def _inside(node: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(node, dict):
        return node.items()
    return enumerate(node) if isinstance(node, list) else ()


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float) and abs(value) < math.inf  # type: ignore[arg-type]
