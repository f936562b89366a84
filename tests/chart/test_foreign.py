# ruff: noqa: N815 (fields are named by their operators)
"""What the chart makes of other operators' kinds has no field that those do not know.

Their definitions are in no Python package that we could install without a framework around it, so
the fields that the chart uses are written down here, with their types; any other one is refused.
https://prometheus-operator.dev/docs/api-reference/api, https://gateway-api.sigs.k8s.io/reference/spec
"""

from typing import Annotated, Any, Literal

import pydantic
import pytest

from tests.chart import chart

Duration = Annotated[str, pydantic.StringConstraints(pattern=r"^([0-9]+(ms|s|m|h|d))+$")]
Label = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
Host = Annotated[
    str, pydantic.StringConstraints(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
Port = Annotated[int, pydantic.Field(ge=1, le=65535)]


class Closed(pydantic.BaseModel, extra="forbid", strict=True):
    """Unknown fields, and values of another type, are refused."""


class Expression(Closed):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = []


class Selector(Closed):
    matchLabels: dict[str, str] = {}
    matchExpressions: list[Expression] = []


class Scrape(Closed):
    port: str
    path: str
    interval: Duration


class PodMonitor(Closed):
    selector: Selector
    podMetricsEndpoints: list[Scrape]
    podTargetLabels: list[str] = []


class ServiceMonitor(Closed):
    selector: Selector
    endpoints: list[Scrape]


class Rule(Closed):
    expr: str
    alert: str | None = None
    record: str | None = None
    labels: dict[Label, str] = {}
    annotations: dict[Label, str] = {}
    for_: Annotated[Duration | None, pydantic.Field(alias="for")] = None


class Group(Closed):
    name: str
    rules: list[Rule]
    interval: Duration | None = None


class PrometheusRule(Closed):
    groups: list[Group]


class Parent(Closed):
    name: str
    namespace: str | None = None
    sectionName: str | None = None
    port: Port | None = None
    group: str | None = None
    kind: str | None = None


class Path(Closed):
    type: Literal["Exact", "PathPrefix", "RegularExpression"]
    value: str


class Match(Closed):
    path: Path


class Backend(Closed):
    name: str
    port: Port


class Route(Closed):
    matches: list[Match]
    backendRefs: list[Backend]


class HTTPRoute(Closed):
    parentRefs: list[Parent]
    rules: list[Route]
    hostnames: list[Host] = []


KINDS = {
    "PodMonitor": ("monitoring.coreos.com/v1", PodMonitor),
    "ServiceMonitor": ("monitoring.coreos.com/v1", ServiceMonitor),
    "PrometheusRule": ("monitoring.coreos.com/v1", PrometheusRule),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", HTTPRoute),
}
SERVICES = {"monitoring": {"podMonitor": {"enabled": False}, "serviceMonitor": {"enabled": True}}}


def foreign() -> list[dict[str, Any]]:
    everything = chart.values_of("everything")
    cases = (everything, chart.merged(everything, SERVICES))
    return [one for case in cases for one in chart.documents(case) if one["kind"] in KINDS]


def test_every_foreign_kind_has_a_render() -> None:
    assert {one["kind"] for one in foreign()} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_and_types_are_those_that_the_operator_knows(kind: str) -> None:
    version, model = KINDS[kind]
    for one in foreign():
        if one["kind"] == kind:
            assert one["apiVersion"] == version
            model.model_validate(one["spec"])


def test_a_field_that_the_operator_does_not_know_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="podMetricEndpoints"):
        PodMonitor.model_validate({"selector": {}, "podMetricEndpoints": []})
