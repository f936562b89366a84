"""Trials that wait on a cluster of one CPU, and what `eagleray why` says of them."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray.util import placement_group, remove_placement_group
from rich import console

from eagleray import cli, errors
from ray_jobs import pipeline
from tests.integration.searches import test_distributed, test_search_goes_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from eagleray import spec
    from eagleray.state.searches import Waiting

LIMIT_S = 120.0


@contextlib.contextmanager
def held(**resources: float) -> Iterator[None]:
    """Keep resources of the cluster from others in the block."""
    group = placement_group([resources])
    ray.get(group.ready())
    try:
        yield
    finally:
        remove_placement_group(group)


class Search(threading.Thread):
    """A search in a thread, as its driver runs it."""

    def __init__(self, chosen: spec.Experiment) -> None:
        super().__init__(daemon=True)
        self.chosen, self.ended = chosen, list[Any]()

    def run(self) -> None:
        out = console.Console(file=io.StringIO(), width=200)
        self.ended.append(pipeline.run(self.chosen, out))

    def waiting(self) -> list[Waiting]:
        """The trials that wait, once there is one."""
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            with contextlib.suppress(ValueError):  # there is no search yet
                view = test_search_goes_on.on_record(self.chosen).view()
                if view and view.waiting:
                    return view.waiting
            time.sleep(0.2)
        raise TimeoutError("no trial waits")


def why(chosen: spec.Experiment, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert cli.main(["why", "wine", "--storage", chosen.storage]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_a_trial_that_waits_is_explained_and_the_search_goes_on_once_there_is_room(
    ray_cluster: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    search = Search(test_search_goes_on.experiment(tmp_path, **{"tune.trials": 1}))
    with held(CPU=1):
        search.start()
        [told] = search.waiting()
        said = why(search.chosen, capsys)
    search.join(LIMIT_S)
    assert told.numbers == [1]
    assert told.why == "1 CPU; none free now: 1 of 1 CPU used on 1 node"
    since = r"trial 1 waits since \d\d:\d\d:\d\d UTC \(\d+ s\)"
    assert re.fullmatch(f"cause: {since}: {re.escape(told.why)}", said[-2])
    assert said[-1] == "fix:   wait until a trial ends, or add a node that has it"
    assert re.match(r"Run [0-9a-f]{12}: running", said[0])
    assert [one.status for one in search.ended[0].trials] == ["finished"]
    assert "nothing is wrong" in why(search.chosen, capsys)[-1]


@pytest.mark.slow
def test_a_group_that_waits_for_room_for_all_its_workers_is_explained(
    ray_cluster: None, tmp_path: Path
) -> None:
    chosen = test_distributed.grouped(tmp_path, "    pass\n", **{"tune.trials": 1})
    search = Search(chosen)
    with held(CPU=0.5):
        search.start()
        [told] = search.waiting()
    search.join(LIMIT_S)
    assert told.why == "2 workers with 0.5 CPU each; 1 free now: 0.5 of 1 CPU used on 1 node"
    assert [one.status for one in search.ended[0].trials] == ["finished"]


def test_on_a_cluster_without_an_autoscaler_what_never_fits_is_refused(
    ray_cluster: None, tmp_path: Path
) -> None:
    chosen = test_search_goes_on.experiment(tmp_path, **{"compute.gpus": 1})
    with pytest.raises(errors.UserError, match="at most 1 CPU and 0 GPU, but got 1 CPU and 1 GPU"):
        pipeline.run(chosen, console.Console(file=io.StringIO()))
    assert test_search_goes_on.on_record(chosen).trials() == []
