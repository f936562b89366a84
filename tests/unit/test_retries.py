"""Trials that lose their worker: how long they wait, which nodes they avoid."""

from dataclasses import dataclass, field

import pytest
from ray.tune.experiment import Trial

from eagleray import ray_compat
from ray_jobs import retries


@dataclass
class World:
    """Nodes of two CPUs, a clock, and trials that take one CPU."""

    nodes: set[str] = field(default_factory=lambda: {"a", "b"})
    draining: set[str] = field(default_factory=set)
    workers: dict[str, str] = field(default_factory=dict)  # where each trial's worker is or was
    now: float = 0.0

    def build(self, *, grouped: bool = False) -> retries.Retries:
        return retries.Retries(
            None if grouped else {"CPU": 1.0},
            nodes=lambda: {name: {"CPU": 2.0} for name in self.nodes},
            draining=lambda: self.draining,
            node_of=lambda trial: self.workers.get(trial.trial_id, ""),
            clock=lambda: self.now,
        )

    def start(self, known: retries.Retries, trial: Trial, node: str) -> None:
        self.workers[trial.trial_id] = node
        known.start(trial)

    def lose(self, known: retries.Retries, trial: Trial, node: str, *, counts: bool = True) -> None:
        """Start a trial on a node, where it loses its worker, as Ray Tune goes about it."""
        self.start(known, trial, node)
        fail(known, trial, counts=counts)


def fail(known: retries.Retries, trial: Trial, *, counts: bool = True) -> None:
    trial.run_metadata.num_failures += counts
    known.lose(trial)
    trial.set_status(Trial.PAUSED)


def avoided(trial: Trial) -> str:
    selectors = trial.placement_group_factory._kwargs.get("bundle_label_selector", [{}])
    return str(selectors[0].get(ray_compat.NODE_LABEL, ""))


def wait_s(world: World, known: retries.Retries, trial: Trial) -> float:
    """How long a trial waits, in steps of a second."""
    began = world.now
    while known.due() is not trial:
        world.now += 1
    return world.now - began


@pytest.fixture
def trial() -> Trial:
    return Trial("PPO", stub=True, max_failures=3)


def test_a_trial_waits_longer_after_each_loss_until_it_comes_further(trial: Trial) -> None:
    world = World()
    known, waits = world.build(), []
    for _ in range(5):
        world.lose(known, trial, "a")
        waits.append(wait_s(world, known, trial))
    assert waits == [2, 8, 32, 60, 60]
    world.start(known, trial, "a")
    known.advance(trial)
    world.lose(known, trial, "a")
    assert wait_s(world, known, trial) == 2


def test_a_trial_starts_again_on_another_node_if_there_is_one(trial: Trial) -> None:
    world = World()
    known = world.build()
    world.lose(known, trial, "a")
    wait_s(world, known, trial)
    assert avoided(trial) == "!in(a)"
    world.nodes = {"a"}
    world.lose(known, trial, "a")
    wait_s(world, known, trial)
    assert avoided(trial) == ""


def test_all_trials_avoid_a_node_that_has_lost_three_workers_in_a_row(trial: Trial) -> None:
    world = World()
    known, fresh = world.build(), Trial("PPO", stub=True)
    for _ in range(2):
        world.lose(known, Trial("PPO", stub=True), "a")
    known.place(fresh)
    assert avoided(fresh) == ""
    world.lose(known, trial, "a")
    known.place(fresh)
    assert avoided(fresh) == "!in(a)"
    world.start(known, trial, "a")
    known.advance(trial)
    known.place(fresh)
    assert avoided(fresh) == ""


def test_a_node_is_known_where_workers_die_before_they_have_started(trial: Trial) -> None:
    world = World()
    known = world.build()
    world.workers[trial.trial_id] = "a"
    fail(known, trial)
    wait_s(world, known, trial)
    assert avoided(trial) == "!in(a)"
    unknown = Trial("PPO", stub=True)
    fail(known, unknown)
    wait_s(world, known, unknown)
    assert avoided(unknown) == ""


def test_a_preemption_is_no_failure_and_waits_for_nothing(trial: Trial) -> None:
    world = World(draining={"a"})
    known = world.build()
    for _ in range(9):
        world.lose(known, trial, "a")
        assert wait_s(world, known, trial) == 0
        assert trial.should_recover()
    world.draining = set()
    world.lose(known, trial, "b", counts=False)  # Ray has seen that it was preempted
    assert wait_s(world, known, trial) == 0
    world.lose(known, trial, "b")
    assert wait_s(world, known, trial) == 2


def test_a_group_waits_but_ray_train_places_its_workers(trial: Trial) -> None:
    world = World()
    known = world.build(grouped=True)
    world.lose(known, trial, "a")
    assert wait_s(world, known, trial) == 2
    assert trial.placement_group_factory is None
    world.draining = {"b"}
    world.lose(known, trial, "a")
    assert wait_s(world, known, trial) == 0


def test_a_trial_that_waits_for_a_node_that_is_gone_strands_the_run(trial: Trial) -> None:
    world = World()
    known = world.build()
    world.lose(known, trial, "a")
    wait_s(world, known, trial)
    world.now += 1
    assert not known.stranded
    world.nodes = {"a"}
    world.now += 1
    assert known.stranded
    world.nodes = {"a", "b"}
    assert known.stranded


def test_a_trial_that_waits_while_nothing_runs_strands_the_run(trial: Trial) -> None:
    """The node that it could take holds a worker that Ray Tune keeps for other trials."""
    world, other = World(), Trial("Trial", stub=True)
    known = world.build()
    world.start(known, other, "b")
    world.lose(known, trial, "a")
    wait_s(world, known, trial)
    world.now += 2 * retries.IDLE_S
    assert not known.stranded
    known.end(other)
    world.now += 1
    assert not known.stranded
    world.now += retries.IDLE_S
    assert known.stranded
