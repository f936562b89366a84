"""The chart, rendered by Helm itself, in process; no cluster and no helm program."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml
from helm_python import (
    _native,
)  # its `render` does not pass Helm's --api-versions and --kube-version

from tests.values import merged as merged

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "helm" / "eagleray"
CI = {path.name.removesuffix("-values.yaml"): path for path in sorted(FOLDER.glob("ci/*.yaml"))}

OPERATOR = ("ray.io/v1",)
EVERYTHING = (*OPERATOR, "monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")
MINIMAL = {"model": {"name": "churn"}, "storage": {"uri": "s3://models"}}

Document = dict[str, Any]
Values = Mapping[str, Any]


def values_of(case: str) -> Values:
    """The values of one of the ci files."""
    return yaml.safe_load(CI[case].read_text())


def text(
    values: Values,
    *,
    name: str = "demo",
    apis: tuple[str, ...] = EVERYTHING,
    kubernetes: str = "v1.36.0",
) -> dict[str, str]:
    """What each template gives, by its path in the chart."""
    options = {"name": name, "namespace": "ml", "api_versions": apis, "kube_version": kubernetes}
    return _text(json.dumps(values), json.dumps(options))


@functools.cache
def _text(values: str, options: str) -> dict[str, str]:
    with helm_python.Chart.load(FOLDER) as loaded:
        _native.call_status("helm_schema_validate", loaded._raw(), values)
        rendered = json.loads(_native.call_string("helm_render", loaded._raw(), values, options))
    return {path.removeprefix("eagleray/templates/"): body for path, body in rendered.items()}


def documents(values: Values, **options: Any) -> list[Document]:
    """All objects of a render; they are shared: copy before you change one."""
    rendered = text(values, **options).items()
    bodies = [body for path, body in rendered if not path.endswith(("NOTES.txt", ".tpl"))]
    return list(_parsed("\n---\n".join(body for body in bodies if body.strip())))


@functools.cache
def _parsed(bodies: str) -> tuple[Document, ...]:
    return tuple(found for found in yaml.load_all(bodies, yaml.CSafeLoader) if found)


def notes(values: Values, **options: Any) -> str:
    """What Helm prints after an install."""
    return text(values, **options)["NOTES.txt"]


def refusal(values: Values, **options: Any) -> str:
    """Why Helm does not render these values."""
    try:
        text(values, **options)
    except helm_python.HelmError as error:
        return str(error)
    raise AssertionError("the chart must refuse these values, but renders them")


def of_kind(found: list[Document], kind: str) -> list[Document]:
    """The objects of a kind."""
    return [document for document in found if document["kind"] == kind]


def one(found: list[Document], kind: str, part: str = "") -> Document:
    """The object of a kind, with a name that has this part."""
    (document,) = [each for each in of_kind(found, kind) if part in each["metadata"]["name"]]
    return document


def runs(found: list[Document]) -> list[Document]:
    """The RayJobs that stand in ConfigMaps: the skeleton, and those that schedules create."""
    maps = [each["data"] for each in of_kind(found, "ConfigMap")]
    bodies = [
        body
        for data in maps
        for key, body in data.items()
        if key == "rayjob.yaml" or (key.endswith(".json") and '"RayJob"' in body)
    ]
    return [yaml.load(body, yaml.CSafeLoader) for body in bodies]


def pods(found: list[Document]) -> Iterator[Document]:
    """Every pod template of a render, those in ConfigMaps included, and pods themselves."""
    for document in [*found, *runs(found)]:
        if document["kind"] == "Pod":
            yield document
        yield from _templates(document)


def _templates(node: object) -> Iterator[Document]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and "containers" in node.get("spec", {}) and "kind" not in node:
        yield node
    for child in children:
        yield from _templates(child)


def snapshot(values: Values) -> str:
    """A render as one text; the keys that the embedded store makes up are left out."""
    rendered = sorted(text(values).items())
    said = {path: re.sub(r"\n\s*\n", "\n", body.strip()) for path, body in rendered}
    said.pop("NOTES.txt")
    bodies = [f"# {path}\n{body}\n" for path, body in said.items() if body]
    whole = "\n".join([*bodies, f"# NOTES.txt\n{notes(values).strip()}\n"])
    return re.sub(r"(AWS_\w+): [A-Za-z0-9+/=]{20,}", r"\1: made-up", whole)


def given(words: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """Values with what the `--set` and `--set-string` of a command say."""
    for at, word in enumerate(words):
        if word in ("--set", "--set-string"):
            key, _, text = words[at + 1].partition("=")
            value = text if word == "--set-string" else yaml.safe_load(text)
            for part in reversed(key.split(".")):
                value = {part: value}
            values = merged(values, value)
    return values
