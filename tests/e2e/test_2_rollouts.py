"""What an endpoint does by itself: it gives a bad version back, and ends its last replica."""

from pathlib import Path
from typing import Any

from tests.e2e import constant, settings
from tests.e2e.release import Release
from tests.e2e.story import Story
from tests.e2e.test_2_changes import LIGHT

ZERO: dict[str, Any] = {
    "serving": {
        "replicas": {"min": 0, "zeroDelaySeconds": 20},
        "workers": {"min": 0},
    },
    "ray": {"env": [{"name": "EAGLERAY_FIRST_REPLICA_S", "value": "300"}]},
}
"""The first request waits for a pod as well, so it may wait longer than on a node that is there."""


def test_a_bad_canary_is_rolled_back_by_itself_and_fails_no_request(
    release: Release, tmp_path: Path
) -> None:
    champion, bad = release.alias(), _add_wrong(release, tmp_path)
    with release.load(**LIGHT) as load:
        steps = ["--steps", "25,50", "--bake-s", "60", "--allow-schema-change"]
        _rollout(release, "start", settings.MODEL, str(bad), *steps)
        release.wait("an answer of the candidate", lambda: _unseen(load.now().versions, bad), 120)
        release.wait("the end of the rollout", lambda: _open(release), 120)
        count = load.settled()
    ended = _rollout(release, "status", settings.MODEL)
    why = ended["decisions"][-1]["why"]
    assert (ended["status"], "predictions of" in why) == ("stopped", True), why
    assert (count.failed, release.alias()) == (0, champion), count
    assert set(count.versions) == {str(champion), str(bad)}
    release.wait("answers of the champion alone", lambda: _others(release, champion), 60)


def test_an_idle_endpoint_ends_its_last_pod_and_the_next_request_brings_one_back(
    story: Story, release: Release
) -> None:
    version, before = release.predict()["version"], release.active()
    release.helm.upgrade(release.name, settings.merged(story.values, ZERO))
    try:
        release.wait("a cluster with these values", lambda: _same(release, before), 1200)
        release.wait("the end of the last replica and its pod", lambda: _workers(release), 900)
        with release.load(connections=1, rows=1, pause=1.0, patience=600) as load:
            count = load.settled()
        assert (count.failed, set(count.versions)) == (0, {str(version)}), count
        release.wait("the end of the last replica again", lambda: _workers(release), 900)
    finally:
        release.helm.rollback(release.name)
        release.wait("a replica that stays", release.mute, 1800)


def _add_wrong(release: Release, folder: Path) -> int:
    """Register a version that gives each row another class than the champion gives the example."""
    (answer,) = release.predict()["predictions"]
    wrong = next(one for one in constant.CLASSES if one != answer["label"])
    model, rows = constant.write(folder, wrong)
    options = ["--onnx", str(model), "--example", str(rows), "--target", constant.TARGET]
    classes = ["--labels", ",".join(constant.CLASSES), "--storage", release.storage]
    return int(release.eagleray("models", "add", settings.MODEL, *options, *classes)["version"])


def _rollout(release: Release, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = release.eagleray("rollout", *words, "--storage", release.storage)
    return found


def _open(release: Release) -> str:
    status = _rollout(release, "status", settings.MODEL)["status"]
    return f"its end; it is {status}" if status in ("running", "paused") else ""


def _unseen(versions: Any, number: int) -> str:
    return "" if str(number) in versions else f"one of version {number}; got {dict(versions)}"


def _others(release: Release, champion: int) -> str:
    found = {release.predict()["version"] for _ in range(5)} - {champion}
    return f"no answer of {found}" if found else ""


def _same(release: Release, before: str) -> str:
    return f"another cluster than {before}" if release.active() == before else ""


def _workers(release: Release) -> str:
    left = release.pods("worker", cluster=release.active())
    return f"the end of {len(left)} worker pods" if left else ""
