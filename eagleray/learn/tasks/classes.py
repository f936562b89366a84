"""Classification, as binary and multiclass share it. Legend: B rows, C classes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from eagleray import errors, messages, names
from eagleray.learn import schema
from eagleray.learn.columns import CATEGORICAL, NUMERIC, ColumnKind, values
from eagleray.learn.tasks import diagrams, peers, sanity
from eagleray.learn.tasks.task import (
    Alternative,
    Averaged,
    Evaluation,
    Scale,
    TargetColumn,
    Task,
)
from eagleray.state.diagrams import Bin, Diagram

LEAST_OF_A_CLASS = 3  # minimum rows of a class: one for each part of the data
MOST_LISTED = 10  # maximum number of classes that a message lists
MOST_MATRIX_CLASSES = 20  # maximum number of classes in a confusion matrix
LEAST_PROBABILITY = 1e-12  # of which log-odds are made
MOST_PAIRS = 10  # maximum number of pairs in `Evaluation.confused`


class Classes(Task, Protocol):
    """Classification; warns of a class of `min_rows_to_warn` or more rows, never predicted."""

    kind: ClassVar[ColumnKind] = CATEGORICAL
    loss: ClassVar[str] = "cross_entropy"
    miss: ClassVar[str] = "probability of other classes than the true one"
    calibrations: ClassVar[tuple[str, ...]] = ("temperature", "none", "isotonic")
    averaged: ClassVar[Averaged] = "probabilities"
    min_rows_to_warn: ClassVar[int]

    def chance(self, truth_C: np.ndarray, predicted_C: np.ndarray) -> sanity.Chance:
        """Chance level, from the rows of each class and the rows predicted as it."""

    @classmethod
    def describe(cls, column: TargetColumn) -> schema.Target:
        name, classes = column.column.name, column.classes
        if len(classes) < 2:
            raise errors.DataError(
                f"{name}: at least two classes are needed, but got only {classes[0]!r}"
            )
        if column.positive is not None:
            classes = _positive_last(name, classes, column.positive)
        return schema.Target(name=name, task=cls.name, classes=classes)

    @property
    def width(self) -> int:
        return len(self.target.classes)

    def encode(self, raw: schema.Raw) -> np.ndarray:
        return places(self.target, self.column, raw)

    def strata(self, targets_B: np.ndarray, smallest: int) -> np.ndarray | None:
        _check_counts(self.target, self._counts(targets_B).tolist())
        if smallest < self.width:
            raise errors.DataError(
                f"data.split: each part needs rows of all {self.width} classes of"
                f" {self.target.name}, but the smallest part has {smallest} rows"
            )
        return targets_B

    def check_part(self, part: str, targets_B: np.ndarray) -> None:
        needed = part == "training" or self.positive is not None
        for number in np.flatnonzero(self._counts(targets_B) == 0) if needed else ():
            raise errors.DataError(
                f"data.split: the {part} part needs rows of each class,"
                f" but has none of {self.target.classes[number]!r}"
            )

    def summary(self, targets_B: np.ndarray) -> str:
        counts, classes = self._counts(targets_B), self.target.classes
        shares = zip(classes, (counts / len(targets_B)).tolist(), strict=True)
        listed = [f"{name} ({messages.percent(share)})" for name, share in shares]
        if len(listed) > MOST_LISTED:
            ordered = [listed[number] for number in np.argsort(counts, kind="stable")]
            listed = [f"{len(listed)} classes from {ordered[-1]} to {ordered[0]}"]
        if self.positive is not None:
            listed.append(f"{classes[self.positive]} is positive")
        return ", ".join([self.name, *listed])

    def alternative(self, targets_B: np.ndarray, smallest: int) -> Alternative | None:
        whole = all(name.removeprefix("-").isdigit() for name in self.target.classes)
        if self.positive is not None or not whole:
            return None
        fact = f"{self.width} different whole numbers are classes"
        return Alternative(fact, NUMERIC.name, "regression")

    def activate(self, raw_BC: np.ndarray, scale: Scale) -> np.ndarray:
        """Probabilities (B, C) in the order of the target's classes.

        A `temperature` in the scale divides the raw outputs (Guo et al. 2017, arXiv:1706.04599),
        and an `offset` is added to those of the last class (Platt 1999). The target's `curves` then
        give each class its probability, one against the rest.
        """
        logits_BC = raw_BC / scale.get("temperature", 1.0)
        logits_BC[:, -1] += scale.get("offset", 0.0)
        shifted_BC = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
        probabilities_BC: np.ndarray = shifted_BC / shifted_BC.sum(1, keepdims=True)
        return self._curved(probabilities_BC) if self.target.curves else probabilities_BC

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """The most probable class, or by the target's `costs` the one expected to cost least."""
        costs_CC = np.array(self.target.costs)
        label_B: np.ndarray
        label_B = (outputs @ costs_CC).argmin(1) if costs_CC.size else outputs.argmax(1)
        return label_B

    def explained(self, outputs: np.ndarray) -> int:
        return int(self.decide(outputs)[0])

    def bins(self, truth_B: np.ndarray, outputs: np.ndarray) -> list[Bin]:
        return diagrams.bins(*diagrams.confidences(self.positive, truth_B, outputs))

    def evaluate(
        self, truth_B: np.ndarray, outputs: np.ndarray, scores: Mapping[str, float]
    ) -> Evaluation:
        count, classes, label_B = self.width, self.target.classes, self.decide(outputs)
        pairs = np.bincount(truth_B * count + label_B, minlength=count**2)
        matrix_CC = pairs.reshape(count, count)
        truth_C, predicted_C = matrix_CC.sum(1), matrix_CC.sum(0)
        missed_C = (truth_C >= self.min_rows_to_warn) & (predicted_C == 0)
        chance = self.chance(truth_C, predicted_C)
        return Evaluation(
            warnings=list(sanity.class_warnings(classes, truth_C, missed_C, scores, chance)),
            confusion=matrix_CC.tolist() if count <= MOST_MATRIX_CLASSES else None,
            confused=self._confused(matrix_CC),
        )

    def misses(self, truth_B: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        missed_B: np.ndarray = 1 - outputs[np.arange(len(truth_B)), truth_B]
        return missed_B

    def diagrams(self, truth_B: np.ndarray, outputs: np.ndarray) -> Iterator[Diagram]:
        yield from diagrams.of_classes(self.target.classes, self.positive, truth_B, outputs)

    def constant(self, targets_B: np.ndarray, rows: int) -> np.ndarray:
        """The shares of the classes: the most frequent one is predicted."""
        return np.tile(self._counts(targets_B) / len(targets_B), (rows, 1))

    def estimators(self) -> dict[str, Any]:
        return peers.classifiers(self.width)

    def estimate(self, fitted: Any, matrix: Any) -> np.ndarray:
        """A class without a training row has probability 0."""
        outputs = np.zeros((matrix.shape[0], self.width))
        outputs[:, fitted.classes_] = fitted.predict_proba(matrix)
        return outputs

    def table(self, truth_B: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
        classes = np.array(self.target.classes, object)
        label_B, probability_B = self.decide(outputs), self.confidence(outputs)
        labels = {"truth": classes[truth_B], "prediction": classes[label_B]}
        return {**labels, "probability": probability_B}

    def answers(self, outputs: np.ndarray) -> Iterator[dict[str, Any]]:
        classes, best = self.target.classes, self.decide(outputs).tolist()
        for index, row in zip(best, outputs.tolist(), strict=True):
            yield {
                "label": classes[index],
                "probability": row[index],
                "probabilities": dict(zip(classes, row, strict=True)),
            }

    def outcome(self, answer: Mapping[str, Any], scale: Scale) -> str:
        return str(answer["label"])

    @property
    def outcomes(self) -> tuple[str, ...]:
        return self.target.classes

    def reward(self, predicted: object, truth: object, scale: Scale) -> float:
        return float(self._class(predicted) == self._class(truth))

    def outcome_counts(self, outputs: np.ndarray, scale: Scale) -> Counter[str]:
        counts_C = self._counts(self.decide(outputs)).tolist()
        return Counter(
            {name: n for name, n in zip(self.target.classes, counts_C, strict=True) if n}
        )

    def confidence(self, outputs: np.ndarray) -> np.ndarray:
        label_B1 = self.decide(outputs)[:, None]
        said_B: np.ndarray = np.take_along_axis(outputs, label_B1, 1)[:, 0]
        return said_B

    def answer_schema(self) -> dict[str, Any]:
        classes, number = list(self.target.classes), {"type": "number"}
        shares = {"type": "object", "properties": dict.fromkeys(classes, number)}
        return {
            "label": {"type": "string", "enum": classes},
            "probability": number,
            "probabilities": {**shares, "additionalProperties": False, "required": classes},
        }

    def flat(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        shares = answer["probabilities"] or {}
        cells = {key: answer[key] for key in ("label", "probability")}
        return cells | {f"probability of {c}": shares.get(c) for c in self.target.classes}

    def _curved(self, probability_BC: np.ndarray) -> np.ndarray:
        """Probabilities after isotonic calibration, which add up to 1."""
        curves = self.target.curves
        of_curve_BC = log_odds(probability_BC[:, -len(curves) :])
        said = [
            np.interp(odds_B, one.log_odds, one.probability)
            for one, odds_B in zip(curves, of_curve_BC.T, strict=True)
        ]
        said_BC = np.stack([1 - said[0], said[0]] if len(curves) == 1 else said, 1)
        curved_BC: np.ndarray = said_BC / said_BC.sum(1, keepdims=True)
        return curved_BC

    def _class(self, value: object) -> int:
        return int(self.encode([value])[0])

    def _counts(self, targets_B: np.ndarray) -> np.ndarray:
        return np.bincount(targets_B, minlength=self.width)

    def _confused(self, matrix_CC: np.ndarray) -> list[tuple[str, str, int]]:
        pairs = np.argwhere(matrix_CC)
        wrong = pairs[pairs[:, 0] != pairs[:, 1]]
        often = np.argsort(-matrix_CC[tuple(wrong.T)], kind="stable")[:MOST_PAIRS]
        classes = self.target.classes
        return [(classes[t], classes[p], int(matrix_CC[t, p])) for t, p in wrong[often].tolist()]


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Log-odds, bounded where a probability is 0 or 1."""
    bounded = np.clip(probability.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds: np.ndarray = np.log(bounded) - np.log1p(-bounded)
    return odds


def places(target: schema.Target, column: schema.Column, raw: schema.Raw) -> np.ndarray:
    """The place of each value (B) among the target's classes; DataError for any other value."""
    index = {name: number for number, name in enumerate(target.classes)}
    words = schema.parse_column(column, raw).tolist()
    for unknown in set(words) - index.keys():
        raise errors.DataError(
            f"{target.name}: one of the target's classes is needed, but got {unknown!r}"
        )
    return np.fromiter(map(index.__getitem__, words), np.int64, len(words))


def _positive_last(name: str, classes: tuple[str, ...], setting: str) -> tuple[str, ...]:
    positive = values.category(setting)
    if positive not in classes:
        raise errors.DataError(
            f"data.positive: one of the classes of {name} ({', '.join(classes[:5])}) is needed,"
            f" but got {setting!r}{names.near(positive, classes)}"
        )
    if len(classes) > 2:
        raise errors.DataError(
            f"data.positive: it stands for one of two classes, but {name} has {len(classes)}"
        )
    return (*(one for one in classes if one != positive), positive)


def _check_counts(target: schema.Target, counts: list[int]) -> None:
    rare = [
        f"{name!r} has {count}"
        for name, count in zip(target.classes, counts, strict=True)
        if count < LEAST_OF_A_CLASS
    ]
    if not rare:
        return
    numbers = sum(map(values.is_number, target.classes)) * 2 > len(target.classes)
    fix = f"; features: {{{target.name}: {{type: {NUMERIC.name}}}}} makes it a regression"
    raise errors.DataError(
        f"{target.name}: each class needs at least {LEAST_OF_A_CLASS} rows, one for each part,"
        f" but {messages.listed(rare, MOST_LISTED)};"
        f" leave out such rows, or set data.split.stratify: false{fix if numbers else ''}"
    )
