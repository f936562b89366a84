"""One installed release for all steps, and a diagnosis with whatever fails."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from eagleray import errors
from tests.e2e import cluster, diagnosis, settings
from tests.e2e.release import Release
from tests.e2e.story import Story

HERE = Path(__file__).parent
LONGEST_S = 3600
STORY = pytest.StashKey[Story]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests wait for others: they end by their own limits, and no warning fails them."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(LONGEST_S))
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    try:
        chosen = settings.read()
        cluster.check(chosen)
    except errors.EagleRayError as needed:
        pytest.exit(str(needed), returncode=2)
    told = Story(chosen, tmp_path_factory.mktemp("e2e"))
    request.config.stash[STORY] = told
    yield told
    if not (chosen.keep and request.session.testsfailed):
        told.clean()


@pytest.fixture
def release(story: Story) -> Release:
    """The shared release, with an endpoint that answers."""
    return story.served()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say what the cluster says, unless the failure carries that already."""
    report = yield
    told = item.config.stash.get(STORY, None)
    if report.failed and told is not None and call.excinfo is not None:
        notes = getattr(call.excinfo.value, "__notes__", ())
        if not any(note.startswith(diagnosis.HEADING) for note in notes):
            report.sections.append(("the cluster", diagnosis.report(told.cluster)))
    return report
