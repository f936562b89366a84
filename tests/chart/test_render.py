import helm_python
import pytest
import yaml

from tests.chart import chart, snapshots


@pytest.mark.parametrize("case", chart.CI)
def test_helm_lints_the_chart_with_each_values_file_and_finds_nothing(case):
    report = helm_python.lint(chart.FOLDER, dict(chart.values_of(case)), strict=True)
    icon = "icon is recommended"
    found = [message["error"] for message in report["messages"] if message["error"] != icon]
    assert found == []
    assert report["errors"] == []


@pytest.mark.parametrize("case", chart.CI)
def test_a_render_is_the_committed_one(case):
    """Else read the difference, and renew: python -m tests.chart.snapshots."""
    assert chart.snapshot(chart.values_of(case)) == snapshots.path(case).read_text()


def test_every_committed_render_has_its_values_file():
    assert {path.stem for path in snapshots.FOLDER.glob("*")} == set(chart.CI)


def test_two_values_install():
    found = chart.documents(chart.MINIMAL)
    kinds = {document["kind"] for document in found}
    assert "RayService" in kinds
    assert not kinds & {"RayCluster", "StatefulSet", "Ingress", "HTTPRoute", "CronJob", "Secret"}


def test_a_second_render_is_the_same_but_for_made_up_keys():
    values = chart.values_of("minimal")
    chart._text.cache_clear()
    first = chart.snapshot(values)
    chart._text.cache_clear()
    assert chart.snapshot(values) == first


def test_no_object_comes_twice_and_each_is_of_this_namespace():
    for case in chart.CI:
        found = chart.documents(chart.values_of(case))
        keys = [(document["kind"], document["metadata"]["name"]) for document in found]
        assert len(keys) == len(set(keys)), case
        assert {document["metadata"].get("namespace", "ml") for document in found} == {"ml"}


def test_two_releases_of_a_namespace_share_no_name_and_select_no_pod_of_the_other():
    values = chart.values_of("everything")
    first, second = (chart.documents(values, name=name) for name in ("one", "two"))
    names = [
        {(each["kind"], each["metadata"]["name"]) for each in found} for found in (first, second)
    ]
    assert not names[0] & names[1]
    for document in first:
        for selector in selectors(document):
            assert selector["app.kubernetes.io/instance"] == "one"


def selectors(document):
    """What policies, budgets, services and sets select by, in this release."""
    spec = document.get("spec", {})
    if document["kind"] == "NetworkPolicy":
        yield spec["podSelector"]["matchLabels"]
    if document["kind"] in ("PodDisruptionBudget", "StatefulSet", "PodMonitor"):
        yield spec["selector"]["matchLabels"]
    if document["kind"] == "Service":
        yield spec["selector"]


def test_the_experiments_of_schedules_are_files_that_the_specification_takes(tmp_path):
    from eagleray import spec

    found = chart.documents(chart.values_of("everything"))
    for name, body in chart.one(found, "ConfigMap", "experiments")["data"].items():
        (tmp_path / name).write_text(body)
        assert spec.load(tmp_path / name).name == yaml.safe_load(body)["name"]
