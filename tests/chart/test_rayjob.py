"""A run as a RayJob: the skeleton that the chart gives, filled in, against KubeRay's definition."""

import pytest
import yaml

from eagleray import errors, names
from eagleray.state.runs import Run
from k8s import rayjob
from tests.chart import chart
from tests.chart.test_kubernetes import validator

RUN = Run("churn", "0123456789ab", "s3://models/prod")
EVERY_OPTION = rayjob.Options(
    queue="research", priority="high", suspend=True, deadline_s=3600, keep_s=60, retries=3
)


def skeleton(case):
    config = chart.one(chart.documents(chart.values_of(case)), "ConfigMap", "runs")
    return yaml.safe_load(config["data"]["rayjob.yaml"])


def own():
    return next(found for case in chart.CI if "rayClusterSpec" in (found := skeleton(case))["spec"])


@pytest.mark.parametrize("case", chart.CI)
def test_every_skeleton_filled_in_is_legal_and_has_no_unknown_field(case):
    job = rayjob.render(RUN, 1, skeleton(case), rayjob.Options(deadline_s=60))
    validator("RayJob").validate(job)
    assert job["spec"]["entrypoint"].startswith("python -m eagleray runs drive churn 0123456789ab ")


def test_every_option_is_filled_in_and_legal():
    manifest = rayjob.render(RUN, 2, own(), EVERY_OPTION)
    validator("RayJob").validate(manifest)
    spec, cluster = manifest["spec"], manifest["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert {one["template"]["spec"]["priorityClassName"] for one in pods} == {"high"}
    assert (spec["suspend"], spec["activeDeadlineSeconds"], spec["backoffLimit"]) == (True, 3600, 3)
    assert (spec["shutdownAfterJobFinishes"], spec["ttlSecondsAfterFinished"]) == (True, 60)


def test_the_most_that_trials_can_have_is_told_from_the_groups_of_workers():
    cluster = own()["spec"]["rayClusterSpec"]
    head, *workers = rayjob.nodes(cluster)
    assert head == {"CPU": 0.0, "GPU": 0.0}  # no trial runs there
    assert workers == [{"CPU": 4.0, "GPU": 0.0}] * 4
    group = cluster["workerGroupSpecs"][0]
    del group["rayStartParams"]["num-cpus"]
    group["maxReplicas"] = 2**31 - 1
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    limits |= {"cpu": "2500m", "nvidia.com/gpu": "2"}
    assert rayjob.nodes(cluster)[1:] == [{"CPU": 3.0, "GPU": 2.0}] * rayjob.PODS
    del limits["cpu"]
    assert rayjob.nodes(cluster) is None


def test_kueue_gets_a_cluster_of_fixed_size():
    cluster = rayjob.render(RUN, 1, own(), EVERY_OPTION)["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in cluster
    assert all(one["replicas"] == one["maxReplicas"] > 0 for one in cluster["workerGroupSpecs"])


def test_a_run_on_a_cluster_that_is_there_brings_none_and_leaves_it_alone():
    options = rayjob.Options(cluster="tuning")
    manifest = rayjob.render(RUN, 1, own(), options)
    validator("RayJob").validate(manifest)
    assert manifest["spec"]["clusterSelector"] == {"ray.io/cluster": "tuning"}
    assert not {"rayClusterSpec", "ttlSecondsAfterFinished"} & manifest["spec"].keys()
    assert not manifest["spec"].get("shutdownAfterJobFinishes")


@pytest.mark.parametrize(
    ("option", "value"),
    [("queue", "research"), ("priority", "high"), ("suspend", True), ("keep_s", 5), ("retries", 1)],
)
def test_what_only_a_cluster_of_its_own_can_have_is_refused(option, value):
    options = rayjob.Options(cluster="tuning", **{option: value})
    with pytest.raises(
        errors.UserError, match=f"--{option.removesuffix('_s')}: needs a cluster of"
    ):
        rayjob.render(RUN, 1, own(), options)


def test_a_cluster_that_is_there_is_never_deleted_by_a_retry():
    shared = {"tuning": {"enabled": True}, "runs": {"cluster": "tuning", "retries": 2}}
    found = chart.documents(chart.merged(chart.MINIMAL, shared))
    (job,) = chart.runs(found)
    assert job["spec"]["backoffLimit"] == 0
    asked = rayjob.Options(cluster="tuning")
    assert rayjob.render(RUN, 1, own(), asked)["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("names", [["head"], [f"g{number}" for number in range(8)]])
def test_groups_that_kueue_refuses_are_refused_before_they_are_sent(names):
    job = own()
    cluster = job["spec"]["rayClusterSpec"]
    (group, *_) = cluster["workerGroupSpecs"]
    cluster["workerGroupSpecs"] = [{**group, "groupName": one} for one in names]
    with pytest.raises(errors.UserError, match="--queue: Kueue takes at most 7 worker groups"):
        rayjob.render(RUN, 1, job, rayjob.Options(queue="research"))


def test_storage_on_a_file_system_is_refused():
    with pytest.raises(errors.UserError, match="storage: must be s3://… for --kubernetes"):
        rayjob.render(Run("churn", RUN.id, "file:///data"), 1, own(), rayjob.Options())


def test_the_skeleton_is_as_before_after_it_was_filled_in():
    before = own()
    rayjob.render(RUN, 1, before, EVERY_OPTION)
    assert before == own()


@pytest.mark.parametrize("length", [1, 31, 32, 33, 40])
@pytest.mark.parametrize("number", [1, 10, 123])
def test_names_are_dns_labels_that_kuberay_takes(length, number):
    run = Run("a" * (length - 2) + "-b" if length > 1 else "a", RUN.id, RUN.storage)
    name = rayjob.render(run, number, own(), rayjob.Options())["metadata"]["name"]
    names.check("name", name)
    assert len(name) <= 47
    assert name.endswith(f"-{RUN.id}-{number}")
