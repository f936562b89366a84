"""The values and commands of docs/kubernetes.md, held to the chart."""

import re
import shlex
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.chart import chart
from tests.chart.test_kubernetes import VERSIONS, validator
from tests.chart.test_schema import SCHEMA

PAGE = (chart.ROOT / "docs" / "kubernetes.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w-]+-values\.yaml)\n")
CORE = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1")


def snippets() -> dict[str, dict[str, Any]]:
    """The YAML blocks that begin with the name of a values file."""
    bodies = [body for language, body in BLOCK.findall(PAGE) if language == "yaml"]
    return {named[1]: yaml.safe_load(body) for body in bodies if (named := FILE.match(body))}


def commands(program: str) -> list[list[str]]:
    blocks = [body.replace("\\\n", " ") for language, body in BLOCK.findall(PAGE) if not language]
    lines = [line.split(" #")[0] for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(program + " ")]


@pytest.mark.parametrize("file", snippets())
def test_every_values_snippet_renders_legal_objects(file: str) -> None:
    values = chart.merged(chart.MINIMAL, snippets()[file])
    jsonschema.Draft202012Validator(SCHEMA).validate(snippets()[file])
    found = chart.documents(values, name="churn")
    for document in [*found, *chart.runs(found)]:
        if document["apiVersion"] == "ray.io/v1":
            validator(document["kind"]).validate(document)
        elif document["apiVersion"] in CORE:
            assert kubernetes_validate.validate(document, VERSIONS[1], strict=True)


def test_there_is_a_snippet_for_each_platform_and_the_rest_add_to_them() -> None:
    whole = {file for file, values in snippets().items() if "model" in values}
    assert whole == {f"{where}-values.yaml" for where in ("eks", "gke", "metal", "trial")}
    for file, values in snippets().items():
        if file not in whole:
            platform = chart.merged(snippets()["metal-values.yaml"], values)
            assert chart.documents(platform, name="churn"), file


def test_every_yaml_block_is_values_or_an_object_for_the_cluster() -> None:
    for language, body in BLOCK.findall(PAGE):
        if language == "yaml":
            assert FILE.match(body) or yaml.safe_load(body)["kind"], body[:60]


@pytest.mark.parametrize("words", commands("helm"), ids=" ".join)
def test_helm_is_asked_for_charts_files_and_values_that_there_are(words: list[str]) -> None:
    if "kuberay-operator" in words:
        assert words[words.index("--repo") + 1].startswith("https://ray-project.github.io/")
        return
    assert "helm/eagleray" in words or words[1] in ("rollback", "test", "uninstall")
    files = [words[at + 1] for at, word in enumerate(words) if word == "--values"]
    assert set(files) <= set(snippets())
    values = snippets()[files[0]] if files else chart.MINIMAL
    for at, word in enumerate(words):
        if word in ("--set", "--set-string"):
            key, _, value = words[at + 1].partition("=")
            section, name = key.split(".")
            values = chart.merged(values, {section: {name: value}})
    assert chart.documents(values, name="churn")


def test_every_alert_of_the_chart_is_explained_and_no_other() -> None:
    values = chart.merged(chart.MINIMAL, snippets()["monitoring-values.yaml"])
    rules = chart.one(chart.documents(values), "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert set(re.findall(r"^\| `(EagleRay\w+)`", PAGE, re.MULTILINE)) == {
        rule["alert"] for rule in rules
    }


def test_the_values_that_the_text_names_exist() -> None:
    defaults = yaml.safe_load((chart.FOLDER / "values.yaml").read_text())
    pattern = (
        r"`((?:storage|ray|serving|tuning|runs|spot|gpu|networkPolicy|objectStore)\.[\w.]+)[:`]"
    )
    for key in re.findall(pattern, PAGE):
        found: Any = defaults
        for part in key.split("."):
            assert part in found, key
            found = found[part]


def test_the_policy_for_cilium_selects_the_heads_of_a_release() -> None:
    (policy,) = [yaml.safe_load(body) for _, body in BLOCK.findall(PAGE) if "cilium.io" in body]
    wanted = policy["spec"]["endpointSelector"]["matchLabels"]
    labels = [
        pod["metadata"]["labels"]
        for pod in chart.pods(chart.documents(snippets()["metal-values.yaml"], name="churn"))
    ]
    heads = [each for each in labels if wanted.items() <= each.items()]
    assert {each["app.kubernetes.io/component"] for each in heads} == {"serving", "tuning"}
