"""What a cluster does to a release, and what people do to it by mistake."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from k8s import api
from tests.e2e import cluster, diagnosis, settings
from tests.e2e.cluster import names
from tests.e2e.release import Release
from tests.e2e.story import Story, bad, other
from tests.e2e.test_2_changes import MIXED

ALONE: dict[str, Any] = {"serving": {"workers": {"max": 1}, "replicas": {"max": 1}}}
MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "an image that is not there": (
        {"image": {"repository": "eagleray-absent", "tag": "0.0.0", "pullPolicy": "IfNotPresent"}},
        ("eagleray-absent:0.0.0", "ImagePull"),
    ),
    "a Secret that is not there": (
        {
            "objectStore": {"embedded": False},
            "storage": {"endpoint": "http://absent:9000", "existingSecret": "absent-keys"},
        },
        ("absent-keys", "CreateContainerConfigError"),
    ),
}


@pytest.mark.parametrize("role", ["worker", "head"])
def test_a_pod_that_is_killed_comes_back_and_the_endpoint_answers(
    release: Release, role: str
) -> None:
    """Whatever the head's loss does to the Ray cluster, the version stays."""
    version = release.predict()["version"]
    (killed, *_) = release.pods(role)
    release.cluster.delete(api.PODS, killed["metadata"]["name"])
    release.wait(f"another {role}", lambda: _same(release, role, killed), 300)
    release.wait("answers again", release.mute, 900)
    assert release.predict()["version"] == version


def test_the_loss_of_the_head_under_load_fails_no_request_where_its_state_is_kept(
    story: Story, release: Release
) -> None:
    if story.settings.fault_tolerance != "embedded":
        pytest.skip("nothing keeps the head's state: EAGLERAY_E2E_FAULT_TOLERANCE is none")
    (head,), workers = release.pods("head"), _lives(release)
    with release.load(**MIXED) as load:
        _kill(release, head)
        release.wait("another head", lambda: _same(release, "head", head), 300)
        release.wait("an endpoint that is ready", release.unready, 600)
        count = load.settled()
    assert count.failed == 0, count
    assert _lives(release) == workers


def test_a_second_release_in_the_namespace_leaves_the_first_alone(
    story: Story, release: Release
) -> None:
    before = (release.active(), names(release.pods("head")))
    second = story.named(other(release.name), "s3://models")
    with _installed(story, second, ALONE):
        second.wait("its head", lambda: "" if second.pods("head") else "a pod", 300)
        second.wait("its worker", lambda: "" if second.pods("worker") else "a pod", 600)
        assert (release.active(), names(release.pods("head"))) == before
        assert release.predict()["model"] == settings.MODEL
    left = lambda: ", ".join(story.cluster.leftovers(second.name))  # noqa: E731
    second.wait("nothing left of it", left, 300)
    assert release.mute() == ""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_by_the_diagnosis(story: Story, mistake: str) -> None:
    changes, words = MISTAKES[mistake]
    release = story.named(bad(story.installed().name), "s3://models")
    with _installed(story, release, settings.merged(ALONE, changes)):
        release.wait("the reason", lambda: _unnamed(release, words), 300)
    left = lambda: ", ".join(story.cluster.leftovers(release.name))  # noqa: E731
    release.wait("nothing left of it", left, 300)


@contextmanager
def _installed(story: Story, release: Release, changes: Mapping[str, Any]) -> Iterator[None]:
    story.helm.install(release.name, settings.merged(story.values, changes))
    try:
        yield
    finally:
        story.helm.uninstall(release.name)


def _kill(release: Release, pod: Mapping[str, Any]) -> None:
    """End a pod within a second, as the loss of its processes does: no time to hand over."""
    name, namespace = pod["metadata"]["name"], release.cluster.namespace
    cluster.core().delete_namespaced_pod(name, namespace, grace_period_seconds=1)


def _lives(release: Release) -> dict[str, list[int]]:
    """The workers, and how often their containers were started again."""
    return {
        pod["metadata"]["uid"]: [one["restartCount"] for one in pod["status"]["containerStatuses"]]
        for pod in release.pods("worker")
    }


def _same(release: Release, role: str, killed: Mapping[str, Any]) -> str:
    uids = {one["metadata"]["uid"] for one in release.pods(role)} - {killed["metadata"]["uid"]}
    return "" if uids else f"a {role} that is another pod"


def _unnamed(release: Release, words: tuple[str, ...]) -> str:
    found = [one for one in diagnosis.causes(release.cluster) if release.name in one]
    if any(all(word in one for word in words) for one in found):
        return ""
    return f"one with {' and '.join(words)}; got {found}"
