"""The values schema is closed: a typo or a wrong type is refused, by its name."""

import json

import helm_python
import jsonschema
import pytest
import yaml

from tests.chart import chart

SCHEMA = json.loads((chart.FOLDER / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((chart.FOLDER / "values.yaml").read_text())

WRONG = {
    "a typo at the top": ({"sevring": {}}, "sevring"),
    "a typo below": ({"serving": {"replica": {"min": 1}}}, "replica"),
    "a typo three deep": ({"serving": {"replicas": {"mni": 1}}}, "mni"),
    "a typo in a group of workers": (
        {
            "tuning": {
                "workers": [{"name": "a", "min": 0, "max": 1, "cpus": 1, "memory": "1Gi", "gpu": 1}]
            }
        },
        "gpu",
    ),
    "a group without a name": (
        {"tuning": {"workers": [{"min": 0, "max": 1, "cpus": 1, "memory": "1Gi"}]}},
        "name",
    ),
    "no group at all": ({"tuning": {"workers": []}}, "workers"),
    "a word for a number": ({"serving": {"replicas": {"min": "two"}}}, "min"),
    "a word for a switch": ({"tuning": {"enabled": "yes"}}, "enabled"),
    "a number below its range": ({"serving": {"replicas": {"min": -1}}}, "min"),
    "half a CPU for a Ray node": ({"serving": {"workers": {"cpus": 0.5}}}, "cpus"),
    "memory that is no quantity": ({"serving": {"head": {"memory": "4 GB"}}}, "memory"),
    "a model's name that is no label": ({"model": {"name": "Churn_Model"}}, "name"),
    "a version where an alias belongs": ({"model": {"version": 3}}, "version"),
    "storage that pods do not share": ({"storage": {"uri": "file:///models"}}, "uri"),
    "a bucket's name that is too short": ({"storage": {"uri": "s3://ab"}}, "uri"),
    "an endpoint without a scheme": ({"storage": {"endpoint": "minio:9000"}}, "endpoint"),
    "an image that moves": ({"image": {"tag": "latest"}}, "tag"),
    "a digest that is none": ({"image": {"digest": "sha256:abc"}}, "digest"),
    "an unknown pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    "an operator that is too old": ({"kuberay": {"version": "1.3"}}, "version"),
    "an operator's version as a number": ({"kuberay": {"version": 1.5}}, "version"),
    "an unknown autoscaler": ({"ray": {"autoscaler": {"version": "v3"}}}, "version"),
    "Redis without a port": (
        {"ray": {"faultTolerance": {"redisAddress": "redis"}}},
        "redisAddress",
    ),
    "an environment variable that serving owns": (
        {"ray": {"env": [{"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "0"}]}},
        "env",
    ),
    "the number of heaps": ({"ray": {"env": [{"name": "MALLOC_ARENA_MAX", "value": "8"}]}}, "env"),
    "an unknown upgrade": ({"serving": {"upgradeStrategy": {"type": "Rolling"}}}, "type"),
    "an unknown kind of schedule": ({"schedules": {"kind": "Cron"}}, "kind"),
    "a cron line of four fields": (
        {
            "schedules": {
                "searches": [
                    {"name": "a", "cron": "0 2 * *", "experiment": {"name": "a", "data": {}}}
                ]
            }
        },
        "cron",
    ),
    "a schedule without an experiment": (
        {"schedules": {"searches": [{"name": "a", "cron": "@daily"}]}},
        "experiment",
    ),
    "a peer that names nobody": ({"networkPolicy": {"clients": [{}]}}, "clients"),
    "a typo in a peer": ({"networkPolicy": {"clients": [{"podselector": {}}]}}, "podselector"),
    "further egress to everybody": (
        {"networkPolicy": {"extraEgress": [{"to": []}]}},
        "extraEgress",
    ),
    "a port out of range": ({"networkPolicy": {"apiServer": {"ports": [70000]}}}, "ports"),
    "a label that is no text": ({"podLabels": {"team": 7}}, "podLabels"),
    "a subject of no kind": ({"rbac": {"submitters": [{"name": "me"}]}}, "submitters"),
    "a part of more than all": ({"monitoring": {"rules": {"errorRatio": 2}}}, "errorRatio"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_refused_by_the_name_of_its_key(case):
    changes, key = WRONG[case]
    with pytest.raises(helm_python.HelmValuesError, match=key):
        chart.text(chart.merged(chart.MINIMAL, changes))


@pytest.mark.parametrize("case", chart.CI)
def test_every_values_file_is_accepted(case):
    jsonschema.Draft202012Validator(SCHEMA).validate(chart.values_of(case))


def test_the_defaults_and_the_schema_have_the_same_keys():
    assert keys(DEFAULTS, SCHEMA) == []
    assert set(SCHEMA["properties"]) - set(DEFAULTS) == {"global"}


def keys(values, schema, path=""):
    """The sections whose keys differ; lists and open maps are not looked into."""
    if not isinstance(values, dict) or "properties" not in schema:
        return []
    own = set(schema["properties"]) - {"global"}
    wrong = [f"{path}.{key}" for key in own ^ set(values)]
    below = [
        keys(values[key], schema["properties"][key], f"{path}.{key}") for key in own & set(values)
    ]
    return wrong + [key for found in below for key in found]


def test_every_object_of_the_schema_is_closed():
    assert [path for path, node in objects(SCHEMA) if "additionalProperties" not in node] == [
        # what Kubernetes and `eagleray check` judge better
        ".global",
        ".experiment",
        ".valueFrom",
    ]


def objects(node, path=""):
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for key, child in node.items():
            yield from objects(child, path if key in ("properties", "items") else f".{key}")
