"""The commands of examples/kind.py, held to the chart, the image and the command line."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eagleray import spec
from eagleray.cli import options
from tests.chart import chart
from tests.unit.test_docs import parse

SCRIPT = chart.ROOT / "examples" / "kind.py"


def script(what: str, *options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), what, *options]
    environment = {**os.environ, **({} if path is None else {"PATH": path})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def planned(what: str) -> list[list[str]]:
    """The commands that it would run, as words."""
    ended = script(what, "--dry-run")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line[2:] for line in ended.stdout.splitlines() if line.startswith("$ ")]
    return [shlex.split(line.removesuffix(" &").replace('"$(cat', '"(cat')) for line in lines]


def program(name: str, what: str = "demo") -> list[list[str]]:
    return [words for words in planned(what) if words[0] == name]


def rendered() -> list[Any]:
    """What its helm command would install."""
    (words,) = program("helm")
    at = words.index("--values")
    values = yaml.safe_load((chart.ROOT / words[at + 1]).read_text())
    assert words[1:5] == ["upgrade", "--install", "digits", "helm/eagleray"]
    values = chart.given(words, values)
    return chart.documents(values, name=words[3])


def test_a_dry_run_runs_nothing_and_needs_no_program() -> None:
    for what in ("up", "demo", "down"):
        assert script(what, "--dry-run", path="").returncode == 0


def test_the_chart_renders_with_its_values() -> None:
    kinds = {document["kind"] for document in rendered()}
    assert {"RayService", "StatefulSet", "Secret"} <= kinds


def test_the_image_that_is_built_and_loaded_is_the_one_that_pods_want() -> None:
    build, load = program("docker", "up")[0], program("kind", "up")[-1]
    (wanted,) = {pod["spec"]["containers"][0]["image"] for pod in chart.pods(rendered())}
    assert build == ["docker", "build", "-t", wanted, "."]
    assert load[1:4] == ["load", "docker-image", wanted]
    (started,) = [words for words in program("kubectl") if "run" in words]
    assert f"--image={wanted}" in started


def test_the_names_that_it_asks_kubectl_for_are_rendered() -> None:
    found = rendered()
    services = {each["metadata"]["name"] for each in chart.of_kind(found, "Service")}
    (service,) = chart.of_kind(found, "RayService")
    services.add(f"{service['metadata']['name']}-serve-svc")  # KubeRay makes it
    there = {
        "svc": services,
        "statefulset": {each["metadata"]["name"] for each in chart.of_kind(found, "StatefulSet")},
        "rayservice": {service["metadata"]["name"]},
    }
    named = {pair for words in program("kubectl") for word in words for pair in pairs(word)}
    assert {kind for kind, _ in named} == set(there)
    for kind, name in named:
        assert name in there[kind]
    (secret,) = [words for words in program("kubectl") if "secret" in words]
    assert secret[secret.index("secret") + 1] == chart.one(found, "Secret")["metadata"]["name"]


def pairs(word: str) -> list[tuple[str, str]]:
    return re.findall(r"^(svc|statefulset|rayservice)/([\w-]+)$", word)


def test_ports_are_those_of_the_services() -> None:
    forwards = [words[-2:] for words in program("kubectl") if "port-forward" in words]
    (store,) = chart.of_kind(rendered(), "Service")
    assert ["svc/digits-store", str(store["spec"]["ports"][0]["port"])] in forwards
    assert ["svc/digits-serve-svc", "8000"] in forwards


def test_the_experiment_loads_and_goes_where_the_release_keeps_its_models() -> None:
    (words,) = [words for words in planned("demo") if "eagleray" in words]
    parse(words[words.index("eagleray") + 1 :])
    sets = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    experiment = spec.load(chart.ROOT / words[words.index("run") + 1], options.overrides(sets))
    (service,) = chart.of_kind(rendered(), "RayService")
    args = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]["args"]
    assert (experiment.name, experiment.storage) == (args["name"], args["storage"])


def test_the_load_asks_the_service_of_the_release() -> None:
    (words,) = [words for words in program("kubectl") if "run" in words]
    (url,) = [word for word in words if word.startswith("http")]
    (test,) = chart.of_kind(rendered(), "Pod")
    assert url in test["spec"]["containers"][0]["command"]


def test_the_operator_is_pinned_to_the_version_that_the_documents_name() -> None:
    (words,) = program("helm", "up")
    version = words[words.index("--version") + 1]
    for page in ("docs/kubernetes.md", "tests/e2e/README.md"):
        assert f"--version {version}" in (chart.ROOT / page).read_text()


def test_the_operator_has_the_gate_that_the_release_needs() -> None:
    cluster = chart.one(rendered(), "RayService")["spec"]["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"]["backend"] == "rocksdb"
    (words,) = program("helm", "up")
    gate = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    assert gate == [
        "featureGates[0].name=GCSFaultToleranceEmbeddedStorage",
        "featureGates[0].enabled=true",
    ]
    for page in ("docs/kubernetes.md", "helm/intro.md", "tests/e2e/README.md"):
        assert all(f"--set '{each}'" in (chart.ROOT / page).read_text() for each in gate)


@pytest.mark.parametrize("what", ["up", "demo", "down"])
def test_a_program_that_is_missing_is_named_with_where_to_get_it(what: str, tmp_path: Path) -> None:
    ended = script(what, path=str(tmp_path))
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert lines
    assert all(line.startswith(f"make kind-{what}: needs ") for line in lines)
    assert all("https://" in line for line in lines)
