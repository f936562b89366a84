"""Fit the winner's threshold and temperature on the validation part (`decide` in the file)."""

import dataclasses

import numpy as np

from eagleray import bundle, evaluation
from eagleray.evaluation import decisions
from eagleray.learn.tasks import diagrams
from eagleray.state.evaluations import Calibration, Decision, Evaluation
from ray_jobs import search


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


def decide(searched: search.Search, plain: bundle.Bundle) -> Decided:
    """Find what the file asks for; nothing is predicted where it asks for nothing."""
    chosen, dataset = searched.experiment.decide, searched.dataset
    if not chosen.needed:
        return Decided(plain, plain)
    rows = dataset.split.validation
    columns, truth_B, model = dataset.take(rows), dataset.targets[rows], plain
    outputs = plain.predict_columns(columns).outputs
    if chosen.calibrate == "temperature":
        found = decisions.temperature(truth_B, outputs)
        model = dataclasses.replace(plain, scale={**plain.scale, "temperature": found})
        outputs = model.predict_columns(columns).outputs
    target, decision = decisions.decide(chosen, model.schema.target, truth_B, outputs)
    known = model.schema.model_copy(update={"target": target})
    return Decided(dataclasses.replace(model, schema=known), plain, decision)
