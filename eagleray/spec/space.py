"""Distributions, which stand in the experiment file wherever a value may, and trees of them.

Each knows how to ask an optuna trial for a value, how many values it has, and which of them must
be legal for all of them to be (`ends`). Bounds are those of ray.tune: `randint` leaves its upper
end out, `quniform` has both.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

from eagleray.spec.document import Key

if TYPE_CHECKING:
    import optuna

End = tuple[int, object]  # where it stands in the distribution's list, and the value
Tree = dict[str, Any]  # the file's value with distributions in their places


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values of any kind, lists and mappings included."""

    kind: ClassVar[str] = "choice"
    law: ClassVar[str] = "choice needs a list of at least one value, each once"
    values: tuple[object, ...]

    def __post_init__(self) -> None:
        if not 0 < len(set(self._labels())) == len(self.values):
            raise ValueError(self.law)

    def suggest(self, trial: optuna.trial.BaseTrial, key: str) -> object:
        labels = self._labels()
        return self.values[labels.index(trial.suggest_categorical(key, labels))]

    def size(self) -> float:
        return len(self.values)

    def grid(self) -> list[object]:
        return list(self.values)

    def default(self) -> object:
        return self.values[0]

    def ends(self) -> Iterable[End]:
        return enumerate(self.values)

    def arguments(self) -> list[object]:
        return list(self.values)

    def _labels(self) -> list[str]:
        """Names for optuna, which takes scalars only and holds 1, 1.0 and True for the same."""
        return [json.dumps(value, sort_keys=True) for value in self.values]


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A number between two, each as likely."""

    kind: ClassVar[str] = "uniform"
    law: ClassVar[str] = "uniform needs [low, high], two numbers with low < high"
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(self.law)

    def suggest(self, trial: optuna.trial.BaseTrial, key: str) -> object:
        return trial.suggest_float(key, self.low, self.high)

    def size(self) -> float:
        return math.inf

    def grid(self) -> list[object]:
        raise ValueError("a continuous distribution has no grid")

    def default(self) -> object:
        return self.low / 2 + self.high / 2

    def ends(self) -> Iterable[End]:
        return enumerate((float(self.low), float(self.high)))

    def arguments(self) -> list[object]:
        return [self.low, self.high]


@dataclasses.dataclass(frozen=True)
class LogUniform(Uniform):
    """A number between two, each order of magnitude as likely."""

    kind: ClassVar[str] = "loguniform"
    law: ClassVar[str] = "loguniform needs [low, high], two numbers with 0 < low < high"

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(self.law)

    def suggest(self, trial: optuna.trial.BaseTrial, key: str) -> object:
        return trial.suggest_float(key, self.low, self.high, log=True)

    def default(self) -> object:
        return math.sqrt(self.low) * math.sqrt(self.high)


@dataclasses.dataclass(frozen=True)
class QUniform:
    """A number between two in steps; whole when low, high and step are."""

    kind: ClassVar[str] = "quniform"
    law: ClassVar[str] = (
        "quniform needs [low, high, step], three numbers with low < high and whole steps between"
    )
    low: float
    high: float
    step: float

    def __post_init__(self) -> None:
        if not (self.low < self.high and self.step > 0 and self._steps().denominator == 1):
            raise ValueError(self.law)

    def suggest(self, trial: optuna.trial.BaseTrial, key: str) -> object:
        if isinstance(self._at(0), int):
            return trial.suggest_int(key, int(self.low), int(self.high), step=int(self.step))
        near = trial.suggest_float(key, self.low, self.high, step=self.step)
        return self._at(round((near - self.low) / self.step))

    def size(self) -> float:
        return int(self._steps()) + 1

    def grid(self) -> list[object]:
        return [self._at(step) for step in range(int(self._steps()) + 1)]

    def default(self) -> object:
        return self._at(int(self._steps()) // 2)

    def ends(self) -> Iterable[End]:
        return enumerate((self._at(0), self._at(int(self._steps()))))

    def arguments(self) -> list[object]:
        return [self.low, self.high, self.step]

    def _steps(self) -> Fraction:
        """Of the numbers as written: three steps of 0.1 make 0.3."""
        low, high, step = (Fraction(str(number)) for number in (self.low, self.high, self.step))
        return (high - low) / step

    def _at(self, step: int) -> float:
        value = Fraction(str(self.low)) + step * Fraction(str(self.step))
        whole = isinstance(self.low, int) and isinstance(self.step, int)
        return int(value) if whole else float(value)


@dataclasses.dataclass(frozen=True)
class RandInt:
    """A whole number from `low` up to, and without, `high`."""

    kind: ClassVar[str] = "randint"
    law: ClassVar[str] = "randint needs [low, high], whole numbers with low < high, high left out"
    low: int
    high: int

    def __post_init__(self) -> None:
        if not (isinstance(self.low, int) and isinstance(self.high, int) and self.low < self.high):
            raise ValueError(self.law)

    def suggest(self, trial: optuna.trial.BaseTrial, key: str) -> object:
        return trial.suggest_int(key, self.low, self.high - 1)

    def size(self) -> float:
        return self.high - self.low

    def grid(self) -> list[object]:
        return list(range(self.low, self.high))

    def default(self) -> object:
        return (self.low + self.high - 1) // 2

    def ends(self) -> Iterable[End]:
        return enumerate((self.low, self.high - 1))

    def arguments(self) -> list[object]:
        return [self.low, self.high]


Distribution = Choice | Uniform | LogUniform | QUniform | RandInt

KINDS: dict[str, type[Distribution]] = {
    kind.kind: kind for kind in (Choice, Uniform, LogUniform, RandInt, QUniform)
}


def kind_of(value: object) -> str | None:
    """The kind of distribution that a value of the file looks like: `{uniform: …}`."""
    if isinstance(value, dict) and len(value) == 1:
        return next((kind for kind in value if kind in KINDS), None)
    return None


def parse(kind: str, arguments: object) -> Distribution:
    """The distribution `{kind: arguments}`.

    Raises:
        ValueError: the law of the kind, where the arguments break it.
    """
    distribution = KINDS[kind]
    if not isinstance(arguments, list):
        raise ValueError(distribution.law)
    if distribution is Choice:
        return Choice(tuple(arguments))
    numbers = [value for value in arguments if _is_number(value)]
    if not len(dataclasses.fields(distribution)) == len(numbers) == len(arguments):
        raise ValueError(distribution.law)
    return distribution(*numbers)  # type: ignore[arg-type]


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


def _inside(node: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(node, dict):
        return node.items()
    return enumerate(node) if isinstance(node, list) else ()


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float) and abs(value) < math.inf  # type: ignore[arg-type]
