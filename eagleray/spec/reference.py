"""The reference of the experiment file: JSON Schema for editors, tables of all keys for people."""

import inspect
from collections.abc import Iterator
from typing import Any

import pydantic

from eagleray import code
from eagleray.learn import features
from eagleray.spec import document, sections, validation
from eagleray.spec.problems import show

JSON = dict[str, Any]

_SEARCHED = [(name,) for name in validation.SEARCHED]
_ABOUT = ("default", "description")
_TYPES = {
    "boolean": "`true`, `false`",
    "integer": "whole number",
    "null": "`null`",
    "number": "number",
    "object": "mapping",
    "string": "text",
}
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
}


def json_schema() -> JSON:
    """JSON Schema, draft 2020-12; leaves of `features`, `model` and `train` take distributions."""
    schema: JSON = _untitled(sections.File.model_json_schema())
    fixed = {"type", *features.made.MAKERS, *features.own.OPTIONS}
    searched = {section.__name__ for at, section in sections.walk() if at[:1] in _SEARCHED}
    for name in searched & schema["$defs"].keys():
        leaves = schema["$defs"][name]["properties"]
        leaves.update({key: _widened(leaf) for key, leaf in leaves.items() if key not in fixed})
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": "EagleRay experiment", **schema}


def tables() -> str:
    """A heading and a table of keys for each section, as Markdown."""
    return "\n".join(line for at, section in sections.walk() for line in _table(at, section))


def _untitled(node: Any) -> Any:
    """The schema without the titles that pydantic makes of names."""
    if isinstance(node, list):
        return [_untitled(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _untitled(value) for key, value in node.items() if key != "title"}


def _widened(leaf: JSON) -> JSON:
    """The schema of a value, or of a distribution over such values."""
    about = {key: leaf[key] for key in _ABOUT if key in leaf}
    value = {key: part for key, part in leaf.items() if key not in _ABOUT}
    inside = dict(value)
    if "items" in value:
        inside["items"] = _widened(value["items"])
    if "prefixItems" in value:
        inside["prefixItems"] = [_widened(item) for item in value["prefixItems"]]
    if "anyOf" in value:
        inside["anyOf"] = [_inside_widened(branch) for branch in value["anyOf"]]
    return {**about, "anyOf": [inside, *_distributions(value)]}


def _inside_widened(branch: JSON) -> JSON:
    """A mapping whose values may be distributions; another branch as it is."""
    values = branch.get("additionalProperties")
    return branch | ({"additionalProperties": _widened(values)} if isinstance(values, dict) else {})


def _distributions(value: JSON) -> Iterator[JSON]:
    choices = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    yield _distribution("choice", choices)
    for branch in value.get("anyOf", [value]):
        if branch.get("type") in ("number", "integer"):
            step = {"type": branch["type"], "exclusiveMinimum": 0}
            yield _distribution("quniform", _listed(branch, branch, step))
            yield _distribution("randint", _listed({"type": "integer"}, {"type": "integer"}))
        if branch.get("type") == "number":
            yield _distribution("uniform", _listed(branch, branch))
            yield _distribution("loguniform", _listed({**branch, "exclusiveMinimum": 0}, branch))


def _distribution(kind: str, arguments: JSON) -> JSON:
    closed = {"required": [kind], "additionalProperties": False}
    return {"type": "object", "properties": {kind: arguments}, **closed}


def _listed(*items: JSON) -> JSON:
    count = len(items)
    return {"type": "array", "prefixItems": list(items), "minItems": count, "maxItems": count}


def _table(at: tuple[str, ...], section: type[pydantic.BaseModel]) -> Iterator[str]:
    leaves = section.model_json_schema().get("properties", {})
    rows = [
        f"| `{key}` | {_type(leaf)} | {_default(section, key, leaf)} | {leaf['description']} |"
        for key, leaf in leaves.items()
        if not _is_section(leaf)
    ]
    if rows:
        place = document.dotted(at) if at else "the file"
        yield from ("", f"### {place}", "", _about(section), "")
        yield from ("| key | type | default | meaning |", "|---|---|---|---|", *rows)


def _about(section: type[pydantic.BaseModel]) -> str:
    """The docstring without what it says of attributes, which are for who reads the code."""
    said, _, _ = inspect.cleandoc(section.__doc__ or "").partition("\n\nAttributes:")
    return said


def _default(section: type[pydantic.BaseModel], key: str, leaf: JSON) -> str:
    field = section.model_fields[key]
    if field.is_required():
        return "required"
    made = field.get_default(call_default_factory=True, validated_data={})
    return f"`{show(leaf.get('default', made))}`"


def _is_section(leaf: JSON) -> bool:
    return "$ref" in leaf or "oneOf" in leaf or "$ref" in leaf.get("additionalProperties", {})


def _type(leaf: JSON) -> str:
    if "anyOf" in leaf:
        return " or ".join(_type(branch) for branch in leaf["anyOf"])
    if "enum" in leaf or "const" in leaf:
        return ", ".join(f"`{name}`" for name in leaf.get("enum", [leaf.get("const")]))
    if leaf.get("pattern") == code.PATTERN:
        return "`module:function`"
    if "prefixItems" in leaf:
        return f"list of two: {_type(leaf['prefixItems'][0])}"
    if "items" in leaf:
        return f"list: {_type(leaf['items'])}"
    bounds = ", ".join(text.format(leaf[key]) for key, text in _BOUNDS.items() if key in leaf)
    return f"{_TYPES[leaf.get('type', 'object')]} {bounds}".rstrip()
