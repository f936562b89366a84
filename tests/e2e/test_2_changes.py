"""What changes while requests are answered: versions, replicas, the cluster's specification."""

from typing import Any

from tests.e2e import settings
from tests.e2e.release import Release
from tests.e2e.story import Story

LIGHT: dict[str, float] = {"connections": 2, "rows": 1, "pause": 0.1}
MIXED: dict[str, float] = {**LIGHT, "kept": 8}
"""New connections and open ones: they fail for different reasons when a cluster takes over."""
HEAVY: dict[str, float] = {"connections": 24, "rows": 200, "pause": 0}
CHANGED: dict[str, Any] = {"ray": {"env": [{"name": "E2E_REVISION", "value": "2"}]}}


def test_a_promotion_under_load_changes_the_version_that_answers_and_fails_no_request(
    story: Story, release: Release
) -> None:
    second = release.search(str(story.experiment), "train.seed=1")["version"]
    before, pods = release.alias(), release.pods()
    wanted = second if before != second else 1
    with release.load(**LIGHT) as load:
        release.eagleray(
            "models", "promote", settings.MODEL, str(wanted), "--storage", release.storage
        )
        release.wait(
            f"an answer of version {wanted}",
            lambda: "" if load.now().latest == str(wanted) else f"it, not {load.now().latest}",
            120,
        )
        count = load.settled()
    assert count.failed == 0, count
    assert set(count.versions) == {str(before), str(wanted)}
    assert {one["metadata"]["uid"] for one in pods} <= {
        one["metadata"]["uid"] for one in release.pods()
    }


def test_load_adds_a_replica_and_a_pod_and_its_end_takes_them_away(release: Release) -> None:
    assert release.replicas() == 1
    with release.load(**HEAVY):
        release.wait("a second replica", lambda: _missing(release, 2), 600)
    release.wait("one replica again", lambda: _missing(release, 1), 600)


def test_an_upgrade_that_changes_the_cluster_moves_the_traffic_and_fails_no_request(
    story: Story, release: Release
) -> None:
    before = release.active()
    with release.load(**MIXED) as load:
        release.helm.upgrade(release.name, settings.merged(story.values, CHANGED))
        release.wait("the traffic on a new cluster", lambda: _unmoved(release, before), 1200)
        release.wait("the end of the old cluster", lambda: _kept(release, before), 600)
        count = load.settled()
    assert count.failed == 0, count
    assert _revision(release) == ["2"]


def test_a_rollback_of_the_release_moves_it_back_and_fails_no_request(release: Release) -> None:
    before, version = release.active(), release.predict()["version"]
    with release.load(**MIXED) as load:
        release.helm.rollback(release.name)
        release.wait("the traffic on a new cluster", lambda: _unmoved(release, before), 1200)
        release.wait("the end of the old cluster", lambda: _kept(release, before), 600)
        count = load.settled()
    assert count.failed == 0, count
    assert _revision(release) == []
    assert release.predict()["version"] == version  # Helm moves no alias


def _missing(release: Release, wanted: int) -> str:
    found = release.replicas()
    pods = len(release.pods("worker"))
    return "" if found == pods == wanted else f"{wanted}; {found} of {pods} worker pods are ready"


def _unmoved(release: Release, before: str) -> str:
    return f"another cluster than {before}" if release.active() == before else release.unready()


def _kept(release: Release, cluster: str) -> str:
    left = release.cluster.pods(cluster=cluster)
    return f"the end of {len(left)} pods of {cluster}" if left else ""


def _revision(release: Release) -> list[str]:
    """What the workers' environment says of the revision that they are of."""
    env = release.pods("worker")[0]["spec"]["containers"][0]["env"]
    return [each["value"] for each in env if each["name"] == "E2E_REVISION"]
