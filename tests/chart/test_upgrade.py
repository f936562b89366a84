"""An upgrade of a release whose objects the operator and the autoscaler have written since."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from helm_python import _native
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.utils import quantity

from tests import kuberay
from tests.chart import chart
from tests.fields import Live, defaulted

GROUPS = ("rayClusterConfig", "workerGroupSpecs")
VERSIONS = pytest.mark.parametrize("version", ["1.5", "1.6", "1.7"])

# As the documentation of resource.Quantity gives them, and its tests.
CANONICAL = {
    "0": "0", "0Gi": "0", "0.0": "0", "1": "1", "01": "1", "+1": "1", "1.": "1", ".5": "500m",
    "0.5": "500m", "1000m": "1", "1500m": "1500m", "1.5": "1500m", "100m": "100m", "0.1": "100m",
    "1000": "1k", "1024": "1024", "4000M": "4G", "4096M": "4096M", "1e3": "1e3", "1E3": "1e3",
    "1e4": "10e3", "12e-1": "1200e-3", "1000e0": "1e3", "1.5Gi": "1536Mi", "2048Mi": "2Gi",
    "1024Ki": "1Mi", "1000Mi": "1000Mi", "0.5Ki": "512", "0.5Mi": "512Ki", "1Ki": "1Ki",
    "1.1Ki": "1126400m", "1000000n": "1m", "999": "999", "1G": "1G", "64Gi": "64Gi",
}  # fmt: skip
suffixes = st.sampled_from(
    ["", "n", "u", "m", "k", "M", "G", "T", *kuberay.BINARY[:4], "e3", "E-2", "e+1"]
)
texts = st.builds(
    lambda whole, part, suffix: f"{whole}{part}{suffix}",
    st.integers(0, 99_999),
    st.one_of(st.just(""), st.integers(0, 999).map(lambda part: f".{part}")),
    suffixes,
).filter(lambda text: float(quantity_of(text)) * 1e9 % 1 == 0 and quantity_of(text) < 10**18)
variables = st.one_of(
    st.builds(lambda value: {"name": "A", "value": value}, st.sampled_from(["", "a", "0"])),
    st.sampled_from(["500m", "1", "0", "0.001"]).map(
        lambda divisor: {
            "name": "A",
            "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": divisor}},
        }
    ),
    st.just({"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}),
    st.just({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
    st.booleans().map(
        lambda value: {
            "name": "A",
            "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": value}},
        }
    ),
)
tolerations = st.fixed_dictionaries(
    {"key": st.sampled_from(["", "pool"]), "operator": st.just("Exists")},
    optional={
        "value": st.just(""),
        "effect": st.just("NoExecute"),
        "tolerationSeconds": st.integers(0, 9),
    },
)


def quantity_of(text: str) -> Any:
    return quantity.parse_quantity(text)


def rendered(changes: Any, kind: str = "RayService", **options: Any) -> Any:
    """The specification of a Ray object."""
    found = chart.documents(chart.merged(chart.MINIMAL, changes), **options)
    return copy.deepcopy(chart.one(found, kind)["spec"])


def installed(kind: str, spec: Any) -> Live:
    """An object that Helm has applied, and to which the operator has added its finalizer since."""
    live = Live(schema=kuberay.schema(kind))
    live.apply("helm", spec)
    live.update("kuberay-operator", kuberay.written(live.thing, live.schema))
    return live


def ray_specs(values: Any) -> Iterator[tuple[str, Any]]:
    for each in chart.documents(values):
        if each["kind"] in ("RayService", "RayCluster"):
            yield each["kind"], each["spec"]


@pytest.mark.parametrize("case", chart.CI)
def test_an_upgrade_after_the_operators_update_conflicts_with_nothing(case: str) -> None:
    changed = {"ray": {"env": [{"name": "REVISION", "value": "2"}]}}
    after = dict(ray_specs(chart.merged(chart.values_of(case), changed)))
    for kind, spec in ray_specs(chart.values_of(case)):
        assert after[kind] != spec
        assert not installed(kind, spec).apply("helm", after[kind])


@VERSIONS
def test_the_operator_owns_nothing_of_what_helm_applies(version: str) -> None:
    live = Live(schema=kuberay.schema("RayService"))
    live.apply("helm", rendered({"kuberay": {"version": version}}))
    assert live.update("kuberay-operator", kuberay.written(live.thing, live.schema)) == []


def test_what_the_cluster_refused_before_is_refused_here_too() -> None:
    """That the emulation sees the conflicts which a cluster showed."""
    for spoil in (no_strategy, half_a_cpu, mebibytes, a_number_of_gpus):
        spec = rendered({})
        spoil(spec["rayClusterConfig"]["workerGroupSpecs"][0])
        changed = copy.deepcopy(spec)
        changed["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] += 1
        assert list(installed("RayService", spec).apply("helm", changed)) == [GROUPS]


def no_strategy(group: Any) -> None:
    del group["scaleStrategy"]


def half_a_cpu(group: Any) -> None:
    requests(group)["cpu"] = "0.5"


def mebibytes(group: Any) -> None:
    requests(group)["memory"] = "2048Mi"


def a_number_of_gpus(group: Any) -> None:
    requests(group)["nvidia.com/gpu"] = 1


def requests(group: Any) -> Any:
    return group["template"]["spec"]["containers"][0]["resources"]["requests"]


def test_quantities_are_written_as_kubernetes_documents_them(alone: Path) -> None:
    assert [kuberay.canonical(text) for text in CANONICAL] == list(CANONICAL.values())
    assert quantities(alone, list(CANONICAL)) == list(CANONICAL.values())


@settings(max_examples=100)
@given(given=st.lists(texts, min_size=1, max_size=30))
def test_any_quantity_is_written_in_its_canonical_form(alone: Path, given: list[str]) -> None:
    for text, found in zip(given, quantities(alone, given), strict=True):
        assert found == kuberay.canonical(text)
        assert quantity_of(found) == quantity_of(text)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart of nothing but quantities, by our chart's own template."""
    folder = tmp_path_factory.mktemp("chart") / "alone" / "templates"
    folder.mkdir(parents=True)
    shutil.copy(chart.FOLDER / "templates" / "_quantity.tpl", folder)
    (folder / "all.yaml").write_text(
        '{{ range .Values.all }}- {{ include "eagleray.quantity" . | quote }}\n{{ end }}'
    )
    (folder.parent / "Chart.yaml").write_text("{apiVersion: v2, name: alone, version: 0.1.0}")
    return folder.parent


def quantities(folder: Path, given: list[Any]) -> list[str]:
    with helm_python.Chart.load(folder) as loaded:
        options = json.dumps({"name": "a", "namespace": "ml"})
        values = json.dumps({"all": given})
        said = json.loads(_native.call_string("helm_render", loaded._raw(), values, options))
    found: list[str] = yaml.safe_load(said["alone/templates/all.yaml"])
    return found


@pytest.mark.parametrize("text", ["", "Gi", "4 GB", "1.2.3", "-1", "1kk", "1ki", "1e", "0x10"])
def test_what_is_no_quantity_is_refused_by_its_key(text: str) -> None:
    values = {"serving": {"head": {"memory": text}}}
    with pytest.raises(helm_python.HelmValuesError, match="memory"):
        rendered(values)


@pytest.mark.parametrize(
    "text", ["0.1n", "1E", "1000P", "1e18", "1024Pi", "99Ei", "1.0123456789Gi"]
)
def test_a_quantity_beyond_what_kubernetes_keeps_exactly_is_refused(alone: Path, text: str) -> None:
    with pytest.raises(helm_python.HelmError, match="a quantity must be"):
        quantities(alone, [text])


def test_a_number_is_a_quantity(alone: Path) -> None:
    assert quantities(alone, [1073741824, 4_000_000_000, 2]) == ["1073741824", "4G", "2"]


@settings(max_examples=12)
@given(
    env=st.lists(variables, max_size=1),
    taints=st.lists(tolerations, max_size=2),
    size=texts,
    version=st.sampled_from(["1.5", "1.6", "1.7"]),
    gpus=st.integers(0, 3),
)
def test_whatever_values_say_the_operator_writes_what_helm_applied(
    env: Any, taints: Any, size: str, version: str, gpus: int
) -> None:
    group = {"name": "a", "min": 0, "max": 1, "cpus": 1, "memory": size, "tolerations": taints}
    changes = {
        "kuberay": {"version": version},
        "ray": {
            "env": env,
            "autoscaler": {"cpu": size},
            "faultTolerance": {"embedded": version == "1.7", "size": size},
        },
        "serving": {"workers": {"tolerations": taints, "memory": size}},
        "tuning": {"enabled": True, "workers": [group | {"gpus": gpus, "spot": True}]},
    }
    for kind, spec in ray_specs(chart.merged(chart.MINIMAL, changes)):
        kept = defaulted(spec, kuberay.schema(kind))
        assert kuberay.written(kept, kuberay.schema(kind)) == kept
        if version == "1.7":  # whose definitions are those that `defaulted` knows
            assert groups(kept) == groups(spec)


def groups(spec: Any) -> Any:
    return spec.get("rayClusterConfig", spec)["workerGroupSpecs"]
