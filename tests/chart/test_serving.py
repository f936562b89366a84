import importlib
import warnings

import pytest
import yaml

from eagleray.state import rollouts, signatures
from serving import environment, scrape, tracing
from serving.settings import Large, Settings
from tests.chart import chart

with warnings.catch_warnings():  # Ray's own models use what pydantic is about to drop
    warnings.simplefilter("ignore", DeprecationWarning)
    from ray.serve.schema import ServeDeploySchema


def serve_config(values):
    (service,) = chart.of_kind(chart.documents(values), "RayService")
    return yaml.safe_load(service["spec"]["serveConfigV2"])


@pytest.mark.parametrize("case", chart.CI)
def test_ray_serve_takes_the_configuration_and_the_application_its_arguments(case):
    config = serve_config(chart.values_of(case))
    (application,) = ServeDeploySchema.model_validate(config).applications
    settings = Settings.model_validate(application.args)
    assert application.import_path == "serving.app:build"
    assert settings.name == chart.values_of(case)["model"]["name"]


def test_every_setting_of_the_application_can_be_given_but_what_only_tests_change():
    (application,) = serve_config(chart.MINIMAL)["applications"]
    assert set(Settings.model_fields) - set(application["args"]) == {
        "metrics_interval_s",
        "look_back_s",
        "p95_ms",  # rendered where they are given, as are the delays and schedules
        "upscale_delay_s",
        "downscale_delay_s",
        "zero_delay_s",
        "schedules",
        "gpus",  # rendered where there are some
        "precision",  # likewise
        "versions_mb",  # likewise
        "large",  # rendered where it is enabled
        "extra_fields",  # the version says what its experiment file said
    }


def test_a_worker_is_probed_where_its_replica_waits_for_it_and_often_enough():
    (application,) = serve_config(chart.MINIMAL)["applications"]
    spec = chart.one(chart.documents(chart.MINIMAL), "RayService")["spec"]["rayClusterConfig"]
    for group in spec["workerGroupSpecs"]:
        probe = group["template"]["spec"]["containers"][0]["readinessProbe"]
        where = {"path": scrape.READY, "port": application["args"]["metrics_port"]}
        assert probe["httpGet"] == where
        assert probe["periodSeconds"] < application["args"]["announce_s"] / 5


def test_values_arrive_as_arguments():
    values = chart.merged(
        chart.MINIMAL,
        {
            "model": {"alias": "challenger"},
            "serving": {
                "replicas": {"min": 3, "max": 6, "cpus": 0.5, "targetOngoing": 4.5},
                "batch": {"maxRows": 8, "waitMs": 0.5, "queueRows": 99},
                "pollSeconds": 0.5,
                "workers": {"max": 3},
            },
        },
    )
    (application,) = serve_config(values)["applications"]
    settings = Settings.model_validate(application["args"])
    assert (settings.alias, settings.min_replicas, settings.max_replicas) == ("challenger", 3, 6)
    assert (settings.cpus, settings.target_ongoing, settings.poll_s) == (0.5, 4.5, 0.5)
    assert (settings.max_rows, settings.wait_ms, settings.queue_rows) == (8, 0.5, 99)


def test_replicas_on_gpus_say_so_and_their_workers_ask_kubernetes_for_them():
    values = chart.merged(
        chart.MINIMAL,
        {
            "serving": {
                "replicas": {"gpus": 0.5, "precision": "bf16", "cpus": 0.5, "max": 4},
                "workers": {"gpus": 1, "max": 2},
            }
        },
    )
    (application,) = serve_config(values)["applications"]
    settings = Settings.model_validate(application["args"])
    assert (settings.gpus, settings.precision) == (0.5, "bf16")


def test_large_versions_get_replicas_of_their_own_where_they_are_enabled():
    large = {"enabled": True, "maxReplicas": 2, "memoryMb": 1500, "startSeconds": 90}
    serving = {"replicas": {"versionsMb": 300}, "large": large, "workers": {"max": 6}}
    (application,) = serve_config(chart.merged(chart.MINIMAL, {"serving": serving}))["applications"]
    settings = Settings.model_validate(application["args"])
    assert (settings.versions_mb, settings.large) == (
        300,
        Large(memory_mb=1500, max_replicas=2, start_s=90),
    )
    (application,) = serve_config(chart.MINIMAL)["applications"]
    assert Settings.model_validate(application["args"]).large is None


def test_the_configuration_names_no_version_and_stays_the_same_from_release_to_release():
    one, two = (
        chart.one(chart.documents(chart.MINIMAL, name=name), "RayService")["spec"]["serveConfigV2"]
        for name in ("one", "two")
    )
    assert one == two
    assert "version" not in one


@pytest.mark.parametrize("case", chart.CI)
def test_every_ray_pod_has_the_environment_that_serving_owns(case):
    for pod in ray_pods(case):
        variables = {each["name"]: each.get("value") for each in container(pod)["env"]}
        assert environment.FAST.items() <= variables.items()


GRPC = chart.merged(chart.MINIMAL, {"serving": {"grpc": {"enabled": True}}})


def test_grpc_is_off_until_it_is_asked_for_and_then_has_the_options_that_serving_owns():
    assert "grpc_options" not in serve_config(chart.MINIMAL)
    config = serve_config(GRPC)
    assert config["grpc_options"] == environment.grpc_options(9000)
    (function,) = ServeDeploySchema.model_validate(config).grpc_options.grpc_servicer_functions
    module, _, name = function.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))


def test_pods_of_the_endpoint_alone_bound_heaps_and_messages_as_serving_says():
    values = chart.merged(GRPC, {"tuning": {"enabled": True}})
    found = [pod for pod in chart.pods(chart.documents(values)) if is_ray(pod)]
    for pod in found:
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        variables = {one["name"]: one.get("value") for one in container(pod)["env"]}
        own = environment.GRPC | environment.MEMORY
        assert [variables.get(name) == own[name] for name in own] == [component == "serving"] * 2
    off = [pod for pod in chart.pods(chart.documents(chart.MINIMAL)) if is_ray(pod)]
    assert not any(
        environment.GRPC.keys() & {one["name"] for one in container(pod)["env"]} for pod in off
    )


def test_the_service_of_grpc_has_the_pods_of_the_endpoint_that_kuberay_marks():
    found = chart.documents(chart.merged(GRPC, {"tuning": {"enabled": True}}))
    spec = chart.one(found, "Service", "-grpc")["spec"]
    (port,) = spec["ports"]
    assert (port["port"], port["appProtocol"]) == (9000, "kubernetes.io/h2c")
    for pod in filter(is_ray, chart.pods(found)):
        labels = pod["metadata"]["labels"] | {"ray.io/serve": "true"}
        chosen = spec["selector"].items() <= labels.items()
        assert chosen is (labels["app.kubernetes.io/component"] == "serving")
        ports = {one["name"]: one["containerPort"] for one in container(pod)["ports"]}
        assert ports.get(port["targetPort"]) == (9000 if chosen else None)


def test_the_notes_say_where_grpc_is_answered():
    assert "demo-grpc.ml.svc:9000" in chart.notes(GRPC)
    assert "gRPC" not in chart.notes(chart.MINIMAL)


def test_the_head_runs_no_replica_and_has_no_traffic():
    spec = chart.one(chart.documents(chart.MINIMAL), "RayService")["spec"]
    head = spec["rayClusterConfig"]["headGroupSpec"]
    assert spec["excludeHeadPodFromServeSvc"] is True
    assert (head["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-gpus"]) == ("0", "0")


def test_ray_is_the_version_of_the_lock():
    lock = (chart.ROOT / "requirements.lock").read_text().splitlines()
    (version,) = [line.partition("==")[2] for line in lock if line.startswith("ray==")]
    cluster = chart.one(chart.documents(chart.MINIMAL), "RayService")["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"] == version


def test_replicas_fit_on_the_workers_that_there_may_be():
    for case in chart.CI:
        (application,) = serve_config(chart.values_of(case))["applications"]
        cluster = chart.one(chart.documents(chart.values_of(case)), "RayService")["spec"]
        (group,) = cluster["rayClusterConfig"]["workerGroupSpecs"]
        cpus = int(group["rayStartParams"]["num-cpus"]) * group["maxReplicas"]
        large = application["args"].get("large", {"max_replicas": 0})["max_replicas"]
        replicas = application["args"]["max_replicas"] + large
        assert replicas * application["args"]["cpus"] <= cpus


def ray_pods(case):
    return [pod for pod in chart.pods(chart.documents(chart.values_of(case))) if is_ray(pod)]


def is_ray(pod):
    return container(pod)["name"] in ("ray-head", "ray-worker")


def container(pod):
    return pod["spec"]["containers"][0]


GUARDED = {
    "signing": {"existingSecret": "signing"},
    "serving": {
        "keysSecret": "api-keys",
        "allowOwnCode": True,
        "rate": {"perSecond": 5, "burst": 9, "clientHeader": "x-real-ip"},
        "capture": {"share": 0.5, "exclude": ["a"], "hash": ["b"], "keySecret": "hashes"},
        "models": {"names": ["*"], "mb": 64, "loadSeconds": 3},
    },
}


def test_own_code_runs_only_where_the_release_allows_it():
    (application,) = serve_config(chart.MINIMAL)["applications"]
    assert Settings.model_validate(application["args"]).allow_own_code is False
    (application,) = serve_config(chart.merged(chart.MINIMAL, GUARDED))["applications"]
    settings = Settings.model_validate(application["args"])
    assert settings.allow_own_code is True
    assert (settings.rate_per_s, settings.rate_burst, settings.client_header) == (5, 9, "x-real-ip")
    assert (settings.models, settings.models_mb, settings.load_s) == (("*",), 64, 3)
    assert (settings.capture, settings.capture_exclude, settings.capture_hash) == (
        0.5,
        ("a",),
        ("b",),
    )


def test_secrets_are_files_where_the_arguments_say_they_are_and_of_workers_alone():
    values = chart.merged(chart.MINIMAL, GUARDED | {"tuning": {"enabled": True}})
    (application,) = serve_config(values)["applications"]
    settings = Settings.model_validate(application["args"])
    spec = chart.one(chart.documents(values), "RayService")["spec"]["rayClusterConfig"]
    (worker,) = [group["template"]["spec"] for group in spec["workerGroupSpecs"]]
    secrets = {
        one["name"]: one["secret"]["secretName"] for one in worker["volumes"] if "secret" in one
    }
    mounts = {
        one["mountPath"]: secrets[one["name"]]
        for one in worker["containers"][0]["volumeMounts"]
        if one["name"] in secrets
    }
    files = settings.keys_file, settings.signing_key_file, settings.capture_key_file
    found = [mounts[file.rpartition("/")[0]] for file in files]
    assert found == ["api-keys", "signing", "hashes"]
    head = spec["headGroupSpec"]["template"]["spec"]
    assert not [one for one in head["volumes"] if "secret" in one]


def test_drivers_sign_what_the_endpoint_verifies():
    values = chart.merged(chart.MINIMAL, GUARDED | {"tuning": {"enabled": True}})
    spec = chart.one(chart.documents(values), "RayCluster")["spec"]
    head = spec["headGroupSpec"]["template"]["spec"]
    variables = {one["name"]: one.get("value") for one in head["containers"][0]["env"]}
    folder, _, file = variables[signatures.VARIABLE].rpartition("/")
    (mount,) = [one for one in head["containers"][0]["volumeMounts"] if one["mountPath"] == folder]
    assert (mount["name"], file) == ("signing", "signing-key")
    for group in spec["workerGroupSpecs"]:
        assert not [one for one in group["template"]["spec"]["volumes"] if "secret" in one]


def test_hashes_without_a_key_are_refused():
    with pytest.raises(ValueError, match="capture_hash needs a capture_key_file"):
        Settings(name="churn", capture_hash=("email",))


def test_at_zero_replicas_the_head_takes_requests():
    """Workers without a replica have no HAProxy: the head's alone holds requests for the first."""
    for least, excluded in ((0, False), (1, True)):
        values = chart.merged(chart.MINIMAL, {"serving": {"replicas": {"min": least}}})
        found = chart.documents(values)
        assert chart.one(found, "RayService")["spec"]["excludeHeadPodFromServeSvc"] is excluded
        policies = {
            one["metadata"]["name"]: one["spec"] for one in chart.of_kind(found, "NetworkPolicy")
        }
        (endpoint,) = [spec for name, spec in policies.items() if name.endswith("-endpoint")]
        chosen = endpoint["podSelector"]["matchLabels"]
        assert (chosen.get("eagleray/role") == "worker") is excluded
        callers = [peer for rule in endpoint["ingress"] for peer in rule["from"]]
        operator = {"app.kubernetes.io/component": "kuberay-operator"}
        assert (
            any(peer.get("podSelector", {}).get("matchLabels") == operator for peer in callers)
            is not excluded
        )


def test_how_rollouts_proceed_arrives_as_a_plan():
    (application,) = serve_config(chart.MINIMAL)["applications"]
    settings = Settings.model_validate(application["args"])
    assert settings.rollout.plan() == rollouts.Plan()
    chosen = {"mode": "shadow", "steps": [0.5], "bakeSeconds": 5, "least": 7, "deadlineSeconds": 90}
    values = {"serving": {"rollout": {**chosen, "sticky": "x-user"}, "slo": {"p95Ms": 30}}}
    (application,) = serve_config(chart.merged(chart.MINIMAL, values))["applications"]
    settings = Settings.model_validate(application["args"])
    plan = settings.rollout.plan(settings.p95_ms)
    assert (plan.mode, plan.steps, plan.bake_s, plan.least) == ("shadow", (0.005,), 5, 7)
    assert (plan.deadline_s, plan.sticky, plan.p95_ms) == (90, "x-user", 30)


def test_spans_go_to_the_collector_by_variables_that_opentelemetry_knows():
    traced = {
        "monitoring": {"tracing": {"endpoint": "http://otel.watch:4318", "share": 0.25}},
        "networkPolicy": {"collector": [{"namespaceSelector": {}}]},
    }
    found = chart.documents(chart.merged(chart.MINIMAL, traced))
    for pod in chart.pods(found):
        if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "serving":
            variables = {each["name"]: each.get("value") for each in container(pod)["env"]}
            assert variables[tracing.VARIABLES[0]] == "http://otel.watch:4318"
            assert variables["OTEL_TRACES_SAMPLER_ARG"] == "0.25"
    policies = {
        one["metadata"]["name"]: one["spec"] for one in chart.of_kind(found, "NetworkPolicy")
    }
    (spans,) = [spec for name, spec in policies.items() if name.endswith("-spans")]
    ((rule,),) = [spans["egress"]]
    assert [port["port"] for port in rule["ports"]] == [4318]
    plain = chart.documents(chart.MINIMAL)
    assert not any("OTEL" in str(pod) for pod in chart.pods(plain))
