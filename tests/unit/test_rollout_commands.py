"""`eagleray rollout …` and `models promote --canary`, on a storage folder."""

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from eagleray import cli, storage
from eagleray.learn import schema
from eagleray.state.models import Registry
from serving import metrics, served
from serving.settings import Settings
from tests import bundles


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two versions, of which the first is champion, and one that breaks clients."""
    monkeypatch.setenv("EAGLERAY_STORAGE", tmp_path.as_uri())
    monkeypatch.setenv(metrics.FOLDER, "")
    made = Registry(storage.open(tmp_path.as_uri()))
    other = schema.Target(name="left", task="binary", classes=("maybe", "never"))
    for files in (bundles.files(), bundles.files(seed=1), bundles.files(target=other)):
        made.register("left", files, {})
    made.promote("left", 1)
    return made


def say(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert cli.main(list(words)) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def status(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(say(capsys, "rollout", "status", "left", "--json")))


def test_a_rollout_is_started_steered_and_shown(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", "10,50", "--bake-s", "5", "--sticky", "x-user", "--why", "more data"]
    said = say(capsys, "rollout", "start", "left", "2", *options)
    assert said.startswith("left: version 2 beside 1, the champion: canary, running at 10%\n")
    counted = "0 requests, errors 0.00% (champion 0.00%); evidence against version 2: e = 1"
    assert said.splitlines()[1] == f"now: {counted}, and 100 stops it"
    route = registry.aliases("left").routes["champion"]
    assert (route.candidate, route.share, route.sticky) == (2, 0.1, "x-user")
    say(capsys, "rollout", "pause", "left")
    assert status(capsys)["status"] == "paused"
    say(capsys, "rollout", "resume", "left")
    said = say(capsys, "rollout", "abort", "left", "--why", "lunch")
    assert said.startswith("left: version 2 beside 1, the champion: canary, stopped\nAT ")
    assert [one["action"] for one in status(capsys)["decisions"]] == [
        "started",
        "paused",
        "resumed",
        "stopped",
    ]
    assert registry.aliases("left").routes == {}
    events = say(capsys, "models", "events", "left")
    assert "rollout-started" in events
    assert "lunch" in events


def test_a_split_is_started_with_its_measure(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--split", "50", "--measure", "outcome:yes", "--promote-winner"]
    say(capsys, "rollout", "start", "left", "2", *words)
    plan = status(capsys)["plan"]
    assert (plan["mode"], plan["measure"], plan["promote_winner"]) == ("split", "outcome:yes", True)


def test_a_canary_of_promote_is_a_rollout_with_the_defaults(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    said = say(capsys, "models", "promote", "left", "latest", "--canary", code=2)
    assert "must answer clients of version 1" in said
    said = say(capsys, "models", "promote", "left", "2", "--canary")
    assert said.startswith("left: version 2 gets 5% of the requests of champion; ")
    assert registry.aliases("left").values == {"champion": 1}
    assert status(capsys)["plan"]["steps"] == [0.05, 0.25, 0.5]


@pytest.mark.parametrize(
    ("words", "law"),
    [
        (["2", "--steps", "50,10"], "--steps: must be rising percents such as 5,25,50, but got"),
        (["2", "--steps", "5,x"], "--steps: must be rising percents such as 5,25,50, but got '5,x"),
        (["2", "--steps", "nan"], "--steps: must be rising percents such as 5,25,50, but got 'nan"),
        (["2", "--steps", "5,150"], "--steps: must be rising percents such as 5,25,50, but got"),
        (["2", "--shadow", "0"], "'--shadow': Input should be greater than or equal to 1"),
        (["2", "--split", "150"], "'--split': Input should be less than or equal to 100"),
        (["2", "--sticky", "x user"], "sticky: must be the name of a header, such as x-user-id"),
        (["2", "--shadow", "5", "--split", "5"], "--shadow and --split: at most one may be given"),
        (["2", "--measure", "label"], "--measure: is for a split alone, but got canary"),
        (["2", "--split", "5", "--measure", "luck"], "must be label, errors, latency or outcome:"),
        (
            ["2", "--split", "5", "--promote-winner"],
            "--promote-winner: needs a measure",
        ),
        (["2", "--split", "5", "--measure", "outcome:yess"], "but got 'yess'; did you mean 'yes'"),
        (["2", "--least", "0"], "--least: must be greater than or equal to 1, but got 0"),
        (["2", "--deadline-s", "0"], "--deadline-s: must be greater than 0, but got 0"),
        (["1"], "points to version 1 already"),
        (["9"], "must be one of its versions"),
        (["3"], "promote it with --allow-schema-change"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused_with_the_law(
    registry: Registry, capsys: pytest.CaptureFixture[str], words: list[str], law: str
) -> None:
    code = 2 if "already" not in law else cli.main(["rollout", "start", "left", *words])
    capsys.readouterr()
    assert law in say(capsys, "rollout", "start", "left", *words, code=code)
    assert registry.aliases("left").routes == {}
    assert "must have had a rollout" in say(capsys, "rollout", "status", "left", code=2)


def test_during_a_rollout_its_alias_moves_by_it_alone(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    say(capsys, "rollout", "start", "left", "2", "--split", "50")
    for words in (["models", "promote", "left", "2"], ["models", "rollback", "left"]):
        assert cli.main(words) != 0
        assert "`eagleray rollout abort left` ends it" in capsys.readouterr().err
    registry.promote("left", 2, "challenger")
    assert registry.aliases("left").values == {"champion": 1, "challenger": 2}


def test_an_endpoint_sets_how_rollouts_of_its_alias_proceed(
    registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def serve(**rollout: Any) -> None:
        options = {"storage": tmp_path.as_uri(), "p95_ms": 40.0, "rollout": rollout}
        observer = metrics.Metrics(tmp_path / "metrics", "left")
        served.Served(Settings.model_validate({"name": "left", **options}), observer).publish()

    serve(steps=[1, 50], bake_s=7, least=9, sticky="x-user")
    serve(steps=[1, 50], bake_s=8, least=9, sticky="x-user")
    say(capsys, "models", "promote", "left", "2", "--canary")
    plan = status(capsys)["plan"]
    assert (plan["steps"], plan["bake_s"], plan["least"]) == ([0.01, 0.5], 8, 9)
    assert (plan["sticky"], plan["p95_ms"], plan["deadline_s"]) == ("x-user", 40, 3600)
    say(capsys, "rollout", "abort", "left")
    say(capsys, "rollout", "start", "left", "2", "--shadow", "10", "--bake-s", "5")
    plan = status(capsys)["plan"]
    assert (plan["mode"], plan["steps"]) == ("shadow", [0.1])
    assert (plan["bake_s"], plan["least"]) == (5, 9)
    say(capsys, "rollout", "abort", "left")
    serve(mode="split", steps=[50])
    say(capsys, "rollout", "start", "left", "2")
    assert status(capsys)["plan"]["mode"] == "split"


@pytest.mark.parametrize(
    "rollout",
    [{"steps": [50, 10]}, {"steps": []}, {"mode": "shadow"}, {"least": 0}, {"step": [5]}],
)
def test_an_endpoint_refuses_a_plan_that_cannot_be(rollout: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match="rollout"):
        Settings.model_validate({"name": "left", "rollout": rollout})
