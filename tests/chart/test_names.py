"""Names and labels stay legal whatever a release is called."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chart import chart

LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035: what KubeRay and Services ask for
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
MOST = {
    # what KubeRay refuses beyond: it appends -xxxxx to a service and a job, -head-svc to a cluster
    "RayService": 47,
    "RayCluster": 53,
    "RayJob": 47,
    # the runs of a schedule are called by it, a dash and ten letters at most
    "RayCronJob": 36,
    "CronJob": 36,
    "StatefulSet": 52,  # a pod's label has its name and a hash of ten letters
}
LONGEST = "a" * 26 + "-" + "b" * 26  # 53, as Helm allows
NAMES = ["x", "demo", LONGEST, "1st", "a.b", "9" * 53, "-".join("abcdefghijklmnopqrstuvwxyza")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("apis", [(), ("ray.io/v1/RayService", "ray.io/v1/RayCronJob")])
def test_names_and_labels_are_legal(name, apis):
    values = chart.values_of("everything")
    found = chart.documents(values, name=name, apis=(*chart.EVERYTHING, *apis))
    for document in found:
        given_name = document["metadata"]["name"]
        assert LABEL.fullmatch(given_name), given_name
        assert len(given_name) <= MOST.get(document["kind"], 63), document["kind"]
    for labels in (each["metadata"].get("labels", {}) for each in [*found, *chart.pods(found)]):
        assert all(VALUE.fullmatch(value) for value in labels.values())
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(names) == len(set(names))


release = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?(\.[a-z0-9])?", fullmatch=True)


@settings(max_examples=10)
@given(
    st.sets(
        release.filter(lambda name: len(name) <= 53 and not name.endswith("-tuning")),
        min_size=2,
        max_size=3,
    )
)
def test_two_releases_never_share_a_name(names):
    services = {
        chart.one(chart.documents(chart.MINIMAL, name=name), "RayService")["metadata"]["name"]
        for name in names
    }
    assert len(services) == len(names)


def test_a_release_called_as_the_tuning_cluster_of_another_is_refused():
    told = chart.refusal(chart.MINIMAL, name="demo-tuning")
    assert "the release must not be called demo-tuning: KubeRay's Services" in told
    assert chart.documents(chart.MINIMAL, name="tuning")


def test_the_services_that_kuberay_makes_are_those_that_are_named():
    values = chart.values_of("everything")
    for name in ("demo", LONGEST):
        found = chart.documents(values, name=name)
        service = chart.one(found, "RayService")["metadata"]["name"] + "-serve-svc"
        (rule,) = chart.one(found, "Ingress")["spec"]["rules"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert (backend["name"], backend["port"]) == (service, {"number": 8000})
        (route,) = chart.one(found, "HTTPRoute")["spec"]["rules"]
        assert route["backendRefs"] == [{"name": service, "port": 8000}]
        assert service in chart.notes(values, name=name)
        test = chart.one(found, "Pod")["spec"]["containers"][0]["command"]
        assert f"http://{service}.ml.svc:8000" in test


def test_the_chart_and_the_registry_agree_on_names():
    import json

    from eagleray import names

    schema = json.loads((chart.FOLDER / "values.schema.json").read_text())
    assert schema["$defs"]["label"]["pattern"] == f"^{names._LABEL.pattern}$"
