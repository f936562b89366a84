"""Alerts and dashboards ask for metrics that serving has, by labels that they have."""

import json
import re
import subprocess
import sys
from pathlib import Path

import promql_parser
import pytest
import ray
import yaml

from k8s import release
from tests.chart import chart

MONITORED = {
    "monitoring": {
        "podMonitor": {"enabled": True},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True},
    }
}
LIST = """
import sys
from pathlib import Path
from serving.metrics import Metrics
from tests import bundles
gauges = Metrics(Path(sys.argv[1]), "churn")
gauges.request("predict", 200, 0.1)
made = bundles.make()
made.number = 1
gauges.predicted(made, made.predict(bundles.rows(3)))
gauges.queued.set(1)
gauges.serving(1, instead_of=None)
gauges.loaded(1, 1.7e9)
gauges.captured(2)
gauges.not_captured(1)
gauges.refused(2)
gauges.storage_error()
gauges.ongoing.set(1)
print(gauges.exposition().decode())
"""


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """What a replica answers at /metrics, once everything has happened; in a process of its own."""
    command = [sys.executable, "-c", LIST, str(tmp_path_factory.mktemp("metrics"))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def expressions():
    found = chart.documents(chart.merged(chart.MINIMAL, MONITORED))
    (group,) = chart.one(found, "PrometheusRule")["spec"]["groups"]
    return [rule["expr"] for rule in group["rules"]] + shown(found, "serving")


def shown(found, name):
    """What the panels of a dashboard ask for."""
    (dashboard,) = chart.one(found, "ConfigMap", f"{name}-dashboard")["data"].values()
    panels = json.loads(dashboard)["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_metrics_of_ray_are_those_of_its_own_dashboards():
    found = chart.documents(chart.merged(chart.MINIMAL, MONITORED))
    own = Path(ray.__file__).parent / "dashboard/modules/metrics/dashboards"
    known = (own / "default_dashboard_panels.py").read_text()
    for expression in shown(found, "clusters"):
        promql_parser.parse(expression)
        for name in re.findall(r"\b((?:ray|autoscaler)_\w+)\{", expression):
            assert re.search(rf"\b{name}\b", known), name


def test_every_metric_that_is_asked_for_is_one_that_serving_has(exposed):
    series = set(re.findall(r"^(eagleray_\w+)\{", exposed, re.MULTILINE))
    asked = {name for each in expressions() for name in re.findall(r"eagleray_\w+", each)}
    assert len(asked) > 8
    assert asked <= series


def test_every_label_that_is_asked_for_is_one_that_the_metric_has(exposed):
    for expression in expressions():
        for name, matchers in re.findall(r"(eagleray_\w+)\{([^}]*)\}", expression):
            known = re.search(rf"^{name}\{{([^}}]*)\}}", exposed, re.MULTILINE)[1]
            labels = set(re.findall(r"(\w+)=", known)) | {"namespace"}  # which the scrape adds
            assert set(re.findall(r"(\w+)[=!]~?", matchers)) <= labels, expression


def test_every_metric_that_serving_has_is_on_the_dashboard(exposed):
    families = set(re.findall(r"^# TYPE (eagleray_\w+)", exposed, re.MULTILINE))
    asked = " ".join(expressions())
    assert [family for family in families if family not in asked] == []


def test_every_expression_is_promql():
    for expression in expressions():
        promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum(rate(eagleray_rows_total[5m])")


def test_the_alerts_are_of_this_model_and_say_what_to_do():
    found = chart.documents(chart.merged(chart.MINIMAL, MONITORED))
    (group,) = chart.one(found, "PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]:
        assert 'model="churn",namespace="ml"' in rule["expr"]
        assert {"summary", "description"} == set(rule["annotations"])
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_thresholds_are_values():
    rules = {"enabled": True, "errorRatio": 0.05, "p95Seconds": 0.2}
    values = chart.merged(chart.MINIMAL, {"monitoring": {"rules": rules}})
    (group,) = chart.one(chart.documents(values), "PrometheusRule")["spec"]["groups"]
    by_name = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    assert by_name["EagleRayErrors"].endswith("> 0.05")
    assert by_name["EagleRaySlow"].endswith("> 0.2")


def test_monitors_select_pods_and_ports_that_there_are():
    found = chart.documents(chart.merged(chart.MINIMAL, MONITORED))
    ports = {
        (labels["app.kubernetes.io/component"], labels["eagleray/role"]): {
            port["name"] for port in pod["spec"]["containers"][0].get("ports", [])
        }
        for pod in chart.pods(found)
        if "eagleray/role" in (labels := pod["metadata"]["labels"])
    }
    monitors = chart.of_kind(found, "PodMonitor")
    assert len(monitors) == 2
    for monitor in monitors:
        (component, role) = monitor["spec"]["selector"]["matchExpressions"]
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        chosen = [
            key for key in ports if key[0] in component["values"] and key[1] in role["values"]
        ]
        assert chosen
        assert all(endpoint["port"] in ports[key] for key in chosen)


def test_the_ports_of_workers_are_those_that_diagnosis_asks():
    service = chart.one(chart.documents(chart.MINIMAL), "RayService")["spec"]
    (group,) = service["rayClusterConfig"]["workerGroupSpecs"]
    ports = {
        port["name"]: port["containerPort"]
        for port in group["template"]["spec"]["containers"][0]["ports"]
    }
    assert ports["serve"] == release.SERVE_PORT
    assert ports["model-metrics"] == release.METRICS_PORT
    (application,) = yaml.safe_load(service["serveConfigV2"])["applications"]
    assert application["args"]["metrics_port"] == release.METRICS_PORT


def test_a_dashboard_has_its_own_id_on_every_panel():
    for path in chart.FOLDER.glob("files/dashboards/*.json"):
        panels = json.loads(path.read_text())["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert all(panel["description"] and panel["title"] for panel in panels)


def test_an_endpoint_that_may_be_at_zero_raises_no_alarm_while_it_is():
    idle = chart.merged(MONITORED, {"serving": {"replicas": {"min": 0}}})
    found = chart.documents(chart.merged(chart.MINIMAL, idle))
    (group,) = chart.one(found, "PrometheusRule")["spec"]["groups"]
    assert "EagleRayNotServing" not in {rule["alert"] for rule in group["rules"]}
