"""Fit the winner's calibration and threshold on the validation part (`decide` in the file)."""

import dataclasses

import numpy as np

from eagleray import bundle, evaluation
from eagleray.evaluation import calibrations, decisions
from eagleray.learn.tasks import diagrams
from eagleray.state.evaluations import Bin, Calibration, Decision, Evaluation
from ray_jobs import search


@dataclasses.dataclass(frozen=True)
class Decided:
    """A model with its calibration, threshold or costs; `plain` is the one without.

    Attributes:
        how: `none`, or the name of its calibration.
        warning: what the calibration cannot promise.
    """

    model: bundle.Bundle
    plain: bundle.Bundle
    decision: Decision | None = None
    how: str = "none"
    warning: str = ""

    def told(self, judged: Evaluation, test: evaluation.Part, outputs: np.ndarray) -> Evaluation:
        """The evaluation with what was decided; `outputs` are the model's for the test part."""
        found = {"decision": self.decision, "calibration": self._calibration(test, outputs)}
        warnings = [self.decision.warning if self.decision else "", self.warning]
        return judged.model_copy(
            update={
                **found,
                "warnings": [*judged.warnings, *filter(None, warnings)],
                "notes": [*map(str, filter(None, found.values())), *judged.notes],
            }
        )

    def _calibration(self, test: evaluation.Part, outputs: np.ndarray) -> Calibration | None:
        if self.how == "none":
            return None
        plain = self.plain.predict_columns(test.columns).outputs
        before, after = (self.model.task.bins(test.truth_B, one) for one in (plain, outputs))
        return Calibration(
            method=self.how,
            temperature=self.model.scale.get("temperature"),
            before=diagrams.calibration_error(before),
            after=diagrams.calibration_error(after),
            bins_before=[Bin(**one._asdict()) for one in before],
            bins_after=[Bin(**one._asdict()) for one in after],
            warning=self.warning,
        )


def decide(searched: search.Search, plain: bundle.Bundle) -> Decided:
    """Find what the file asks for; nothing is predicted where it asks for nothing."""
    chosen, dataset = searched.experiment.decide, searched.dataset
    how = chosen.calibration(plain.task)
    if how == "none" and not chosen.decides:
        return Decided(plain, plain)
    rows = dataset.split.validation
    columns, truth_B = dataset.take(rows), dataset.targets[rows]
    model, warning = plain, ""
    outputs = plain.predict_columns(columns).outputs
    if how != "none":
        found = calibrations.fit(how, plain.schema.target, truth_B, outputs)
        model, warning = _with(plain, found), found.warning
        outputs = model.predict_columns(columns).outputs
    target, decision = decisions.decide(chosen, model.schema.target, truth_B, outputs)
    model = _with(model, calibrations.Fitted(target))
    return Decided(model, plain, decision, how, warning)


def _with(model: bundle.Bundle, found: calibrations.Fitted) -> bundle.Bundle:
    known = model.schema.model_copy(update={"target": found.target})
    return dataclasses.replace(model, schema=known, scale={**model.scale, **found.scale})
