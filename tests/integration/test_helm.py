"""`eagleray deploy` by each version of the real `helm`, on each other's releases, killed midway."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import helm_python
import pytest

from eagleray import errors
from k8s import api, deploy, diagnose
from k8s.deploy import Wanted
from k8s.diagnose import snapshot
from tests import helm_programs
from tests.integration.test_deploy import GIVEN, READY, SERVICES, WAITING, serve_arguments
from tests.kube_api import Server

SCALED = Wanted(pairs=["serving.replicas.max=3"])
STORE = replace(GIVEN, pairs=["objectStore.embedded=true"])
RECORDER = """#!/bin/sh
echo $$ > {folder}/pid
echo "$@" >> {folder}/commands
exec {program} "$@"
"""
RACE = """#!/bin/sh
case "$*" in *--install*)
  {program} -n ml upgrade churn "$6" --reuse-values --set objectStore.embedded=true --wait \
    > /dev/null 2>&1 &
  echo $! > {folder}/pid
  for try in 1 2 3 4 5 6 7 8 9; do
    {program} -n ml history churn | grep -q pending && break
    sleep 1
  done
esac
exec {program} "$@"
"""
"""Somebody else begins a change of the release when ours begins; its store never comes up."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH."""
    found = tmp_path / "bin"
    found.mkdir()
    monkeypatch.setenv("PATH", f"{found}{os.pathsep}{os.environ['PATH']}")
    return found


def use(folder: Path, major: int, script: str = RECORDER) -> None:
    """Let the `helm` on PATH be of a version, and keep its command lines and its process id."""
    program = folder / "helm"
    program.write_text(script.format(folder=folder, program=helm_programs.program(major)))
    program.chmod(0o755)


def helm(major: int, *words: str) -> str:
    """What helm itself prints, called by a person."""
    command = [helm_programs.program(major), "--namespace", "ml", *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def history(release: str = "churn") -> list[str]:
    """The statuses of a release's revisions, the oldest first."""
    told = json.loads(helm(4, "history", release, "--output", "json"))
    return [one["status"] for one in told]


def install(major: int, *options: str) -> None:
    """Install a release as a person does, by helm alone."""
    named = [word for pair in GIVEN.named.items() for word in ("--set", "=".join(pair))]
    helm(major, "install", "churn", str(deploy.chart()), *named, *options)


def why() -> str:
    """The cause and the fix that `eagleray why` tells of the release."""
    (told,) = [diagnose.explain(one).finding for one in snapshot.read(api.Api(), "churn")]
    return f"{told.message}; {told.fix}"


def finalize(cluster: Server) -> None:
    """What KubeRay 1.7 does to a RayService: an Update of the whole object, in Go's form of it."""
    spec = cluster.mock.objects[SERVICES, "ml", "churn"].raw["spec"]
    groups = [dict(one) for one in spec["rayClusterConfig"]["workerGroupSpecs"]]
    groups[0]["scaleStrategy"] = {"workersToDelete": []}
    change = {"spec": {"rayClusterConfig": {"workerGroupSpecs": groups}}}
    cluster.updates(SERVICES, "churn", "kuberay-operator", change)


@pytest.mark.parametrize(
    ("major", "flags", "others"),
    [
        (3, "--atomic --timeout 600s", ["--rollback-on-failure", "--wait", "--force-conflicts"]),
        (4, "--rollback-on-failure --wait=legacy --timeout 600s --force-conflicts", ["--atomic"]),
    ],
)
def test_each_version_is_given_its_own_flags(
    cluster: Server, folder: Path, major: int, flags: str, others: list[str]
) -> None:
    use(folder, major)
    deploy.deploy(api.Api(), "churn", replace(GIVEN, force=True))
    (line,) = [one for one in (folder / "commands").read_text().splitlines() if "upgrade" in one]
    assert line.endswith(flags)
    assert "upgrade --install churn" in line
    assert not any(one in line.replace(flags, "") for one in others)


@pytest.mark.parametrize("ours", [3, 4])
@pytest.mark.parametrize("theirs", [3, 4])
def test_a_release_goes_back_and_forth_between_deploy_and_helm(
    cluster: Server, folder: Path, ours: int, theirs: int
) -> None:
    """A release of Helm 3 has no owners, and Helm 4 refuses to be told of conflicts then."""
    use(folder, ours)
    install(theirs)
    done = deploy.deploy(api.Api(), "churn", replace(SCALED, force=theirs == 3))
    assert (done.action, done.revision) == ("updated", 2)
    assert serve_arguments(cluster, "churn")["max_replicas"] == 3
    helm(theirs, "upgrade", "churn", str(deploy.chart()), "--reuse-values", "--set", "serving.replicas.max=2")  # fmt: skip  # noqa: E501
    assert serve_arguments(cluster, "churn")["max_replicas"] == 2
    helm(theirs, "rollback", "churn", "1")
    assert history() == ["superseded", "superseded", "superseded", "deployed"]
    assert serve_arguments(cluster, "churn")["max_replicas"] == 4


def test_a_conflict_with_the_operator_is_named_and_undone_and_can_be_forced(
    cluster: Server, folder: Path
) -> None:
    use(folder, 4)
    install(4)
    finalize(cluster)
    with pytest.raises(errors.ConflictError) as refused:
        deploy.deploy(api.Api(), "churn", SCALED)
    assert str(refused.value) == (
        "namespace ml: RayService churn: .spec.rayClusterConfig.workerGroupSpecs is set by "
        "kuberay-operator; take it over once: --force-conflicts"
    )
    assert history()[-1] == "deployed"
    assert serve_arguments(cluster, "churn")["max_replicas"] == 4
    told = why()
    assert "the last upgrade was refused: RayService churn: .spec.rayClusterConfig.worker" in told
    assert "--force-conflicts" in told
    finalize(cluster)
    deploy.deploy(api.Api(), "churn", replace(SCALED, force=True))
    assert history()[-1] == "deployed"
    assert serve_arguments(cluster, "churn")["max_replicas"] == 3
    assert "refused" not in why()


def test_a_release_of_the_deploy_before_this_one_is_taken_over_once(
    cluster: Server, tmp_path: Path, folder: Path
) -> None:
    """It ran Helm inside Python, so that fields belong to a manager of that name."""
    use(folder, 4)
    given: dict[str, Any] = {"model": {"name": "churn"}, "storage": {"uri": "s3://models"}}
    with helm_python.Config(kubeconfig_path=tmp_path / "kubeconfig", namespace="ml") as before:
        before.install(deploy.chart(), "churn", given)
    with pytest.raises(errors.ConflictError, match=r"RayService churn: \.spec\.\S+ is set by \w+;"):
        deploy.deploy(api.Api(), "churn", SCALED)
    deploy.deploy(api.Api(), "churn", replace(SCALED, force=True))
    deploy.deploy(api.Api(), "churn", Wanted(pairs=["serving.replicas.max=2"]))
    helm(4, "upgrade", "churn", str(deploy.chart()), "--reuse-values")
    assert history()[-1] == "deployed"


def test_waiting_ends_with_a_ready_endpoint_or_undoes_the_change(
    cluster: Server, folder: Path
) -> None:
    use(folder, 3)
    waited = replace(GIVEN, wait_s=1)
    cluster.mock.statuses["RayService"] = WAITING
    with pytest.raises(errors.ClusterError, match="must become ready within 1 s, but is not ready"):
        deploy.deploy(api.Api(), "churn", waited)
    assert cluster.names() == set()
    cluster.mock.statuses["RayService"] = READY
    assert deploy.deploy(api.Api(), "churn", replace(GIVEN, wait_s=30)).revision == 1
    cluster.mock.statuses["RayService"] = WAITING
    with pytest.raises(errors.ClusterError, match="it was undone"):
        deploy.deploy(api.Api(), "churn", replace(waited, pairs=SCALED.pairs))
    assert history() == ["superseded", "superseded", "deployed"]
    assert serve_arguments(cluster, "churn")["max_replicas"] == 4


@pytest.mark.parametrize(
    ("says", "found"),
    [
        (None, "helm is not on PATH; install it: .*/get-helm-4"),
        ("v3.13.3", "/helm is v3.13.3"),
        ("v2.17.0", "/helm is v2.17.0"),
        ("no version", "/helm is no version"),
    ],
)
def test_without_a_helm_that_is_new_enough_one_line_says_what_to_install(
    cluster: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, says: str | None, found: str
) -> None:
    if says is None:
        monkeypatch.setenv("PATH", str(folder))
    else:
        use(folder, 4, f"#!/bin/sh\necho {says}\n")
    with pytest.raises(errors.UserError, match=f"deploy: needs helm 3.14 or newer, but .*{found}"):
        deploy.deploy(api.Api(), "churn", GIVEN)


@pytest.mark.parametrize("major", [3, 4])
def test_ctrl_c_undoes_an_installation(cluster: Server, folder: Path, major: int) -> None:
    use(folder, major)
    ended = cut_off(cluster, signal.SIGINT)
    assert ended.returncode == 130
    assert ended.stderr == "churn: interrupted; nothing has changed, or it was undone\n"
    assert cluster.names(SERVICES) == set()


def test_a_helm_that_is_killed_is_cleaned_up_after(cluster: Server, folder: Path) -> None:
    use(folder, 4)
    ended = cut_off(cluster, signal.SIGKILL, lambda _: int((folder / "pid").read_text()))
    assert ended.returncode == 1
    assert "helm upgrade: must end by itself, but got SIGKILL" in ended.stderr
    assert cluster.names(SERVICES) == set()


def test_after_both_were_killed_the_next_deploy_says_what_to_do_and_that_helps(
    cluster: Server, folder: Path
) -> None:
    use(folder, 4)
    install(4)
    helm_pid = lambda: int((folder / "pid").read_text())  # noqa: E731
    cut_off(cluster, signal.SIGKILL, lambda ours: ours)
    os.kill(helm_pid(), signal.SIGKILL)
    with pytest.raises(errors.ConflictError, match="is pending-upgrade") as refused:
        deploy.deploy(api.Api(), "churn", GIVEN)
    command = str(refused.value).rpartition("helm was killed: ")[2]
    assert command == "helm rollback churn -n ml"
    subprocess.run(command.split(), check=True, capture_output=True)
    assert deploy.deploy(api.Api(), "churn", SCALED).revision == 4
    assert history()[-1] == "deployed"


def test_who_loses_a_race_for_a_release_leaves_the_other_alone(
    cluster: Server, folder: Path
) -> None:
    use(folder, 4, RACE)
    install(4)
    with pytest.raises(errors.ConflictError, match="somebody else changes the release now: "):
        deploy.deploy(api.Api(), "churn", SCALED)
    assert history() == ["deployed", "pending-upgrade"]
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)


def cut_off(
    cluster: Server, number: signal.Signals, whom: Any = lambda ours: ours
) -> subprocess.CompletedProcess[str]:
    """Deploy a release whose store never comes up, and end it once its objects are there."""
    command = [sys.executable, "-m", "eagleray", "deploy", "churn", "--kubernetes"]
    options = ["--model", "churn", "--storage", "s3://models", "--set", "objectStore.embedded=true"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in case a shell let us ignore it
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            deadline = time.monotonic() + 60
            while not cluster.names("apps/v1/statefulsets") or not cluster.names(SERVICES):
                assert running.poll() is None, running.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.kill(whom(running.pid), number)
            out, said = running.communicate(timeout=120)
        finally:
            running.kill()
    return subprocess.CompletedProcess(command, running.returncode, out, said)
