"""Every object against the schemas of the API servers that will be asked to take it."""

import copy
import functools

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from tests import kuberay
from tests.chart import chart

VERSIONS = ("1.29", "1.37")
FOREIGN = ("ray.io/", "monitoring.coreos.com/", "gateway.networking.k8s.io/")


@pytest.fixture(autouse=True, scope="module")
def schemas_read_once():
    patch = pytest.MonkeyPatch()
    patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    yield
    patch.undo()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", chart.CI)
def test_core_objects_are_legal(case, version):
    found = chart.documents(chart.values_of(case), kubernetes=f"v{version}.0")
    core = [each for each in found if not each["apiVersion"].startswith(FOREIGN)]
    assert core
    for document in core:
        assert kubernetes_validate.validate(document, version, strict=True) == version


def test_the_oldest_and_the_newest_version_are_tested():
    metadata = yaml.safe_load((chart.FOLDER / "Chart.yaml").read_text())
    assert metadata["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    assert VERSIONS[1] == kubernetes_validate.latest_version().removesuffix(".0")


@pytest.mark.parametrize("apis", [(), ("ray.io/v1/RayService", "ray.io/v1/RayCronJob")])
@pytest.mark.parametrize("case", chart.CI)
def test_ray_objects_are_legal_and_have_no_unknown_field(case, apis):
    found = chart.documents(chart.values_of(case), apis=(*chart.EVERYTHING, *apis))
    ray = [each for each in found if each["apiVersion"].startswith("ray.io/")]
    assert ray
    for document in [*ray, *chart.runs(found)]:
        validator(document["kind"]).validate(document)


def test_an_unknown_field_of_a_ray_object_is_found():
    service = copy.deepcopy(chart.one(chart.documents(chart.MINIMAL), "RayService"))
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["hostNetwrk"] = True
    with pytest.raises(jsonschema.ValidationError, match="hostNetwrk"):
        validator("RayService").validate(service)


@functools.cache
def validator(kind):
    """A validator for KubeRay 1.7's definition; what the API server would drop is refused."""
    schema = kuberay.schemas()[kind]
    closed(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def closed(schema):
    """Refuse fields that a schema does not name, as pruning drops them."""
    if schema.get("x-kubernetes-int-or-string"):
        schema["type"] = ["integer", "string"]
        schema.pop("anyOf", None)
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    for child in schema.get("properties", {}).values():
        closed(child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            closed(schema[key])
