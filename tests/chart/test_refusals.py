"""Values that contradict each other, and clusters that lack something: what to set is said."""

import re

import pytest

from tests.chart import chart

OLD = ("ray.io/v1", "ray.io/v1/RayService", "ray.io/v1/RayCluster", "ray.io/v1/RayJob")
SEARCH = {
    "name": "a",
    "cron": "@daily",
    "experiment": {"name": "a", "data": {"source": "dataset:iris"}},
}
GROUP = {"name": "a", "min": 0, "max": 1, "cpus": 1, "memory": "1Gi"}

CONTRADICTIONS = {
    "no model": ({"model": {"name": ""}}, "--set model.name="),
    "no storage": ({"storage": {"uri": ""}}, "--set storage.uri="),
    "two S3 servers": (
        {"objectStore": {"embedded": True}, "storage": {"endpoint": "https://s3.example.com"}},
        "set one of the two",
    ),
    "keys and an identity": (
        {
            "storage": {"existingSecret": "keys"},
            "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn"}},
        },
        "set one of the two",
    ),
    "annotations for an account of others": (
        {"serviceAccount": {"create": False, "name": "other", "annotations": {"a": "b"}}},
        "annotate the existing one",
    ),
    "an account of others without a name": (
        {"serviceAccount": {"create": False}},
        "set serviceAccount.name",
    ),
    "a password for no Redis": (
        {"ray": {"faultTolerance": {"existingSecret": "redis"}}},
        "set ray.faultTolerance.redisAddress",
    ),
    "fewer replicas at most than at least": (
        {"serving": {"replicas": {"min": 5, "max": 4}}},
        "serving.replicas.max",
    ),
    "steps of a rollout that do not rise": (
        {"serving": {"rollout": {"steps": [5, 50, 25]}}},
        "serving.rollout.steps must rise, but has 25 after 50",
    ),
    "several steps of a shadow": (
        {"serving": {"rollout": {"mode": "shadow"}}},
        "must be one share where serving.rollout.mode is shadow, but has 3",
    ),
    "a collector that no policy opens": (
        {"monitoring": {"tracing": {"endpoint": "http://otel:4318"}}},
        "name the collector's pods in networkPolicy.collector",
    ),
    "hashes without a key": (
        {"serving": {"capture": {"hash": ["email"]}}},
        "must name a Secret with the key",
    ),
    "fewer workers at most than at least": (
        {"serving": {"workers": {"min": 5, "max": 4}}},
        "set it to 5 or more",
    ),
    "a replica larger than a worker": (
        {"serving": {"replicas": {"cpus": 2.5}}},
        "set serving.workers.cpus to 3 or more",
    ),
    "a replica with more GPUs than a worker": (
        {"serving": {"replicas": {"gpus": 1.5}, "workers": {"gpus": 1}}},
        "set serving.workers.gpus to 2 or more",
    ),
    "GPUs for workers whose replicas use none": (
        {"serving": {"workers": {"gpus": 1}}},
        "serving.workers.gpus is 1 and serving.replicas.gpus is 0; set serving.replicas.gpus",
    ),
    "half precision without a GPU": (
        {"serving": {"replicas": {"precision": "bf16"}}},
        "serving.replicas.precision must be fp32 without GPUs, but is bf16",
    ),
    "more replicas than GPUs hold": (
        {
            "serving": {
                "replicas": {"gpus": 1, "cpus": 0.25, "max": 8},
                "workers": {"gpus": 1, "max": 4},
            }
        },
        "4 workers hold 1 each; set serving.workers.max to 8 or more",
    ),
    "a volume and a Redis for one state": (
        {
            "kuberay": {"version": "1.7"},
            "ray": {"faultTolerance": {"embedded": True, "redisAddress": "redis:6379"}},
        },
        "set one of the two",
    ),
    "a volume for the head's state by an operator that makes none": (
        {"ray": {"faultTolerance": {"embedded": True}}},
        "with its feature gate GCSFaultToleranceEmbeddedStorage, and set kuberay.version=1.7",
    ),
    "large replicas without room": (
        {"serving": {"large": {"enabled": True}}},
        "serving.replicas.max and serving.large.maxReplicas are 5 together and 4 workers hold 1"
        " each; set serving.workers.max to 5 or more",
    ),
    "more replicas than workers hold": (
        {"serving": {"replicas": {"max": 9}, "workers": {"cpus": 2}}},
        "set serving.workers.max to 5 or more",
    ),
    "traffic in steps without a gateway": (
        {"serving": {"upgradeStrategy": {"type": "NewClusterWithIncrementalUpgrade"}}},
        "set serving.upgradeStrategy.incremental.gatewayClassName",
    ),
    "traffic in steps without an autoscaler": (
        {
            "serving": {
                "workers": {"min": 4},
                "upgradeStrategy": {
                    "type": "NewClusterWithIncrementalUpgrade",
                    "incremental": {"gatewayClassName": "istio"},
                },
            }
        },
        "set serving.workers.max above",
    ),
    "runs on a cluster that is not there": ({"runs": {"cluster": "tuning"}}, "set tuning.enabled"),
    "two groups of one name": ({"tuning": {"workers": [GROUP, GROUP]}}, "rename one"),
    "a group with fewer at most": ({"tuning": {"workers": [GROUP | {"min": 2}]}}, "set it to 2"),
    "two searches of one name": ({"schedules": {"searches": [SEARCH, SEARCH]}}, "rename one"),
    "RayCronJob with an old operator": (
        {"schedules": {"kind": "RayCronJob"}, "kuberay": {"version": "1.5"}},
        "set schedules.kind",
    ),
    "a token with an operator that has none": (
        {"kuberay": {"version": "1.4"}},
        "set ray.tokenAuth=false",
    ),
    "an upgrade in steps by an operator that knows none": (
        {
            "kuberay": {"version": "1.4"},
            "ray": {"tokenAuth": False},
            "serving": {"upgradeStrategy": {"type": "NewClusterWithIncrementalUpgrade"}},
        },
        "set serving.upgradeStrategy.type=NewCluster",
    ),
    "an upgrade in steps whose gateway policies keep out": (
        {
            "serving": {
                "upgradeStrategy": {
                    "type": "NewClusterWithIncrementalUpgrade",
                    "incremental": {"gatewayClassName": "istio"},
                }
            }
        },
        "set networkPolicy.gateway",
    ),
    "an ingress that policies keep out": (
        {"ingress": {"enabled": True, "host": "a.example.com"}},
        "set networkPolicy.gateway",
    ),
    "an ingress without a host": (
        {"ingress": {"enabled": True}, "networkPolicy": {"enabled": False}},
        "set ingress.host",
    ),
    "an ingress to nothing": (
        {
            "ingress": {"enabled": True, "host": "a.example.com"},
            "networkPolicy": {"enabled": False},
            "serving": {"enabled": False},
        },
        "set serving.enabled=true",
    ),
    "a route without a gateway": (
        {"httpRoute": {"enabled": True}, "networkPolicy": {"enabled": False}},
        "set httpRoute.parentRefs",
    ),
    "pods that would be scraped twice": (
        {"monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
        "enable one of the two",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_refused_with_what_to_set(case):
    changes, mend = CONTRADICTIONS[case]
    assert mend in chart.refusal(chart.merged(chart.MINIMAL, changes))


def test_every_refusal_of_the_chart_is_among_them():
    templates = (chart.FOLDER / "templates" / "_checks.tpl").read_text()
    laws = re.findall(r'fail (?:\(printf )?"([^"]+)"', templates)
    said = [refused(changes) for changes, _ in CONTRADICTIONS.values()]
    of_clusters = ("the KubeRay operator", "resource definitions are older", "does not have")
    of_names = ("must not be called",)  # tests/chart/test_names.py
    unsaid = [
        law
        for law in laws
        if not any(part in law for part in (*of_clusters, *of_names))
        and not any(re.search(re.sub(r"%[vsd]", ".*", pattern(law)), each) for each in said)
    ]
    assert len(laws) > 25
    assert unsaid == []


def refused(changes):
    return chart.refusal(chart.merged(chart.MINIMAL, changes))


def pattern(law):
    return re.sub(r"[.()+*?]", ".", law)


def test_without_the_operator_the_command_that_installs_it_is_given():
    gate = "featureGates[0].name=GCSFaultToleranceEmbeddedStorage"
    plain = chart.refusal(chart.MINIMAL, apis=())
    assert "helm install kuberay-operator" in plain
    assert gate not in plain
    embedded = {"ray": {"faultTolerance": {"embedded": True}}}
    assert gate in chart.refusal(chart.merged(chart.MINIMAL, embedded), apis=())


def test_definitions_older_than_the_values_say_are_refused():
    assert "set kuberay.version to 1.5 or 1.4" in chart.refusal(chart.MINIMAL, apis=OLD)
    told = chart.merged(chart.MINIMAL, {"kuberay": {"version": "1.5"}})
    assert chart.documents(told, apis=OLD)


def test_kuberay_1_4_is_served_without_a_token_and_the_notes_warn_of_it():
    old = {"kuberay": {"version": "1.4"}, "ray": {"tokenAuth": False}}
    values = chart.merged(chart.MINIMAL, old)
    service = chart.one(chart.documents(values, apis=OLD), "RayService")
    assert "authOptions" not in service["spec"]["rayClusterConfig"]
    assert "rayClusterDeletionDelaySeconds" not in service["spec"]
    assert "ray.tokenAuth is off" in chart.notes(values, apis=OLD)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"monitoring": {"podMonitor": {"enabled": True}}}, "monitoring.coreos.com/v1"),
        ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "monitoring.coreos.com/v1"),
        ({"monitoring": {"rules": {"enabled": True}}}, "monitoring.coreos.com/v1"),
        (
            {
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
                "networkPolicy": {"enabled": False},
            },
            "gateway.networking.k8s.io/v1",
        ),
        (chart.values_of("autoscaling"), "gateway.networking.k8s.io/v1"),
    ],
)
def test_what_the_cluster_lacks_is_named_with_the_command_that_installs_it(changes, missing):
    refused = chart.refusal(chart.merged(chart.MINIMAL, changes), apis=chart.OPERATOR)
    assert missing in refused
    assert "install it: " in refused


def test_dashboards_need_no_operator_of_prometheus():
    values = chart.merged(chart.MINIMAL, {"monitoring": {"dashboards": {"enabled": True}}})
    assert chart.one(chart.documents(values, apis=chart.OPERATOR), "ConfigMap", "serving-dashboard")
