"""The section `tune`: how configurations are searched."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, ValidationInfo
from pydantic_core import PydanticCustomError

from eagleray.learn import metrics
from eagleray.learn.models.options import Section, Size
from eagleray.spec import terms
from eagleray.spec.terms import Positive, Seed


class Budget(Section):
    """Limits of a search over all of its runs; the first that is reached ends it.

    The best trial so far is the winner.
    """

    minutes: Positive | None = Field(None, description="Time that the search runs.")
    gpu_hours: Positive | None = Field(None, description="GPU-hours of its trials.")
    money: Positive | None = Field(None, description="Cost of its trials, by `compute.price`.")


class Ensemble(Section):
    """How many of the trials the winner may be the mean of, and how slow it may be."""

    members: terms.AutoOrSize = Field(
        "auto",
        description="Most trials whose predictions are averaged, where that is better than the "
        "best of them; `1` for none. `auto` is 5 beside `model.type: auto`, unless there is a "
        "`tune.cost`, and 1 elsewhere.",
    )
    latency_ms: Positive | None = Field(
        5.0,
        description="Longest median time of one row's prediction on one core; an ensemble loses "
        "members until it takes no longer, and the report of a trial that does names the best one "
        "that does not.",
    )


UNREFIT: dict[str, tuple[object, ...]] = {"folds": (1,), "refit": (False, "auto")}
"""Values of `tune` by which no winner of one model is trained anew, by key."""


class Tune(Section):
    """How configurations are searched."""

    trials: Size = Field(20, description="Maximum number of configurations, each tried once.")
    search: Literal["tpe", "cma", "random", "grid"] = Field(
        "tpe",
        description="Tree-structured Parzen estimator, CMA-ES (numbers only), random, or all "
        "combinations.",
    )
    scheduler: Literal["asha", "hyperband", "median", "pbt", "none"] = Field(
        "asha",
        description="`asha`, `hyperband` and `median` stop trials that fall behind early; `pbt` "
        "lets them go on from better ones, with changed values; `none` lets all finish.",
    )
    metric: Annotated[str, terms.OneOf(metrics.SELECTING)] = Field(
        "auto",
        description="What trials are compared by, on the validation part. `auto` is roc_auc for "
        "two classes, accuracy for more, rmse for numbers, pinball for quantiles and ndcg_at_k for "
        "recommendations.",
    )
    folds: Size = Field(
        1,
        description="Folds of cross-validation, of the rows of training and validation: trials are "
        "compared by the mean over folds, and poor ones stop after the first.",
    )
    refit: bool | Literal["auto"] = Field(
        "auto",
        description="Train the winner anew on the rows of training and validation, for its best "
        "epoch, with folds the mean one. `auto`: with folds, and beside `model.type: auto` its "
        "trees, except under `data.split.time`.",
    )
    cost: Literal["latency", "size"] | None = Field(
        None,
        description="What a model costs, lower is better, beside the metric: seconds of one row's "
        "prediction where it is trained (median), or bytes of its weights, of `boosting` those of "
        "its text, measured again at each best epoch.",
    )
    tolerance: terms.Tolerance = Field(
        0.0,
        description="Of the trials whose metric is at most this far from the best, that with the "
        "lowest `cost` wins. With folds it may be the best one's standard error.",
    )
    warm_start: terms.TrueOrSearch = Field(
        False,
        description="Tell the sampler of trials of earlier searches of this model in this storage, "
        "where they fit the space: of all searches, or of that with this id.",
    )
    pack: terms.AutoOrSize = Field(
        "auto",
        description="Most trials trained in one pass of one process. `auto` measures what pays.",
    )
    budget: Budget | None = Field(None, description="Limits of the search.")
    ensemble: Ensemble = Field(Ensemble(), description="What the winner may be made of.")
    seed: Seed = Field(0, description="Seed of the search.")

    @pydantic.field_validator("refit")
    @classmethod
    def _sees_all_rows(cls, refit: bool | str, info: ValidationInfo) -> bool | str:
        if not refit and info.data.get("folds", 1) > 1:
            law = "must be true beside folds above 1, where no model has seen all rows"
            raise PydanticCustomError("law", law)
        return refit

    @pydantic.field_validator("tolerance")
    @classmethod
    def _of_folds(cls, tolerance: float | str, info: ValidationInfo) -> float | str:
        if tolerance == terms.ONE_STANDARD_ERROR and info.data.get("folds", 1) == 1:
            law = f"{tolerance} needs folds above 1 beside it"
            raise PydanticCustomError("law", law, {"got": "1"})
        return tolerance

    @property
    def minutes(self) -> float | None:
        """Time limit of the search; None without one."""
        return self.budget.minutes if self.budget else None
