"""`ranking`: items for a user, the best first. Legend: B rows, C outputs, I items, K places.

A row is an item that a user has chosen. Outputs (B, 2 K + 1) of a row are the scores of the K items
that are recommended to its user, their places among the target's classes (-1 where fewer are left),
and the user's number from 1 on; 0 stands for an unknown user who is judged by other columns, -1 for
one of whom nothing is known.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from eagleray import errors, messages
from eagleray.learn import ranks, schema
from eagleray.learn.columns import CATEGORICAL, values
from eagleray.learn.tasks.classes import places
from eagleray.learn.tasks.task import Evaluation, Scale, TargetColumn, Task
from eagleray.state.diagrams import Diagram, Line

MOST_PLACES = 100
"""Longest list that a model gives; `Target.k` cuts it."""
BASES = ("user", "columns", "popularity")
"""What a list follows from."""


class Ranking(Task):
    """The items that a user is likely to choose next, without those that were chosen before."""

    name, kind, loss, metric = "ranking", CATEGORICAL, "softmax", "ndcg_at_k"
    telling = ("ndcg_at_k", "recall_at_k", "map_at_k", "coverage_at_k")
    miss = "how far down its list an item stands: 0 is first, 1 is not listed"
    unaudited: ClassVar[frozenset[str]] = frozenset(
        {"target copy", "target near-copy", "target giveaway", "rows across parts"}
        | {"groups across parts", "time across parts", "identifier order", "label noise"}
        | {"imbalance", "duplicate rows", "near-duplicate rows", "rare categories", "identifiers"}
        | {"near-duplicates with noise"}
    )
    explains, remembers = False, True

    @classmethod
    def fits(cls, column: TargetColumn) -> bool:
        return bool(column.user and column.classes)

    @classmethod
    def describe(cls, column: TargetColumn) -> schema.Target:
        name, items = column.column.name, column.classes
        if len(items) < 2:
            raise errors.DataError(
                f"{name}: at least two items are needed, but got only {items[0]!r}"
            )
        return schema.Target(name=name, task=cls.name, classes=items, user=column.user, k=column.k)

    @classmethod
    def serves(cls, outputs: int, classes: int) -> bool:
        return False

    @property
    def width(self) -> int:
        """The number of items, I."""
        return len(self.target.classes)

    def encode(self, raw: schema.Raw) -> np.ndarray:
        return places(self.target, self.column, raw)

    def strata(self, targets_B: np.ndarray, smallest: int) -> np.ndarray | None:
        return None

    def check_part(self, part: str, targets_B: np.ndarray) -> None:
        if part == "training" and len(np.unique(targets_B)) < 2:
            raise errors.DataError(
                f"data.split: the training part needs rows of at least two items of"
                f" {self.target.name}, but has {len(np.unique(targets_B))}"
            )

    def summary(self, targets_B: np.ndarray) -> str:
        count_I = np.bincount(targets_B, minlength=self.width)
        most = int(count_I.argmax())
        share = messages.percent(float(count_I[most] / len(targets_B)))
        return (
            f"{self.name}, {self.width:,} items for each {self.target.user},"
            f" {self.target.classes[most]} the most frequent ({share})"
        )

    def units(self, columns: schema.Columns) -> np.ndarray:
        """A number for each row's user."""
        users = columns[self.target.user].astype(str)
        numbers_B: np.ndarray = np.unique(users, return_inverse=True)[1]
        return numbers_B

    def activate(self, raw_BC: np.ndarray, scale: Scale) -> np.ndarray:
        """The first `Target.k` places of longer lists."""
        depth = ranks.depth(raw_BC)
        k = min(depth, self.target.k)
        return np.concatenate([raw_BC[:, :k], raw_BC[:, depth : depth + k], raw_BC[:, -1:]], 1)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """The first item of each list, -1 where none is left."""
        first_B: np.ndarray = ranks.items(outputs)[:, 0]
        return first_B

    def reproducible(self, outputs: np.ndarray) -> np.ndarray:
        """Scores and users; items of equal scores may change places."""
        depth = ranks.depth(outputs)
        return np.delete(outputs, np.s_[depth : 2 * depth], axis=1)

    def evaluate(
        self, truth_B: np.ndarray, outputs: np.ndarray, scores: Mapping[str, float]
    ) -> Evaluation:
        return Evaluation([])

    def headline(self, truth_B: np.ndarray, outputs: np.ndarray) -> str:
        found = ranks.of(truth_B, outputs)
        users = np.bincount(found.user_B, found.listed_B)
        share = 100 * float((users > 0).mean())
        return (
            f"lists an item that was chosen later among {found.depth} for {share:.0f} of 100"
            f" users ({self.target.user})"
        )

    def misses(self, truth_B: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """One minus the discount of the place."""
        found = ranks.of(truth_B, outputs)
        gain_B = np.where(found.listed_B, 1 / np.log2(found.rank_B + 2.0), 0.0)
        missed_B: np.ndarray = 1 - gain_B
        return missed_B

    def diagrams(self, truth_B: np.ndarray, outputs: np.ndarray) -> Iterator[Diagram]:
        found = ranks.of(truth_B, outputs)
        count_K = np.bincount(found.rank_B, minlength=found.depth + 1)[: found.depth]
        yield Diagram(
            name="listed",
            title="Length of the list",
            says="The share of the test part's rows whose item is among the first of its list.",
            x="places of the list",
            y="share that is listed",
            lines=(
                Line(
                    name="items",
                    x=list(map(float, range(1, found.depth + 1))),
                    y=(np.cumsum(count_K) / max(1, len(truth_B))).tolist(),
                ),
            ),
        )

    def table(self, truth_B: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
        items = np.array([*self.target.classes, None], object)
        found = ranks.of(truth_B, outputs)
        place_B = np.where(found.listed_B, found.rank_B + 1.0, np.nan)
        return {
            "truth": items[truth_B],
            "prediction": items[self.decide(outputs)],
            "place": place_B,
        }

    def answers(self, outputs: np.ndarray) -> Iterator[dict[str, Any]]:
        names, score_BK = self.target.classes, outputs[:, : ranks.depth(outputs)]
        lists = zip(ranks.items(outputs).tolist(), score_BK.tolist(), _bases(outputs), strict=True)
        for items, scores, basis in lists:
            listed = [names[item] for item in items if item >= 0]
            yield {
                "item": listed[0] if listed else None,
                "items": listed,
                "scores": scores[: len(listed)],
                "basis": basis,
            }

    def outcome(self, answer: Mapping[str, Any], scale: Scale) -> str:
        """What its list follows from: items are too many to compare."""
        return str(answer["basis"])

    @property
    def outcomes(self) -> tuple[str, ...]:
        return BASES

    def reward(self, predicted: object, truth: object, scale: Scale) -> float:
        """Whether the first item of the list was chosen."""
        return float(values.category(predicted) == values.category(truth))

    def outcome_counts(self, outputs: np.ndarray, scale: Scale) -> Counter[str]:
        return Counter(_bases(outputs))

    def answer_schema(self) -> dict[str, Any]:
        most = {"maxItems": min(self.target.k, self.width, MOST_PLACES)}
        return {
            "item": {"type": "string", "nullable": True},
            "items": {"type": "array", "items": {"type": "string"}, **most},
            "scores": {"type": "array", "items": {"type": "number"}, **most},
            "basis": {"type": "string", "enum": list(BASES)},
        }

    def flat(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        items, scores = answer["items"] or [], answer["scores"] or []
        cells: dict[str, Any] = {"basis": answer["basis"]}
        for place in range(min(self.target.k, self.width, MOST_PLACES)):
            listed = place < len(items)
            cells[f"item {place + 1}"] = items[place] if listed else None
            cells[f"score {place + 1}"] = scores[place] if listed else None
        return cells


def _bases(outputs: np.ndarray) -> list[str]:
    number_B = outputs[:, -1]
    base_B = np.where(number_B > 0, 0, np.where(number_B == 0, 1, 2))
    return [BASES[base] for base in base_B.tolist()]
