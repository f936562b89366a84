"""Fit the winner's calibration and threshold (`decide` in the file) on rows held out.

These are the validation part as the winner's trial has seen it, also where the winner is trained
anew on it; with folds, the rows of all folds, each as predicted by the model that was not trained
on it. Legend: B rows, C classes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from eagleray import bundle, evaluation, spec
from eagleray.evaluation import calibrations, decisions
from eagleray.learn import metrics
from eagleray.learn.tasks import diagrams
from eagleray.state.evaluations import Calibration, Decision, Evaluation

VALIDATION = "validation"


@dataclasses.dataclass(frozen=True)
class Decided:
    """A model with its calibration, threshold or costs; `plain` is the one without.

    Attributes:
        how: `none`, or the name of its calibration.
        warning: what the calibration cannot promise.
        validation: metrics of the model on the validation part; empty where nothing is changed, or
            the rows held out are others.
    """

    model: bundle.Bundle
    plain: bundle.Bundle
    decision: Decision | None = None
    how: str = "none"
    warning: str = ""
    validation: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def annotate(
        self, judged: Evaluation, test: evaluation.Part, outputs: np.ndarray
    ) -> Evaluation:
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
            offset=self.model.scale.get("offset"),
            before=diagrams.calibration_error(before),
            after=diagrams.calibration_error(after),
            bins_before=before,
            bins_after=after,
            warning=self.warning,
        )


class Held(NamedTuple):
    """Rows held out: targets (B), raw outputs (B, C), and what the rows are called.

    Raw outputs are on the scale `Task.unit`: the models that gave them may have other scales.
    """

    truth_B: np.ndarray
    raw_BC: np.ndarray
    name: str = VALIDATION


def decide(
    chosen: spec.Decide,
    plain: bundle.Bundle,
    held_out: Callable[[], Held],
    *,
    distorted: bool = False,
) -> Decided:
    """Find what the file asks for; `held_out` is not called where there is nothing to find.

    Where the file has `distorted` probabilities on purpose, `auto` does not calibrate them.
    """
    how = chosen.calibration(plain.task)
    optional = chosen.calibrate == "auto" and how in calibrations.OF_CLASSES
    how = "none" if optional and distorted else how
    if how == "none" and not chosen.decides:
        return Decided(plain, plain)
    held, model, warning = held_out(), plain, ""
    outputs = _activated(model, held)
    if how != "none":
        found = calibrations.fit(how, plain.schema.target, held.truth_B, outputs)
        model, warning, before = _with(plain, found), found.warning, outputs
        outputs = _activated(model, held)
        if optional and not calibrations.lowers_loss(held.truth_B, before, outputs):
            model, how, outputs = plain, "none", before
    target, decision = decisions.decide(chosen, model.schema.target, held.truth_B, outputs)
    if decision is not None:
        decision = decision.model_copy(update={"part": held.name})
    changed = held.name == VALIDATION and (how != "none" or decision is not None)
    validation = metrics.score(target, held.truth_B, outputs) if changed else {}
    model = _with(model, calibrations.Fitted(target))
    return Decided(model, plain, decision, how, warning, validation)


def _activated(model: bundle.Bundle, held: Held) -> np.ndarray:
    return model.task.activate(held.raw_BC, {**model.scale, **model.task.unit})


def _with(model: bundle.Bundle, found: calibrations.Fitted) -> bundle.Bundle:
    known = model.schema.model_copy(update={"target": found.target})
    return dataclasses.replace(model, schema=known, scale={**model.scale, **found.scale})
