"""From nothing to an endpoint that answers."""

from tests.e2e import clients
from tests.e2e.release import Release
from tests.e2e.settings import MODEL
from tests.e2e.story import Story


def test_the_chart_installs_with_its_two_required_values_and_small_sizes(story: Story) -> None:
    release = story.installed()
    assert release.pods("head")


def test_a_search_sent_as_a_rayjob_ends_and_registers_the_champion(story: Story) -> None:
    assert story.learned().alias() == 1


def test_the_same_experiment_sent_again_gives_the_result_without_a_second_run(
    story: Story,
) -> None:
    release = story.learned()
    assert release.search(str(story.experiment))["version"] == 1
    runs = release.eagleray("runs", "list", "--kubernetes", "--namespace", story.cluster.namespace)
    assert len([run for run in runs if run["name"] == MODEL]) == 1


def test_the_rayservice_becomes_ready_once_there_is_a_version(release: Release) -> None:
    assert release.unready() == ""
    assert release.replicas() == 1


def test_helm_test_makes_one_real_prediction(release: Release) -> None:
    limit_s = release.settings.limit_s(300)
    release.helm.test(release.name, limit_s)


def test_a_pod_of_the_namespace_is_answered_through_the_service(release: Release) -> None:
    command = clients.prediction_command(release.url, MODEL, patience_s=60)
    limit_s = release.settings.limit_s(240)
    said = clients.run(release.cluster, release.image(), command, limit_s=limit_s)
    assert f"{MODEL} version 1 predicts" in said


def test_this_machine_is_answered_through_a_forwarded_port(release: Release) -> None:
    answer = release.predict()
    assert (answer["model"], answer["version"]) == (MODEL, 1)
    assert len(answer["predictions"]) == 1


def test_this_machine_is_answered_by_grpc_through_a_forwarded_port(release: Release) -> None:
    assert release.infer() == (MODEL, "1")
