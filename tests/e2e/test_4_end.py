"""The end of a release."""

from tests.e2e.story import Story


def test_uninstalling_leaves_nothing_behind(story: Story) -> None:
    """RayJobs belong to who sent them, not to the release: they are deleted before."""
    release = story.installed()
    story.end_runs()
    release.helm.uninstall(release.name)
    left = lambda: ", ".join(story.cluster.leftovers(release.name))  # noqa: E731
    release.wait("nothing left of the release", left, 600)
