"""Each switch and each choice of the values does what its comment says."""

from pathlib import Path

import pytest
import yaml
from ray._private import ray_constants

from serving.autoscaling.plan import PRESETS
from serving.settings import Settings
from tests.chart import chart

SEARCH = {
    "name": "nightly",
    "cron": "0 2 * * *",
    "experiment": {"name": "churn", "data": {"source": "dataset:iris", "target": "target"}},
}
TUNING = {"tuning": {"enabled": True}}
REDIS = {"ray": {"faultTolerance": {"redisAddress": "redis:6379"}}}
EMBEDDED = {"kuberay": {"version": "1.7"}, "ray": {"faultTolerance": {"embedded": True}}}
RAY_CRON_JOB = (*chart.EVERYTHING, "ray.io/v1/RayService", "ray.io/v1/RayCronJob")

SWITCHES = {
    "tuning": (TUNING, {"RayCluster"}),
    "the embedded store": (
        {"objectStore": {"embedded": True}},
        {"StatefulSet", "Service", "Secret"},
    ),
    "an ingress": (
        {
            "ingress": {"enabled": True, "host": "a.example.com"},
            "networkPolicy": {"gateway": [{"podSelector": {}}]},
        },
        {"Ingress"},
    ),
    "a route": (
        {
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]},
            "networkPolicy": {"gateway": [{"podSelector": {}}]},
        },
        {"HTTPRoute"},
    ),
    "pod monitors": ({"monitoring": {"podMonitor": {"enabled": True}}}, {"PodMonitor"}),
    "a service monitor": (
        {"monitoring": {"serviceMonitor": {"enabled": True}}},
        {"ServiceMonitor", "Service"},
    ),
    "alerts": ({"monitoring": {"rules": {"enabled": True}}}, {"PrometheusRule"}),
    "gRPC": ({"serving": {"grpc": {"enabled": True}}}, {"Service"}),
    "a schedule": ({"schedules": {"searches": [SEARCH]}}, {"CronJob", "Role", "RoleBinding"}),
    "submitters": (
        {"rbac": {"submitters": [{"kind": "User", "name": "me"}]}},
        {"Role", "RoleBinding"},
    ),
}


OFF = {
    "serving": ({"serving": {"enabled": False}}, {"RayService", "PodDisruptionBudget", "Pod"}),
    "policies": ({"networkPolicy": {"enabled": False}}, {"NetworkPolicy"}),
    "budgets": ({"serving": {"disruptionBudget": {"enabled": False}}}, {"PodDisruptionBudget"}),
    "the account": ({"serviceAccount": {"create": False, "name": "own"}}, {"ServiceAccount"}),
}


@pytest.mark.parametrize("case", [*SWITCHES, *OFF])
def test_a_switch_brings_its_kinds_or_takes_them_away_and_no_other(case):
    changes, kinds = {**SWITCHES, **OFF}[case]
    before, after = ({each["kind"] for each in render(values)} for values in ({}, changes))
    assert (after - before, before - after) == (
        (kinds, set()) if case in SWITCHES else (set(), kinds)
    )


def test_rights_are_left_to_others():
    found = render({"rbac": {"create": False}, "schedules": {"searches": [SEARCH]}})
    assert not {each["kind"] for each in found} & {"Role", "RoleBinding"}


def test_pods_use_the_account_that_is_named():
    found = render({"serviceAccount": {"create": False, "name": "own"}})
    assert {pod["spec"]["serviceAccountName"] for pod in ray_pods(found)} == {"own"}


def test_keys_come_from_the_secret_that_is_named():
    values = chart.values_of("external-s3")
    for pod in ray_pods(chart.documents(values)):
        env = environment(pod)
        assert env["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "s3-keys", "key": "access"}}
        assert env["AWS_SECRET_ACCESS_KEY"] == {
            "secretKeyRef": {"name": "s3-keys", "key": "secret"}
        }
        assert env["AWS_ENDPOINT_URL_S3"] == "https://s3.example.com:9000"
        assert env["AWS_REGION"] == "eu-central-1"


def test_by_identity_there_are_no_keys_anywhere():
    found = chart.documents(chart.values_of("identity"))
    account = chart.one(found, "ServiceAccount")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith(
        "arn:aws:iam"
    )
    for pod in ray_pods(found):
        assert not {"AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL_S3"} & set(environment(pod))


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("", 443),
        ("https://s3.example.com", 443),
        ("http://minio.data", 80),
        ("http://minio.data:9000", 9000),
        ("https://s3.example.com:8443/", 8443),
    ],
)
def test_the_policy_opens_the_port_of_the_endpoint(endpoint, port):
    found = render({"storage": {"endpoint": endpoint}})
    (rule,) = chart.one(found, "NetworkPolicy", "-storage")["spec"]["egress"]
    assert [each["port"] for each in rule["ports"]] == [port]


def test_the_embedded_store_is_where_pods_look_and_its_bucket_is_made():
    found = chart.documents(chart.values_of("cpu-kind"))
    service, store = chart.one(found, "Service"), chart.one(found, "StatefulSet")
    secret = chart.one(found, "Secret")
    for pod in ray_pods(found):
        env = environment(pod)
        assert env["AWS_ENDPOINT_URL_S3"] == f"http://{service['metadata']['name']}.ml.svc:8333"
        assert env["AWS_ACCESS_KEY_ID"]["secretKeyRef"]["name"] == secret["metadata"]["name"]
    (container,) = store["spec"]["template"]["spec"]["containers"]
    assert "-bucket=models" in container["command"]
    assert "for trying out, not for production" in chart.notes(chart.values_of("cpu-kind"))


@pytest.mark.parametrize(("keep", "kept"), [(True, "Retain"), (False, "Delete")])
def test_what_the_store_keeps_when_it_is_uninstalled_is_a_choice(keep, kept):
    found = render({"objectStore": {"embedded": True, "keepData": keep}})
    retained = chart.one(found, "StatefulSet")["spec"]["persistentVolumeClaimRetentionPolicy"]
    policy = chart.one(found, "Secret")["metadata"].get("annotations", {})
    assert retained["whenDeleted"] == kept
    assert ("helm.sh/resource-policy" in policy) is keep


def test_the_store_takes_keys_of_your_own():
    found = render({"objectStore": {"embedded": True}, "storage": {"existingSecret": "mine"}})
    assert not chart.of_kind(found, "Secret")
    (container,) = chart.one(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert {each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"][1:]} == {"mine"}


def test_the_store_is_started_as_the_local_one_is():
    from eagleray.storage import server

    found = render({"objectStore": {"embedded": True}})
    (container,) = chart.one(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    ports = dict.fromkeys(("master", "volume", "filer", "s3", "admin"), 1)
    known = {flag.partition("=")[0] for flag in server._flags(chart.ROOT, ports)}
    given = {flag.partition("=")[0] for flag in container["command"][1:]}
    assert given <= known
    own = {flag for flag in known - given if not flag.endswith(".port")}
    assert own == {"-s3.config"}


@pytest.mark.parametrize(("minimum", "maximum", "autoscaled"), [(2, 4, True), (4, 4, False)])
def test_the_autoscaler_runs_where_there_is_something_to_scale(minimum, maximum, autoscaled):
    found = render({"serving": {"workers": {"min": minimum, "max": maximum}}})
    cluster = chart.one(found, "RayService")["spec"]["rayClusterConfig"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert cluster["enableInTreeAutoscaling"] is autoscaled
    assert head["automountServiceAccountToken"] is autoscaled


def test_redis_keeps_the_state_of_the_head_and_lets_it_be_drained():
    redis = {"redisAddress": "redis.data:6379", "existingSecret": "redis"}
    with_redis, without = render({"ray": {"faultTolerance": redis}}), render({})
    options = chart.one(with_redis, "RayService")["spec"]["rayClusterConfig"]
    assert options["gcsFaultToleranceOptions"] == {
        "redisAddress": "redis.data:6379",
        "redisPassword": {
            "valueFrom": {"secretKeyRef": {"name": "redis", "key": "redis-password"}}
        },
    }
    assert len(chart.of_kind(with_redis, "PodDisruptionBudget")) == 1
    assert chart.one(without, "PodDisruptionBudget", "-head")["spec"]["minAvailable"] == 1


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ({}, {"size": "1Gi"}),
        (
            {"size": "2048Mi", "storageClassName": "fast"},
            {"size": "2Gi", "storageClassName": "fast"},
        ),
    ],
)
def test_a_volume_keeps_the_state_of_the_head_and_lets_it_be_drained(asked, made):
    fault_tolerance = {"embedded": True, **asked}
    found = render(
        {"kuberay": {"version": "1.7"}, "ray": {"faultTolerance": fault_tolerance}, **TUNING}
    )
    cluster = chart.one(found, "RayService")["spec"]["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"] == {"backend": "rocksdb", "storage": made}
    assert "gcsFaultToleranceOptions" not in chart.one(found, "RayCluster")["spec"]
    assert len(chart.of_kind(found, "PodDisruptionBudget")) == 1


def test_with_redis_an_uninstall_deletes_the_service_before_what_its_clean_up_needs():
    """KubeRay's clean-up is a pod as the head's: it needs the release's account and keys."""
    found = render(REDIS)
    hooks = {
        each["kind"]: each["metadata"]["annotations"]
        for each in found
        if "pre-delete" in each["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    }
    weights = {kind: int(one.get("helm.sh/hook-weight", 0)) for kind, one in hooks.items()}
    assert weights == {"ServiceAccount": -1, "Role": -1, "RoleBinding": -1, "Job": 0}
    assert {one["helm.sh/hook-delete-policy"] for one in hooks.values()} == {
        "before-hook-creation,hook-succeeded"
    }
    pod = chart.one(found, "Job")["spec"]["template"]["spec"]
    service, account = (
        chart.one(found, kind)["metadata"]["name"] for kind in ("RayService", "Job")
    )
    assert (pod["containers"][0]["command"][-1], pod["serviceAccountName"]) == (service, account)
    (deleting, listing) = chart.one(found, "Role", "-uninstall")["rules"]
    assert (deleting["resourceNames"], deleting["verbs"]) == ([service], ["delete"])
    assert (listing["resources"], listing["verbs"]) == (["rayclusters"], ["list"])


@pytest.mark.parametrize(
    "changes",
    [{}, EMBEDDED, {**REDIS, "rbac": {"create": False}}, {**REDIS, "serving": {"enabled": False}}],
)
def test_an_uninstall_that_has_nothing_to_wait_for_runs_no_job(changes):
    assert not chart.of_kind(render(changes), "Job")


def test_a_budget_lets_one_worker_go_at_a_time_and_never_the_only_one():
    several = render({"serving": {"workers": {"min": 3}}})
    alone = render({"serving": {"workers": {"min": 1}}})
    assert chart.one(several, "PodDisruptionBudget", "-workers")["spec"]["minAvailable"] == 2
    assert not [each for each in alone if each["metadata"]["name"] == "demo-workers"]
    single = chart.merged(chart.MINIMAL, {"serving": {"workers": {"min": 1}}})
    assert "set 2 or more" in chart.notes(single)


def test_an_ending_worker_leaves_the_service_then_hands_its_replicas_over_and_has_the_time():
    found = render({"serving": {"drainSeconds": 45}})
    (worker,) = workers(found)
    (container,) = worker["template"]["spec"]["containers"]
    drains = {
        environment(pod)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
        for pod in ray_pods(found)
        if role(pod) == "head"
    }
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert environment(worker["template"])["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "45"
    assert worker["template"]["spec"]["terminationGracePeriodSeconds"] > 5 + 45
    assert drains == {"0"}


@pytest.mark.parametrize(("drain", "sleeps", "grace"), [(30, 45, 60), (60, 75, 90)])
def test_an_ending_head_of_the_endpoint_stays_until_its_workers_have_handed_over(
    drain, sleeps, grace
):
    values = {"serving": {"drainSeconds": drain}, **TUNING}
    heads = [one for one in ray_pods(render(values)) if role(one) == "head"]
    (serving,) = [one for one in heads if component(one) == "serving"]
    others = [one for one in heads if one is not serving]
    (container,) = serving["spec"]["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(sleeps)]
    assert serving["spec"]["terminationGracePeriodSeconds"] == grace
    # One that hangs has nothing to hand over: it is started again without that wait.
    assert container["livenessProbe"]["terminationGracePeriodSeconds"] < sleeps
    assert {one["spec"]["terminationGracePeriodSeconds"] for one in others} == {30}
    assert not any("lifecycle" in one["spec"]["containers"][0] for one in others)


def role(pod):
    return pod["metadata"]["labels"]["eagleray/role"]


def component(pod):
    return pod["metadata"]["labels"]["app.kubernetes.io/component"]


def test_ray_knows_the_variable_that_the_time_to_drain_is_given_by():
    source = Path(ray_constants.__file__).read_text()
    assert '"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"' in source


def test_workers_are_spread_over_zones_and_nodes():
    (worker,) = workers(render({}))
    spread = worker["template"]["spec"]["topologySpreadConstraints"]
    keys = {each["topologyKey"] for each in spread}
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    labels = worker["template"]["metadata"]["labels"].items()
    assert all(each["labelSelector"]["matchLabels"].items() <= labels for each in spread)


@pytest.mark.parametrize("kind", ["NewCluster", "None"])
def test_the_upgrade_strategy_is_passed_on(kind):
    found = render({"serving": {"upgradeStrategy": {"type": kind, "deletionDelaySeconds": 7}}})
    spec = chart.one(found, "RayService")["spec"]
    assert spec["upgradeStrategy"] == {"type": kind}
    assert spec["rayClusterDeletionDelaySeconds"] == 7


def test_an_upgrade_in_steps_has_its_options():
    spec = chart.one(chart.documents(chart.values_of("autoscaling")), "RayService")["spec"]
    assert spec["upgradeStrategy"]["clusterUpgradeOptions"] == {
        "gatewayClassName": "istio",
        "stepSizePercent": 20,
        "intervalSeconds": 15,
        "maxSurgePercent": 100,
    }


def test_objective_pace_and_windows_reach_the_application():
    said = _arguments(chart.documents(chart.values_of("autoscaling")))
    assert (said["p95_ms"], said["preset"], said["upscale_delay_s"]) == (50, "bursty", 5)
    plan = Settings.model_validate(said).plan()
    assert (plan.windows[0].start, plan.windows[0].min_replicas) == (480, 6)


def test_without_an_objective_the_preset_alone_says_how_replicas_follow():
    said = _arguments(render({"serving": {"preset": "cheap", "replicas": {"min": 0}}}))
    assert not said.keys() & {"p95_ms", "upscale_delay_s", "downscale_delay_s", "schedules"}
    plan = Settings.model_validate(said).plan()
    assert (plan.min_replicas, plan.pace) == (0, PRESETS["cheap"])


def test_a_delay_of_zero_is_a_delay():
    said = _arguments(render({"serving": {"replicas": {"upscaleDelaySeconds": 0}}}))
    assert Settings.model_validate(said).plan().pace.up_s == 0


def _arguments(documents):
    spec = chart.one(documents, "RayService")["spec"]
    return yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]


def test_groups_scale_from_nothing_and_gpus_come_with_their_tolerations():
    cluster = chart.one(chart.documents(chart.values_of("gpu")), "RayCluster")["spec"]
    (group,) = cluster["workerGroupSpecs"]
    spec = group["template"]["spec"]
    assert (group["groupName"], group["minReplicas"], group["maxReplicas"]) == ("a100", 0, 8)
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    keys = {each["key"] for each in spec["tolerations"]}
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= keys
    assert "tolerations" not in cluster["headGroupSpec"]["template"]["spec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_a_run_brings_its_own_cluster_or_joins_the_one_that_stays():
    own = skeleton(render({}))
    assert own["shutdownAfterJobFinishes"] is True
    assert "clusterSelector" not in own
    joined = skeleton(render({"tuning": {"enabled": True}, "runs": {"cluster": "tuning"}}))
    assert joined["clusterSelector"] == {"ray.io/cluster": "demo-tuning"}
    assert not {"rayClusterSpec", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"} & set(
        joined
    )


def test_runs_have_their_limits():
    spec = skeleton(render({"runs": {"retries": 5, "deadlineSeconds": 60, "keepSeconds": 1}}))
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (5, 60)
    assert spec["ttlSecondsAfterFinished"] == 1
    assert "activeDeadlineSeconds" not in skeleton(render({}))


def test_the_skeleton_is_found_by_its_label():
    found = render({})
    (skeleton,) = [
        each for each in found if each["metadata"]["labels"].get("eagleray/skeleton") == "rayjob"
    ]
    assert skeleton["kind"] == "ConfigMap"
    assert yaml.safe_load(skeleton["data"]["rayjob.yaml"])["kind"] == "RayJob"


@pytest.mark.parametrize(
    ("kind", "apis", "becomes"),
    [
        ("auto", chart.EVERYTHING, "CronJob"),
        ("auto", RAY_CRON_JOB, "RayCronJob"),
        ("CronJob", RAY_CRON_JOB, "CronJob"),
        ("RayCronJob", chart.EVERYTHING, "RayCronJob"),
    ],
)
def test_a_schedule_is_what_the_cluster_has_unless_told(kind, apis, becomes):
    values = {"schedules": {"kind": kind, "searches": [SEARCH | {"timeZone": "Europe/Oslo"}]}}
    found = render(values, apis=apis)
    scheduled = chart.one(found, becomes)
    assert len(chart.of_kind(found, "CronJob") + chart.of_kind(found, "RayCronJob")) == 1
    assert scheduled["spec"]["schedule"] == "0 2 * * *"
    assert scheduled["spec"]["timeZone"] == "Europe/Oslo"
    assert bool(chart.of_kind(found, "Role")) is (becomes == "CronJob")


@pytest.mark.parametrize("apis", [chart.EVERYTHING, RAY_CRON_JOB])
def test_a_scheduled_search_runs_the_file_that_its_head_has(apis):
    found = render({"schedules": {"searches": [SEARCH]}}, apis=apis)
    jobs = [each["spec"]["jobTemplate"] for each in chart.of_kind(found, "RayCronJob")]
    jobs += [each["spec"] for each in chart.runs(found) if "entrypoint" in each["spec"]]
    (spec,) = jobs
    files = chart.one(found, "ConfigMap", "-experiments")
    assert spec["entrypoint"] == "eagleray run /experiments/nightly.yaml"
    assert yaml.safe_load(files["data"]["nightly.yaml"]) == SEARCH["experiment"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (volume,) = [each for each in head["volumes"] if each["name"] == "experiments"]
    assert volume["configMap"] == {"name": files["metadata"]["name"], "optional": True}
    (mount,) = [
        each for each in head["containers"][0]["volumeMounts"] if each["name"] == "experiments"
    ]
    assert mount["mountPath"] == "/experiments"


def test_labels_annotations_and_variables_reach_every_ray_pod():
    variable = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    found = render(
        {"podLabels": {"team": "ml"}, "podAnnotations": {"a/b": "c"}, "ray": {"env": [variable]}}
    )
    for pod in ray_pods(found):
        assert pod["metadata"]["labels"]["team"] == "ml"
        assert pod["metadata"]["annotations"]["a/b"] == "c"
        assert variable in pod["spec"]["containers"][0]["env"]


def test_a_digest_wins_over_a_tag():
    digest = "sha256:" + "0" * 64
    for pod in chart.pods(render({"image": {"tag": "1.0.0", "digest": digest}})):
        assert pod["spec"]["containers"][0]["image"] == f"eagleray@{digest}"


def test_places_are_passed_on():
    place = {"nodeSelector": {"pool": "a"}, "priorityClassName": "high"}
    taint = {"key": "pool", "operator": "Exists", "effect": "NoSchedule"}
    values = {"serving": {"head": place | {"tolerations": [taint]}}}
    head = chart.one(render(values), "RayService")["spec"]["rayClusterConfig"]["headGroupSpec"]
    spec = head["template"]["spec"]
    assert (spec["nodeSelector"], spec["priorityClassName"]) == ({"pool": "a"}, "high")
    assert spec["tolerations"] == [taint]


def test_the_notes_have_the_endpoint_a_curl_and_three_commands():
    said = chart.notes(chart.MINIMAL)
    assert "http://demo-serve-svc.ml.svc:8000" in said
    assert "curl -s http://127.0.0.1:8000/v1/models/churn:predict" in said
    after = said.split("If it does not answer:")[1]
    assert len([line for line in after.splitlines() if line.startswith("  kubectl -n ml ")]) == 3


FORCE = 'An upgrade or a rollback that fails with "conflict with …" (Helm 4) needs --force-'
SCALED, LOSS = "autoscaler has scaled", "set ray.faultTolerance.embedded=true"
GATE = "enable GCSFaultToleranceEmbeddedStorage in KubeRay's operator"
STUCK = "set schedules.kind=CronJob"


@pytest.mark.parametrize(
    ("changes", "apis", "told"),
    [
        ({}, chart.EVERYTHING, {FORCE, LOSS}),
        (TUNING, chart.EVERYTHING, {FORCE, LOSS, SCALED}),
        (REDIS, chart.EVERYTHING, {FORCE}),
        (EMBEDDED, chart.EVERYTHING, {FORCE, GATE}),
        ({"schedules": {"searches": [SEARCH]}}, chart.EVERYTHING, {FORCE, LOSS}),
        ({"schedules": {"searches": [SEARCH]}}, RAY_CRON_JOB, {FORCE, LOSS, STUCK}),
    ],
)
def test_the_notes_tell_what_upgrades_the_loss_of_the_head_and_schedules_need(changes, apis, told):
    said = chart.notes(chart.merged(chart.MINIMAL, changes), apis=apis)
    assert {one for one in (FORCE, SCALED, LOSS, GATE, STUCK) if one in said} == told


def render(changes, **options):
    return chart.documents(chart.merged(chart.MINIMAL, changes), **options)


def ray_pods(found):
    names = ("ray-head", "ray-worker")
    return [pod for pod in chart.pods(found) if pod["spec"]["containers"][0]["name"] in names]


def environment(pod):
    variables = pod["spec"]["containers"][0]["env"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in variables}


def workers(found):
    return chart.one(found, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]


def skeleton(found):
    return next(run["spec"] for run in chart.runs(found) if "entrypoint" not in run["spec"])
