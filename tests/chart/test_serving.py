import warnings

import pytest
import yaml

from serving import environment, scrape
from serving.settings import Settings
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
        assert application["args"]["max_replicas"] * application["args"]["cpus"] <= cpus


def ray_pods(case):
    found = chart.pods(chart.documents(chart.values_of(case)))
    return [pod for pod in found if container(pod)["name"] in ("ray-head", "ray-worker")]


def container(pod):
    return pod["spec"]["containers"][0]
