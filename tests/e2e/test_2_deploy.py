"""`eagleray deploy` and `helm` on each other's releases, with an operator that changes them too."""

from typing import Any

import pytest

from eagleray import errors
from tests.e2e import settings
from tests.e2e.release import Release
from tests.e2e.story import Story

SERVE = "serving.replicas.downscaleDelaySeconds"
"""A value that Serve takes in place: no pod starts anew for it."""


def delays(seconds: int) -> dict[str, Any]:
    return {"serving": {"replicas": {"downscaleDelaySeconds": seconds}}}


def test_deploy_changes_a_release_that_helm_installed(release: Release) -> None:
    cluster = release.active()
    done = release.deploy("--set", f"{SERVE}=11", "--wait", "600")
    assert done["action"] == "updated"
    assert [one["kind"] for one in done["changes"] if one["action"] != "kept"] == ["RayService"]
    assert release.helm.history(release.name)[-1] == "deployed"
    assert release.active() == cluster


def test_helm_changes_a_release_that_deploy_changed(story: Story, release: Release) -> None:
    release.helm.upgrade(release.name, settings.merged(story.values, delays(12)))
    assert release.helm.history(release.name)[-1] == "deployed"
    release.helm.rollback(release.name)
    assert release.helm.history(release.name)[-1] == "deployed"
    assert release.mute() == ""


def test_a_deploy_that_does_not_become_ready_is_undone(release: Release) -> None:
    """A new Ray cluster of an image that is not there: the one in use answers all the while."""
    cluster = release.active()
    with pytest.raises(errors.ClusterError, match="must become ready within 60 s"):
        release.deploy("--set", "image.repository=eagleray-absent", "--wait", "60")
    assert release.helm.history(release.name)[-1] == "deployed"
    release.wait("the release at rest", release.unready, 600)
    assert release.active() == cluster
