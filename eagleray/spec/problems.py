"""What is wrong with an experiment file, said as `file:line: dotted.key: law, but got value`."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable

import pydantic
from pydantic_core import ErrorDetails

from eagleray import terms
from eagleray.spec import document, sections, space
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
_KEYS = {at: tuple(section.model_fields) for at, section in sections.walk()}
_ELSEWHERE = {
    name: document.dotted((*at, name))
    for at, names in _KEYS.items()
    for name in names
    if at[:1] not in (("features",), ("model",))
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A law that is broken: at which key, what stands there instead, and what was meant."""

    key: Key
    law: str
    got: str | None = None
    near: str | None = None

    def __str__(self) -> str:
        got = f", but got {self.got}" if self.got is not None else ""
        near = f"; did you mean {self.near}" if self.near else ""
        return f"{document.dotted(self.key)}: {self.law}{got}{near}".removeprefix(": ")


class Report:
    """The problems of one document, in the order of its lines, each once."""

    def __init__(self, page: document.Document) -> None:
        self._page = page
        self._found = dict.fromkeys(page.problems)
        self.keys: set[Key] = set()

    def add(self, problem: Problem, at: Key | None = None) -> None:
        """`at` is where the fault stands in the file, if that is more exact than its key."""
        self.keys.add(problem.key)
        self._found[self._page.line(at or problem.key), str(problem)] = None

    def faulty(self) -> set[str]:
        """The sections that have problems; the empty name is the whole file."""
        return {document.dotted(key[:1]) for key in self.keys}

    def lines(self) -> list[str]:
        found = sorted(self._found, key=lambda entry: entry[0])
        path = self._page.path
        return [f"{path}:{line}: {text}" if line else f"--set {text}" for line, text in found]


def explain(error: pydantic.ValidationError) -> list[Problem]:
    """The complaints of pydantic in our words, without those that follow from others."""
    found = error.errors(include_url=False)
    return [_explain(one) for one in found if one["type"] != "default_factory_not_called"]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The likeliest of `known`: as the field calls it too, alike, or by initials (`lr`)."""
    known = list(known)
    for meant in (terms.SYNONYMS.get(word.lower()), word.lower()):
        if meant in known:
            return meant
    initials = "".join(part[:1] for part in word.split("_"))
    near = difflib.get_close_matches(word, known, n=1)
    return near[0] if near else initials if initials in known else None


def show(value: object) -> str:
    """A value as it could stand in the file, or its beginning."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _explain(details: ErrorDetails) -> Problem:
    loc, got, context = details["loc"], details["input"], details.get("ctx", {})
    key = (*loc[:1], *loc[2:]) if loc[0] == "model" and len(loc) > 1 else loc
    match details["type"]:
        case "missing":
            return Problem(key, "is required")
        case "extra_forbidden":
            return _unknown(loc, key)
        case "union_tag_invalid":
            return _unknown_model(got)
        case "literal_error":
            return _not_among(key, re.findall(r"'([^']+)'", context["expected"]), got)
        case "choice":
            return _not_among(key, context["names"], got)
        case "law":
            return Problem(key, details["msg"], context.get("got", show(got)), context.get("near"))
        case "string_pattern_mismatch":
            return Problem(key, terms.PATTERNS[context["pattern"]], show(got))
    law = _LAWS.get(details["type"], details["msg"])
    bounds = {name: f"{value:.10g}" for name, value in context.items() if _is_number(value)}
    return Problem(key, law.format_map(bounds), show(got), _meant(law, got))


def _unknown(loc: Key, key: Key) -> Problem:
    """`loc` is where pydantic looked: behind `model` it has the model's type."""
    if document.dotted(key) in terms.NOT_BUILT:
        return Problem(key, "is not built yet")
    section = tuple(str(part) for part in loc[:-1])
    if section[:1] == ("features",):
        section = ("features", sections.FeatureOptions.tag or "")
    word, known = str(loc[-1]), _KEYS[section]
    if near := nearest(word, known):
        return Problem(key, "unknown key", near=document.dotted((*key[:-1], near)))
    if near := nearest(word, _ELSEWHERE):
        return Problem(key, "unknown key", near=_ELSEWHERE[near])
    return Problem(key, f"unknown key; known are {', '.join(known)}")


def _unknown_model(got: dict[str, object]) -> Problem:
    kind = got["type"]
    if kind in terms.NOT_BUILT:
        return Problem(("model", "type"), f"{kind} is not built yet")
    return _not_among(("model", "type"), [at[1] for at in _KEYS if at[:1] == ("model",)], kind)


def _not_among(key: Key, names: list[str], got: object) -> Problem:
    law = f"must be one of {', '.join(names)}"
    near = nearest(got, names) if isinstance(got, str) else _meant(law, got)
    return Problem(key, law, show(got), near)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _meant(law: str, got: object) -> str | None:
    """The value that obeys the law and looks like the one that does not."""
    if isinstance(got, dict) and len(got) == 1:
        (word,) = got
        kind = nearest(word, space.KINDS)
        return f"{{{kind}: …}}" if kind else None
    if law == _LAWS["string_type"]:
        return f'"{show(got)}"' if _is_number(got) else None
    if law == _LAWS["bool_type"] and isinstance(got, str):
        return {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(got.lower())
    if law == WHOLE and isinstance(got, float) and got.is_integer():
        return str(int(got))
    if law in (WHOLE, _LAWS["float_type"]) and isinstance(got, str):
        return got if re.fullmatch(r"[-+]?\d+(\.\d+)?", got) else None
    return None
