"""Problems of an experiment file, as `file:line: dotted.key: law, but got value`."""

import dataclasses
import difflib
import json
import operator
import re
from collections.abc import Iterable

import pydantic
from pydantic_core import ErrorDetails

from eagleray import code, messages
from eagleray.spec import document, sections, space, terms
from eagleray.spec.document import Key

WHOLE = "must be a whole number"

_LAWS = {
    "missing": "is required",
    "string_type": "must be text",
    "int_type": WHOLE,
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must hold at least {min_length}",
    "too_long": "must hold at most {max_length}",
    "string_too_short": "must not be empty",
}
_PATTERNS = {
    terms.NAME: "must be lowercase letters, digits and hyphens, at most 40, from a letter on",
    terms.STORAGE: "must be s3://bucket, s3://bucket/prefix or file:///folder",
    terms.CHARACTER: "must be one ASCII character",
    terms.MEMORY: "must be a whole number with MB or GB, such as 4GB",
    code.PATTERN: "must be module:function",
    terms.TIME: 'must be a time of the day, such as "08:00"',
}
_NOT_BUILT = ("monitor",)
_SYNONYMS = {
    "accuracy": ("acc", "accuracy_score"),
    "auto": ("automl",),
    "boosting": (
        "lightgbm",
        "lgbm",
        "gbm",
        "gbdt",
        "xgboost",
        "catboost",
        "random_forest",
        "trees",
    ),
    "brier": ("brier_score", "brier_score_loss"),
    "coverage_at_k": ("coverage", "coverage@10", "catalog_coverage"),
    "cross_entropy": ("bce", "nll"),
    "f1": ("f1_macro", "f1_score"),
    "map_at_k": ("map", "map@10", "mean_average_precision"),
    "mae": ("l1", "mean_absolute_error"),
    "mcc": ("matthews", "matthews_corrcoef"),
    "mlp": ("nn", "dnn", "neural_network"),
    "mse": ("l2",),
    "pinball": ("mean_pinball_loss", "pinball_loss", "quantile", "quantile_loss"),
    "ndcg_at_k": ("ndcg", "ndcg@10", "ndcg_score"),
    "pr_auc": ("ap", "auprc", "average_precision"),
    "quantile": ("mean_pinball_loss", "pinball", "pinball_loss", "quantile_loss"),
    "r2": ("r2_score", "r_squared"),
    "recall": ("sensitivity",),
    "recall_at_k": ("recall@10", "hit_rate", "hit_rate@10"),
    "rmse": ("mean_squared_error", "mse", "root_mean_squared_error"),
    "roc_auc": ("auc", "auc_roc", "auroc"),
}
"""Other libraries' names of metrics and losses, by ours."""

_KEYS = {at: tuple(section.model_fields) for at, section in sections.walk()}
_PLACES = {
    name: document.dotted((*at, name))
    for at, names in _KEYS.items()
    for name in names
    if at[:1] not in (("features",), ("model",)) and len(name) > 1
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A law that is broken at `key`, the value there as text, and what was probably intended.

    `at` is the place in the file, if that is more exact than the `key` of messages.
    """

    key: Key
    law: str
    got: str | None = None
    near: str | None = None
    at: Key | None = None

    def __str__(self) -> str:
        got = f", but got {self.got}" if self.got is not None else ""
        near = f"; did you mean {self.near}" if self.near else ""
        return f"{document.dotted(self.key)}: {self.law}{got}{near}".removeprefix(": ")


def lines(page: document.Document, found: Iterable[Problem]) -> list[str]:
    """A line for each problem, without repeats, in the order of the file; `--set` comes first."""
    located = [(page.line(one.at or one.key), str(one)) for one in found]
    ordered = sorted(dict.fromkeys([*page.problems, *located]), key=operator.itemgetter(0))
    return [f"{page.path}:{line}: {text}" if line else f"--set {text}" for line, text in ordered]


def explain(error: pydantic.ValidationError) -> list[Problem]:
    """Translate pydantic's errors, without those that follow from others."""
    found = error.errors(include_url=False)
    return [_explain(one) for one in found if one["type"] != "default_factory_not_called"]


def show(value: object) -> str:
    """A value as it could stand in the file, or its beginning."""
    if isinstance(value, space.Distribution):
        value = {value.kind: value.arguments}
    return messages.shortened(json.dumps(value, ensure_ascii=False, default=str))


def _explain(details: ErrorDetails) -> Problem:
    loc, got, context = details["loc"], details["input"], details.get("ctx", {})
    key = (*loc[:1], *loc[2:]) if loc[0] == "model" and len(loc) > 1 else loc
    match details["type"]:
        case "extra_forbidden":
            return _unknown_key(loc, key)
        case "union_tag_invalid":
            return _unknown_model(got["type"])
        case "literal_error":
            return _unknown_name(key, re.findall(r"'([^']+)'", context["expected"]), got)
        case "choice":
            return _unknown_name(key, context["names"], got)
        case "law":
            near = _nearest(str(got), context.get("names", ()))
            return Problem(key, details["msg"], context.get("got", show(got)), near)
        case "string_pattern_mismatch":
            return Problem(key, _PATTERNS[context["pattern"]], show(got))
        case "missing":
            return Problem(key, _LAWS["missing"])
    law = _LAWS.get(details["type"], details["msg"])
    bounds = {name: f"{one:.10g}" for name, one in context.items() if isinstance(one, int | float)}
    return Problem(key, law.format_map(bounds), show(got), _intended(law, got))


def _unknown_key(loc: Key, key: Key) -> Problem:
    """`loc` is pydantic's place: behind `model` it has the model's type."""
    if document.dotted(key) in _NOT_BUILT:
        return Problem(key, "is not built yet")
    section = tuple(part for part in loc[:-1] if isinstance(part, str))  # not places in lists
    if section[:1] == ("features",):
        section = ("features", str(sections.FeatureOptions.tag), *section[2:])
    word, known = str(loc[-1]), _KEYS[section]
    owners = [at[1] for at, names in _KEYS.items() if at[:1] == ("model",) and word in names]
    if section[:1] == ("model",) and owners:
        return Problem(key, "unknown key", near=f"type: {owners[0]} beside it")
    if near := _nearest(word, known):
        return Problem(key, "unknown key", near=document.dotted((*key[:-1], near)))
    if near := _nearest(word, _PLACES):
        return Problem(key, "unknown key", near=_PLACES[near])
    return Problem(key, f"unknown key; known are {', '.join(known)}")


def _unknown_model(kind: object) -> Problem:
    return _unknown_name(("model", "type"), [at[1] for at in _KEYS if at[:1] == ("model",)], kind)


def _unknown_name(key: Key, names: list[str], got: object) -> Problem:
    law = f"must be one of {', '.join(names)}"
    near = _nearest(got, names) if isinstance(got, str) else _intended(law, got)
    return Problem(key, law, show(got), near)


def _nearest(word: str, known: Iterable[str]) -> str | None:
    """The likeliest of `known`: by a synonym, by spelling, or by initials (`lr`)."""
    known, word = list(known), word.lower()
    for alike in (*(ours for ours, theirs in _SYNONYMS.items() if word in theirs), word):
        if alike in known:
            return alike
    initials = "".join(part[:1] for part in word.split("_"))
    near = difflib.get_close_matches(word, known, n=1)
    return near[0] if near else initials if initials in known else None


def _intended(law: str, got: object) -> str | None:
    """A value that obeys the law and looks like the one that does not."""
    if isinstance(got, dict) and len(got) == 1:
        kind = _nearest(next(iter(got)), space.KINDS)
        return f"{{{kind}: …}}" if kind else None
    if law == _LAWS["string_type"]:
        return f'"{show(got)}"' if isinstance(got, int | float) else None
    if law == _LAWS["bool_type"] and isinstance(got, str):
        return {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(got.lower())
    if law == WHOLE and isinstance(got, float) and got.is_integer():
        return str(int(got))
    if law in (WHOLE, _LAWS["float_type"]) and isinstance(got, str):
        return got if re.fullmatch(r"[-+]?\d+(\.\d+)?", got) else None
    return None
