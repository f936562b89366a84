"""What `make e2e` would install: legal, small, and named as its steps expect."""

from typing import Any

import kubernetes_validate
import pytest

from tests.chart import chart
from tests.chart.policies import Place, allowed
from tests.chart.test_kubernetes import VERSIONS, validator
from tests.e2e import clients, cluster, settings, story
from tests.e2e.release import GRPC, SERVE
from tests.e2e.test_2_changes import CHANGED
from tests.e2e.test_2_rollouts import ZERO
from tests.e2e.test_3_trouble import ALONE, MISTAKES

KEYS = {"s3_access_key_id": "a", "s3_secret_access_key": "b"}
GIVEN = {
    "nothing": settings.Settings(),
    "an image and a class": settings.Settings(
        image="registry.example.com:5000/ml/eagleray:0.1.0",
        pull_policy="Always",
        pull_secret="pull",
        storage_class="fast",
        kuberay="1.5",
        fault_tolerance="none",
    ),
    "an S3 of ours": settings.Settings(
        s3_uri="s3://mine/here", s3_endpoint="http://minio.data.svc:9000", **KEYS
    ),
}
CHANGES: dict[str, dict[str, Any]] = {
    "as installed": {},
    "as upgraded": CHANGED,
    "to zero": ZERO,
    "alone": ALONE,
    **{mistake: settings.merged(ALONE, changes) for mistake, (changes, _) in MISTAKES.items()},
}


def rendered(given: str, changes: str = "as installed", name: str = "e2e") -> list[Any]:
    chosen = GIVEN[given]
    values = settings.values(chosen, settings.storage(chosen, "20260101-000000"))
    apis = (*chart.OPERATOR, "ray.io/v1/RayService", "ray.io/v1/RayCronJob")
    return chart.documents(settings.merged(values, CHANGES[changes]), name=name, apis=apis)


@pytest.mark.parametrize(
    ("given", "changes"),
    [("nothing", one) for one in CHANGES] + [(one, "as upgraded") for one in [*GIVEN][1:]],
)
def test_every_render_of_the_steps_is_legal(given: str, changes: str) -> None:
    found = rendered(given, changes)
    for document in [*found, *chart.runs(found)]:
        if document["apiVersion"].startswith("ray.io/"):
            validator(document["kind"]).validate(document)
        else:
            assert kubernetes_validate.validate(document, VERSIONS[1], strict=True)


def test_the_objects_have_the_names_that_the_steps_ask_for() -> None:
    found = rendered("nothing")
    assert chart.one(found, "RayService")["metadata"]["name"] == "e2e"
    (store,) = chart.of_kind(found, "StatefulSet")
    assert store["metadata"]["name"] == "e2e-store"
    assert set(chart.one(found, "Secret")["data"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    (test,) = chart.of_kind(found, "Pod")
    assert "http://e2e-serve-svc.ml.svc:8000" in test["spec"]["containers"][0]["command"]


def test_workers_have_the_ports_that_the_steps_forward() -> None:
    spec = chart.one(rendered("nothing"), "RayService")["spec"]["rayClusterConfig"]
    worker = spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert {SERVE, GRPC} <= {one["containerPort"] for one in worker["ports"]}


def test_the_steps_find_pods_by_labels_that_the_chart_gives() -> None:
    labels = [pod["metadata"]["labels"] for pod in chart.pods(rendered("nothing"))]
    for component, role in [("serving", "head"), ("serving", "worker"), ("store", None)]:
        wanted = {cluster.LABELS["instance"]: "e2e", cluster.LABELS["component"]: component}
        wanted |= {cluster.LABELS["role"]: role} if role else {}
        assert any(wanted.items() <= each.items() for each in labels), wanted


def test_two_small_clusters_and_the_store_ask_for_less_than_a_small_node_has() -> None:
    """6.5 GiB and 2 CPUs of 8 GB and 4: the rest is the node's own, and the operator's."""
    found = rendered("nothing")
    spec = chart.one(found, "RayService")["spec"]["rayClusterConfig"]
    heads, workers = spec["headGroupSpec"], spec["workerGroupSpecs"][0]
    pods = [heads["template"]["spec"], workers["template"]["spec"]]
    asked = [pod["containers"][0]["resources"]["requests"] for pod in pods]
    asked.append(spec["autoscalerOptions"]["resources"]["requests"])
    store = chart.of_kind(found, "StatefulSet")[0]["spec"]["template"]["spec"]
    alone = store["containers"][0]["resources"]["requests"]
    assert 2 * sum(mebibytes(each) for each in asked) + mebibytes(alone) < 6.5 * 1024
    assert 2 * sum(millicores(each) for each in asked) + millicores(alone) < 2000


def mebibytes(requests: dict[str, str]) -> int:
    number, unit = requests["memory"][:-2], requests["memory"][-2:]
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def millicores(requests: dict[str, str]) -> int:
    cpu = requests["cpu"]
    return int(cpu.removesuffix("m")) if cpu.endswith("m") else 1000 * int(cpu)


def test_the_upgrade_changes_the_cluster_and_nothing_that_serve_is_told() -> None:
    before, after = (
        chart.one(rendered("nothing", changes), "RayService")["spec"]
        for changes in ("as installed", "as upgraded")
    )
    assert before["serveConfigV2"] == after["serveConfigV2"]
    assert before["rayClusterConfig"] != after["rayClusterConfig"]
    assert before["upgradeStrategy"] == {"type": "NewCluster"}


def test_a_client_pod_is_legal_restricted_and_reaches_workers_alone() -> None:
    found = rendered("nothing")
    image = clients.image_of(next(pod for pod in chart.pods(found)))
    pod = clients.manifest("client", image, clients.load_command("http://e", "e2e", rows=1))
    assert kubernetes_validate.validate(pod, VERSIONS[1], strict=True)
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    policies = chart.of_kind(found, "NetworkPolicy")
    worker = {"app.kubernetes.io/instance": "e2e", "app.kubernetes.io/component": "serving"}
    worker["eagleray/role"] = "worker"
    client = Place("client", pod["metadata"]["labels"])
    assert allowed(policies, client, Place("worker", worker), 8000)
    assert not allowed(policies, client, Place("worker", worker), 8265)


def test_the_namespace_that_is_made_is_legal() -> None:
    assert kubernetes_validate.validate(cluster.fresh("e2e"), VERSIONS[0], strict=True)


def test_releases_that_share_the_namespace_are_not_taken_for_leftovers_of_the_first() -> None:
    for name in (story.other("e2e"), story.bad("e2e")):
        for document in rendered("nothing", name=name):
            assert not cluster.belongs(document, "e2e"), document["metadata"]["name"]


@pytest.mark.parametrize(
    ("image", "repository", "tag", "digest"),
    [
        ("eagleray:0.1.0", "eagleray", "0.1.0", None),
        ("host:5000/ml/eagleray", "host:5000/ml/eagleray", None, None),
        ("host:5000/ml/eagleray:1", "host:5000/ml/eagleray", "1", None),
        ("eagleray@sha256:" + 64 * "0", "eagleray", None, "sha256:" + 64 * "0"),
    ],
)
def test_an_image_is_taken_apart_as_the_chart_wants_it(
    image: str, repository: str, tag: str | None, digest: str | None
) -> None:
    made = settings.values(settings.Settings(image=image), "s3://models")["image"]
    assert (made["repository"], made.get("tag"), made.get("digest")) == (repository, tag, digest)


def test_the_experiment_of_the_steps_is_one_that_runs(tmp_path: Any) -> None:
    from eagleray import spec

    file = tmp_path / "e2e.yaml"
    file.write_text(story.EXPERIMENT.format(name=settings.MODEL, storage="s3://models"))
    assert spec.load(file).name == settings.MODEL
