"""Runs on Kubernetes, against an emulation of its API behind real HTTP."""

import io
import itertools
import json
import os
import shlex
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kmock
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eagleray import cli, errors, storage
from eagleray.client import runs, screen
from eagleray.state import batches
from eagleray.state import runs as records
from eagleray.state.models import Registry
from eagleray.state.runs import Run
from k8s import api, backend
from k8s import release as releases
from k8s.diagnose import snapshot
from tests import bundles
from tests.chart import chart
from tests.conftest import Bucket
from tests.kube_api import Server

RUN = Run("churn", "0123456789ab", "s3://models")
JOBS = "/apis/ray.io/v1/namespaces/ml/rayjobs"
SKELETON = """
apiVersion: ray.io/v1
kind: RayJob
metadata: {labels: {app.kubernetes.io/component: runs}}
spec:
  backoffLimit: 2
  rayClusterSpec:
    headGroupSpec: {template: {spec: {containers: []}}}
"""


@pytest.fixture
def server(kube: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The API with a release of the chart in namespace `ml`, which the current context is in."""
    kube.mock.resources["ray.io/v1/rayjobs"] = {"namespaced": True}
    kube.mock.resources["v1/pods"] = {"namespaced": True}
    install(kube, "demo")
    monkeypatch.setattr(backend, "POLL_S", 0.05)
    return kube


def install(server: Server, release: str) -> None:
    labels = {"app.kubernetes.io/instance": release, "eagleray/skeleton": "rayjob"}
    server.mock.objects["v1/configmaps", "ml", f"{release}-runs"] = {
        "metadata": {"name": f"{release}-runs", "namespace": "ml", "labels": labels},
        "data": {"rayjob.yaml": SKELETON},
    }


def fail(status: int, message: str) -> Exception:
    return kmock.KubernetesError(status=status, reason="Refused", message=message)


def tell(name: str, **status: Any) -> None:
    """What the operator does: write a RayJob's status."""
    request = urllib.request.Request(
        Path(os.environ["KUBECONFIG"]).read_text().split("server: ")[1].split()[0]
        + api.RAYJOBS.path("ml", name),
        json.dumps({"status": status}).encode(),
        {"Content-Type": "application/merge-patch+json"},
        method="PATCH",
    )
    urllib.request.urlopen(request).close()


def submit_pod(server: Server, run: str) -> None:
    """Let the pod run that submits a RayJob's driver."""
    server.mock.objects["v1/pods", "ml", "submitter"] = {
        "metadata": {"name": "submitter", "namespace": "ml", "labels": {"job-name": run}},
        "status": {"phase": "Running"},
    }


def test_a_run_is_created_once_and_attached_to(server: Server) -> None:
    there = backend.Kubernetes()
    first, again = runs.submit(there, RUN), runs.submit(there, RUN)
    assert (first.id, first.state) == ("churn-0123456789ab-1", "waiting")
    assert again == first
    assert len(server.mock["create"]) == 1


def test_who_is_slower_attaches_to_what_is_there(server: Server) -> None:
    there = backend.Kubernetes()
    runs.submit(there, RUN)
    with pytest.raises(errors.ConflictError, match="namespace ml: "):
        there.start(RUN, 1)


def test_a_run_that_failed_is_made_anew_with_the_next_number(server: Server) -> None:
    there = backend.Kubernetes()
    first = runs.submit(there, RUN)
    tell(first.id, jobDeploymentStatus="Failed", reason="AppFailed", message="exit code 2, logs")
    with pytest.raises(errors.UserError, match=r"-1: failed \(AppFailed: exit code 2, logs\)"):
        runs.raise_for_state(there, first)
    assert runs.submit(there, RUN).id == "churn-0123456789ab-2"
    assert runs.find(there, "churn").number == 2


def test_a_server_that_fails_for_a_while_is_asked_again(server: Server) -> None:
    server.mock["list", kmock.resource("ray.io/v1/rayjobs")][:3] << fail(503, "busy")
    assert backend.Kubernetes().attempts() == []
    assert len(server.mock["list"]) == 4


def test_a_creation_whose_answer_was_lost_is_found_to_have_happened(
    server: Server,
) -> None:
    server.mock["create"][:1] << fail(500, "lost")
    assert runs.submit(backend.Kubernetes(), RUN).id == "churn-0123456789ab-1"


def test_a_server_that_goes_on_failing_is_named(server: Server) -> None:
    server.mock["list", kmock.resource("ray.io/v1/rayjobs")] << fail(500, "etcd is gone")
    with pytest.raises(errors.ClusterError, match=f"{server.url[:-1]}.*: 500 etcd is gone"):
        backend.Kubernetes().attempts()


@pytest.mark.parametrize(
    ("status", "said", "kind", "message"),
    [
        (401, "Unauthorized", errors.UserError, "rejected the credentials"),
        (403, "forbidden: cannot create", errors.UserError, "the right to create rayjobs is miss"),
        (403, "exceeded quota: cpu", errors.UserError, "rayjobs refused: exceeded quota: cpu"),
        (404, "page not found", errors.UserError, "the KubeRay operator is not installed"),
        (422, "spec.x: invalid", errors.UserError, "rayjobs refused: spec.x: invalid"),
    ],
)
def test_refusals_say_what_is_missing(
    server: Server, status: int, said: str, kind: type[Exception], message: str
) -> None:
    server.mock["create"] << fail(status, said)
    with pytest.raises(kind, match=message):
        backend.Kubernetes().start(RUN, 1)


def test_an_api_server_that_goes_away_while_a_run_is_followed_is_one_line(server: Server) -> None:
    there = backend.Kubernetes()
    seen = there.log(runs.submit(there, RUN), follow=True)
    threading.Timer(0.3, server.stop).start()
    with pytest.raises(errors.ClusterError, match="does not answer any more") as told:
        list(seen)
    assert len(str(told.value).splitlines()) == 1


def test_the_log_is_followed_to_the_end_of_the_run(server: Server) -> None:
    there = backend.Kubernetes()
    run = runs.submit(there, RUN)
    path = "/api/v1/namespaces/ml/pods/submitter/log"
    server.mock["get", path] << (b"Trial 1 finished\n\xe2", b"\x94\x82 registered\n")
    steps: list[Callable[[], None]] = [
        lambda: submit_pod(server, run.id),
        lambda: tell(run.id, jobDeploymentStatus="Running"),
        lambda: tell(run.id, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED"),
    ]
    for number, step in enumerate(steps, start=1):
        threading.Timer(0.4 * number, step).start()
    assert "".join(there.log(run, follow=True)) == "Trial 1 finished\n│ registered\n"
    runs.raise_for_state(there, run)


def test_a_run_that_is_stopped_is_deleted(server: Server) -> None:
    there = backend.Kubernetes()
    there.stop(runs.submit(there, RUN))
    assert there.attempts() == []
    with pytest.raises(errors.NotFoundError, match="no run is called 'churn'"):
        runs.find(there, "churn")


def test_runs_of_a_schedule_are_known_by_what_they_run(server: Server) -> None:
    """KubeRay labels what a RayCronJob makes with the RayCronJob's name alone."""
    for name, entrypoint in {
        "demo-nightly-x7k2p": "eagleray run /experiments/nightly.yaml",
        "theirs": "python train.py",
    }.items():
        server.mock.objects["ray.io/v1/rayjobs", "ml", name] = {
            "metadata": {"name": name, "namespace": "ml"},
            "spec": {"entrypoint": entrypoint},
            "status": {"jobDeploymentStatus": "Running"},
        }
    there = backend.Kubernetes()
    found = runs.find(there, "nightly")
    assert (found.id, found.state, found.number) == ("demo-nightly-x7k2p", "running", 1)
    assert [one.id for one in there.attempts()] == ["demo-nightly-x7k2p"]
    server.mock["get /api/v1/namespaces/ml/pods/submitter/log"] << b"trial 1 finished\n"
    submit_pod(server, found.id)
    assert "".join(there.log(found, follow=False)) == "trial 1 finished\n"
    (asked,) = snapshot.read(api.Api(), "nightly")  # what `eagleray why` explains
    assert asked.name == "demo-nightly-x7k2p"


def test_of_several_releases_one_must_be_named(server: Server) -> None:
    install(server, "other")
    with pytest.raises(errors.UserError, match="must be one of demo, other in namespace ml, but g"):
        backend.Kubernetes().plan(RUN, 1)
    assert "name: churn-0123456789ab-1" in backend.Kubernetes(release="other").plan(RUN, 1)


def test_a_namespace_without_the_chart_says_how_to_install_it(server: Server) -> None:
    del server.mock.objects["v1/configmaps", "ml", "demo-runs"]
    server.mock.resources["v1/configmaps"] = {"namespaced": True}
    with pytest.raises(errors.UserError, match="must have a release of the chart, but has none"):
        backend.Kubernetes().start(RUN, 1)


def test_a_skeleton_that_is_no_rayjob_is_named(server: Server) -> None:
    server.mock.objects["v1/configmaps", "ml", "demo-runs"]["data"] = {"rayjob.yaml": "[]"}
    with pytest.raises(errors.UserError, match=r"demo-runs: rayjob\.yaml must be a RayJob, but"):
        backend.Kubernetes().plan(RUN, 1)


def test_without_a_cluster_it_says_where_one_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(errors.UserError, match="needs a cluster, from KUBECONFIG"):
        backend.Kubernetes()


def test_the_command_line_prints_a_dry_run_that_is_all_yaml(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wine.yaml"
    file.write_text("name: wine\ndata: {source: 'dataset:wine', target: target}\n")
    options = ["--kubernetes", "--dry-run", "--queue", "research", "--deadline", "60"]
    assert cli.main(["run", str(file), *options]) == 0
    job = yaml.safe_load(capsys.readouterr().out)
    assert job["metadata"]["namespace"] == "ml"
    assert job["spec"]["activeDeadlineSeconds"] == 60
    assert cli.main(["runs", "list", "--kubernetes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_files_are_predicted_by_a_rayjob(
    server: Server, s3: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"{s3.uri}/by-rayjob"
    registry, store = Registry(storage.open(uri)), storage.open(uri)
    registry.promote("left", registry.register("left", bundles.files(), {}).number)
    rows = pd.DataFrame(bundles.rows(10)).to_csv(index=False)
    store.put("in/0.csv", rows.encode())
    command = ["predict", "left", "--storage", uri, "--kubernetes", "--output", f"{uri}/out"]
    sent = [*command, "--input", f"{uri}/in"]
    assert cli.main([*sent, "--dry-run"]) == 0
    job = yaml.safe_load(capsys.readouterr().out)
    attempt, words = job["metadata"]["name"], shlex.split(job["spec"]["entrypoint"])
    assert words[:6] == ["python", "-m", "eagleray", "runs", "drive", "predict-left"]
    admitted = ["--queue", "research", "--priority", "low", "--deadline", "60", "--retries", "0"]
    assert cli.main([*sent, "--dry-run", *admitted]) == 0
    job = yaml.safe_load(capsys.readouterr().out)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert (job["spec"]["activeDeadlineSeconds"], job["spec"]["backoffLimit"]) == (60, 0)
    pods = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert (job["spec"]["suspend"], pods["priorityClassName"]) == (True, "low")
    assert cli.main([*sent, "--dry-run", "--cluster", "tuning", "--queue", "research"]) == 2
    assert "--queue: needs a cluster of the run's own" in capsys.readouterr().err
    assert list(store.list("out/")) == list(store.list("runs/")) == []
    assert cli.main([*sent, "--detach"]) == 0
    said = capsys.readouterr().err
    assert f"follow it with: eagleray runs attach {attempt} --kubernetes --namespace ml" in said
    run = Run(words[5], words[6], words[8])
    request = records.find(run, batches.Request)
    assert (run.storage, request) == (uri, batches.Request(output=f"{uri}/out", max_errors="10%"))
    assert len(server.mock["create"]) == 1
    (tmp_path / "rows.csv").write_text(rows)
    assert cli.main([*command, "--input", str(tmp_path / "rows.csv"), "--detach"]) == 2
    assert "--input: must be s3://… to be predicted with --kube" in capsys.readouterr().err
    assert len(server.mock["create"]) == 1


@pytest.mark.parametrize(
    ("setting", "law"),
    [
        ("compute.gpus=1", "at most 4 CPU and 0 GPU, but got 1 CPU and 1 GPU"),
        ("compute.workers=17", "must fit on the cluster, at most 16 with 1 CPU each, but got 17"),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_what_the_groups_of_workers_never_have_is_refused_before_it_is_sent(
    server: Server, tmp_path: Path, capsys: Any, *, shared: bool, setting: str, law: str
) -> None:
    runs_ = chart.one(chart.documents(chart.MINIMAL), "ConfigMap", "-runs")
    server.mock.objects["v1/configmaps", "ml", "demo-runs"]["data"] = runs_["data"]
    job = yaml.safe_load(runs_["data"]["rayjob.yaml"])
    cluster = {"metadata": {"name": "tuning"}, "spec": job["spec"]["rayClusterSpec"]}
    server.mock.resources["ray.io/v1/rayclusters"] = {"namespaced": True}
    server.mock.objects["ray.io/v1/rayclusters", "ml", "tuning"] = cluster
    file = tmp_path / "wine.yaml"
    file.write_text("name: wine\ndata: {source: 'dataset:wine', target: target}\n")
    options = ["--kubernetes", *(["--cluster", "tuning"] if shared else [])]
    assert cli.main(["run", str(file), *options, "--set", setting]) == 2
    assert law in capsys.readouterr().err
    assert len(server.mock["create"]) == 0


def test_without_aws_variables_a_run_offers_a_port_to_the_store_of_the_release(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    values = chart.merged(chart.MINIMAL, {"objectStore": {"embedded": True}})
    runs_ = chart.one(chart.documents(values), "ConfigMap", "-runs")
    server.mock.objects["v1/configmaps", "ml", "demo-runs"]["data"] = runs_["data"]
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "wine.yaml"
    file.write_text("name: wine\ndata: {source: 'dataset:wine', target: target}\n")
    assert cli.main(["run", str(file), "--kubernetes"]) == 1
    said = capsys.readouterr().err
    assert "local up" not in said
    assert "forward its port: kubectl port-forward -n ml svc/demo-store 8333 & export " in said
    assert (
        "AWS_ENDPOINT_URL_S3=http://127.0.0.1:8333 AWS_ACCESS_KEY_ID=$(kubectl get secret" in said
    )
    assert "-n ml demo-store -o 'jsonpath={.data.AWS_SECRET_ACCESS_KEY}' | base64 -d)" in said


@pytest.mark.parametrize(
    ("endpoint", "offered"),
    [
        ("http://s3.storage.svc:9000", "kubectl port-forward -n storage svc/s3 9000 & export "),
        ("http://minio:9000", "kubectl port-forward -n ml svc/minio 9000 & export "),
        ("https://s3.example.com", None),
        ("http://10.0.0.1:9000", None),
    ],
)
def test_a_port_is_led_to_an_s3_that_is_inside_alone(endpoint: str, offered: str | None) -> None:
    env = [{"name": "AWS_ENDPOINT_URL_S3", "value": endpoint}]
    found = releases.tunnel({"spec": {"containers": [{"env": env}]}}, "ml")
    assert found is None if offered is None else str(found).startswith(offered)


def test_a_log_in_a_file_has_no_colours_and_on_a_terminal_it_has(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "\x1b[36m(raylet)\x1b[0m started\n\x1b[1mdone\x1b[22m\n"
    log(server, said)
    assert cli.main(["runs", "logs", "churn", "--kubernetes"]) == 0
    assert capsys.readouterr().out == "(raylet) started\ndone\n"
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    assert "".join(screen.without_colours([said], terminal)) == said


@given(cuts=st.sets(st.integers(1, 40)))
def test_a_colour_that_is_cut_between_two_pieces_is_left_out(cuts: set[int]) -> None:
    said = "a\x1b[1;32mgreen\x1b[0m, \x1b[mplain\x1b[K \x1b"
    ends = [0, *sorted(cuts), len(said)]
    pieces = [said[start:end] for start, end in itertools.pairwise(ends)]
    assert "".join(screen.without_colours(pieces, io.StringIO())) == "agreen, plain\x1b[K \x1b"


def log(server: Server, said: str) -> None:
    """A run whose submitter has printed something."""
    submit_pod(server, runs.submit(backend.Kubernetes(), RUN).id)
    server.mock["get", api.PODS.path("ml", "submitter") + "/log"] << said.encode()
