"""When and where a trial starts again that has lost its worker.

It waits, longer after each loss without progress, and is kept off the node where it was lost. A
node that has lost several workers in a row gets no trial at all. Neither holds where no other node
fits. A loss by preemption is no failure: the trial starts again at once.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping

from ray import tune
from ray.tune.experiment import Trial

from eagleray import ray_compat
from ray_jobs import cluster

FIRST_S, FACTOR, LONGEST_S = 2.0, 4.0, 60.0
"""Waits after the first, second, … loss without progress: 2, 8, 32, 60, 60, … seconds."""
SUSPECT = 3
"""A node is avoided after this many losses in a row, of whatever trials."""
IDLE_S = 20.0
"""Time without any trial that runs after which one that waits for a node waits in vain."""


class Retries:
    """Decides when and where a trial that has lost its worker starts again.

    It is told of each start, progress, end and lost worker.

    `wanted` is what a trial takes of a node; None for a trial with a group, whose workers Ray Train
    places. `nodes` gives the resources of the living nodes by id, `draining` the ids of those that
    are being taken away, `node_of` that of a trial's worker.
    """

    def __init__(
        self,
        wanted: cluster.Resources | None,
        *,
        nodes: Callable[[], Mapping[str, cluster.Resources]] = cluster.nodes,
        draining: Callable[[], set[str]] = ray_compat.draining,
        node_of: Callable[[Trial], str] = ray_compat.node_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted, self._nodes, self._draining = wanted, nodes, draining
        self._node_of = node_of
        self._clock, self._looked, self._stranded = clock, clock(), False
        self._on: dict[str, str] = {}  # where each trial's worker is, by Ray's id of the trial
        self._in_a_row: Counter[str] = Counter()  # losses of a trial without progress
        self._of_node: Counter[str] = Counter()  # losses of a node without progress of any trial
        self._failures: dict[str, int] = {}  # those that Ray Tune counts
        self._held: dict[str, tuple[float, Trial]] = {}  # when each trial is due
        self._avoiding: dict[str, frozenset[str]] = {}  # of trials that wait for a node
        self._lost_on: dict[str, str] = {}
        self._ran = clock()  # when a trial last ran, or began to wait for a node

    def start(self, trial: Trial) -> None:
        self._on[trial.trial_id] = self._node_of(trial)
        self._avoiding.pop(trial.trial_id, None)

    def end(self, trial: Trial) -> None:
        self._on.pop(trial.trial_id, None)
        self._ran = self._clock()

    def advance(self, trial: Trial) -> None:
        """Forget losses: the trial has come further, and its node works."""
        self._in_a_row.pop(trial.trial_id, None)
        self._of_node.pop(self._on.get(trial.trial_id, ""), None)

    def lose(self, trial: Trial) -> None:
        """Hold a trial back that has lost its worker."""
        name, wait_s = trial.trial_id, 0.0
        node = self._on.pop(name, "") or self._node_of(trial)
        if not self._is_preempted(trial, node):
            wait_s = min(FIRST_S * FACTOR ** self._in_a_row[name], LONGEST_S)
            self._in_a_row[name] += 1
            self._of_node[node] += bool(node)
        self._lost_on[name] = node
        self._held[name] = self._clock() + wait_s, trial

    def holds(self, trial: Trial) -> bool:
        return trial.trial_id in self._held

    def due(self) -> Trial | None:
        """A trial that has waited long enough, and now waits for a node."""
        for name, (at, trial) in self._held.items():
            if trial.status == Trial.PAUSED and at <= self._clock():
                del self._held[name]
                self.place(trial)
                return trial
        return None

    def place(self, trial: Trial) -> None:
        """Keep a trial that is not scheduled yet off the nodes that it should avoid."""
        if self._wanted is None:
            return
        self._avoiding.pop(trial.trial_id, None)
        suspects = {node for node, losses in self._of_node.items() if losses >= SUSPECT}
        own = {self._lost_on.pop(trial.trial_id, "")} - {""}
        for avoided in (frozenset(suspects | own), frozenset(suspects), frozenset(own)):
            if avoided and self._fits(avoided):
                self._avoiding[trial.trial_id], self._ran = avoided, self._clock()
                break
        trial.placement_group_factory = _request(  # type: ignore[assignment] # untyped in Ray
            self._wanted, self._avoiding.get(trial.trial_id, frozenset())
        )

    @property
    def stranded(self) -> bool:
        """Whether a trial waits in vain; looks every `cluster.READ_S`, then stays.

        The nodes that it does not avoid are gone, or their room is held by workers without a trial,
        which Ray Tune keeps for others. What is avoided was part of a placement, which cannot be
        changed: the search starts again.
        """
        now = self._clock()
        if self._avoiding and now - self._looked >= cluster.READ_S:
            self._looked = now
            gone = not all(map(self._fits, set(self._avoiding.values())))
            self._stranded |= gone or (not self._on and now - self._ran >= IDLE_S)
        return self._stranded

    def _fits(self, avoided: frozenset[str]) -> bool:
        assert self._wanted is not None
        others = [one for node, one in self._nodes().items() if node not in avoided]
        return cluster.room(others, self._wanted) > 0

    def _is_preempted(self, trial: Trial, node: str) -> bool:
        """Whether its node is being taken away; such a loss does not count."""
        counted = trial.num_failures > self._failures.get(trial.trial_id, 0)
        self._failures[trial.trial_id] = trial.num_failures
        if not counted:
            return True  # Ray has seen it by itself
        drained = self._draining()
        if node in drained or (self._wanted is None and drained):
            trial.max_failures += 1
            return True
        return False


def _request(wanted: cluster.Resources, avoided: frozenset[str]) -> tune.PlacementGroupFactory:
    if not avoided:
        return tune.PlacementGroupFactory([dict(wanted)])
    selector = {ray_compat.NODE_LABEL: f"!in({','.join(sorted(avoided))})"}
    return tune.PlacementGroupFactory([dict(wanted)], bundle_label_selector=[selector])
