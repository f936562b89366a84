"""Fit the winner's threshold and temperature (`decide` in the file) on rows held out.

These are the validation part as the winner's trial has seen it, also where the winner is trained
anew on it; with folds, the rows of all folds, each as predicted by the model that was not trained
on it. Legend: B rows, C classes.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from eagleray import bundle, evaluation, spec
from eagleray.evaluation import decisions
from eagleray.learn.tasks import diagrams
from eagleray.state.evaluations import Calibration, Decision, Evaluation


@dataclasses.dataclass(frozen=True)
class Decided:
    """A model with its temperature, threshold or costs; `plain` is the one without."""

    model: bundle.Bundle
    plain: bundle.Bundle
    decision: Decision | None = None

    def told(self, judged: Evaluation, test: evaluation.Part, outputs: np.ndarray) -> Evaluation:
        """The evaluation with what was decided; `outputs` are the model's for the test part."""
        found = {"decision": self.decision, "calibration": self._calibration(test, outputs)}
        warning = self.decision.warning if self.decision else ""
        return judged.model_copy(
            update={
                **found,
                "warnings": [*judged.warnings, *filter(None, [warning])],
                "notes": [*map(str, filter(None, found.values())), *judged.notes],
            }
        )

    def _calibration(self, test: evaluation.Part, outputs: np.ndarray) -> Calibration | None:
        found = self.model.scale.get("temperature")
        if found is None:
            return None
        errors = []
        for one in (self.plain.predict_columns(test.columns).outputs, outputs):
            said_B, is_B = diagrams.confidences(self.model.task.positive, test.truth_B, one)
            errors.append(diagrams.calibration_error(said_B, is_B))
        return Calibration(temperature=found, before=errors[0], after=errors[1])


class Held(NamedTuple):
    """Rows held out: targets (B), raw outputs (B, C), and what the rows are called."""

    truth_B: np.ndarray
    raw_BC: np.ndarray
    name: str = "validation"


def decide(chosen: spec.Decide, plain: bundle.Bundle, held_out: Callable[[], Held]) -> Decided:
    """Find what the file asks for; `held_out` is not called where it asks for nothing."""
    if not chosen.needed:
        return Decided(plain, plain)
    held, model = held_out(), plain
    outputs = model.task.activate(held.raw_BC, model.scale)
    if chosen.calibrate == "temperature":
        found = decisions.temperature(held.truth_B, outputs)
        model = dataclasses.replace(plain, scale={**plain.scale, "temperature": found})
        outputs = model.task.activate(held.raw_BC, model.scale)
    target, decision = decisions.decide(chosen, model.schema.target, held.truth_B, outputs)
    if decision is not None:
        decision = decision.model_copy(update={"part": held.name})
    known = model.schema.model_copy(update={"target": target})
    return Decided(dataclasses.replace(model, schema=known), plain, decision)
