"""Which attempt of a run to attach to, and when to make another."""

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from eagleray import cli, errors
from eagleray.client import runs
from eagleray.client.runs import Attempt, State
from eagleray.state.runs import Run

RUN = Run("churn", "0123456789ab", "s3://models")


class Room:
    """A cluster of no machines, which remembers what it was told to start."""

    options = "--address http://head:8265"

    def __init__(self, *states: State) -> None:
        self.known = [made(number, state) for number, state in enumerate(states, start=1)]
        self.quicker: Attempt | None = None

    def attempts(self) -> list[Attempt]:
        return self.known

    def plan(self, run: Run, number: int) -> str:
        return runs.attempt_id(run, number)

    def start(self, run: Run, number: int) -> None:
        if self.quicker is not None:
            self.known.append(self.quicker)
            raise errors.ConflictError("exists already")
        self.known.append(made(number, "waiting"))

    def log(self, attempt: Attempt, *, follow: bool) -> Iterator[str]:
        yield from ()

    def stop(self, attempt: Attempt) -> None:
        self.known.remove(attempt)


def made(number: int, state: State) -> Attempt:
    name = runs.attempt_id(RUN, number)
    return Attempt(name, RUN.name, RUN.id, number, state, started=f"2026-01-{number:02}")


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_what_is_under_way_is_attached_to(state: State) -> None:
    room = Room("failed", state)
    assert runs.submit(room, RUN).number == 2
    assert len(room.known) == 2
    assert runs.plan(room, RUN) == f"# churn-0123456789ab-2: {state} already"


@pytest.mark.parametrize("state", ["failed", "stopped", "succeeded"])
def test_what_has_ended_is_followed_by_the_next_attempt(state: State) -> None:
    room = Room(state)
    assert runs.plan(room, RUN) == "churn-0123456789ab-2"
    assert runs.submit(room, RUN).number == 2


def test_another_run_of_the_same_name_does_not_count() -> None:
    room = Room("running")
    other = dataclasses.replace(RUN, id="ba9876543210")
    assert runs.plan(room, other) == "churn-ba9876543210-1"


def test_who_is_slower_attaches_to_the_attempt_of_who_was_quicker() -> None:
    room = Room()
    room.quicker = made(1, "running")
    assert runs.submit(room, RUN) == room.quicker


@pytest.mark.parametrize("reference", ["churn", "0123456789ab", "churn-0123456789ab-2"])
def test_a_run_is_called_by_its_name_its_id_or_an_attempt(reference: str) -> None:
    assert runs.find(Room("failed", "running"), reference).number == 2


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(
        errors.NotFoundError, match="no run is called 'chrun'; did you mean 'churn'"
    ):
        runs.find(Room("failed"), "chrun")


@pytest.mark.parametrize(
    ("exit_code", "kind"),
    [(2, errors.UserError), (1, errors.ClusterError), (None, errors.ClusterError)],
)
def test_a_failure_is_the_users_where_the_driver_says_so(
    exit_code: int | None, kind: type[errors.EagleRayError]
) -> None:
    failed = dataclasses.replace(made(1, "failed"), why="it is broken", exit_code=exit_code)
    room = Room()
    room.known = [failed]
    with pytest.raises(kind, match=r"-1: failed \(it is broken\); the same command goes on"):
        runs.raise_for_state(room, failed)


def test_success_is_no_error() -> None:
    runs.raise_for_state(Room("succeeded"), made(1, "succeeded"))


def test_the_entrypoint_is_a_command_that_the_command_line_knows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = shlex.split(runs.entrypoint(Run("churn", RUN.id, "file:///a folder; rm -r")))
    assert words[:3] == ["python", "-m", "eagleray"]
    assert words[-1] == "file:///a folder; rm -r"
    assert cli.main([*words[3:], "--help"]) == 0
    assert "Run the driver process" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--namespace", "ml"], "--namespace: must stand beside --kubernetes"),
        (["--queue", "q"], "--queue: must stand beside --kubernetes"),
        (["--deadline", "5"], "--deadline: must stand beside --kubernetes"),
        (
            ["--kubernetes", "--address", "http://h:1"],
            "--address: cannot stand beside --kubernetes",
        ),
        (["--detach"], "--detach: must stand beside --kubernetes or --address http://…"),
    ],
)
def test_options_that_lead_nowhere_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    file = tmp_path / "wine.yaml"
    file.write_text("name: wine\ndata: {source: 'dataset:wine', target: target}\n")
    assert cli.main(["run", str(file), *options]) == 2
    assert capsys.readouterr().err == f"{problem}\n"
