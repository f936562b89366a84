"""The members of trials in training, in one process: a trial's own, or a worker of its group.

A trial of several members trains them in packs (`ray_jobs.pack`). The workers of a group run the
same steps; what depends on time, storage or the trial is decided by the leading one
(`strategies.OneProcess.agree`).
"""

from __future__ import annotations

import functools
import heapq
import logging
import math
import time
from concurrent import futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
import torch

from eagleray import code, errors, ray_compat, spec, storage
from eagleray.spec import auto
from eagleray.state import searches
from eagleray.storage import cache
from ray_jobs import checkpoints, folded, learner, pack, strategies, training
from ray_jobs.data import encoded
from ray_jobs.member import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ray_jobs.data import prepare

log = logging.getLogger(__name__)

GRACE_S = 25.0
"""How long a worker that is told to end waits for checkpoints; Ray and Kubernetes give it 30 s."""
REPORT_S = 1.0
"""A trial reports at each rung, at its end, and this long after its last report."""


@dataclass(frozen=True)
class Job:
    """What all trials of a search share."""

    experiment: spec.Experiment
    search_id: str
    metric: str  # selects epochs and trials; a name of `eagleray.learn.metrics`
    rungs: frozenset[int]  # epochs, or folds, at which the scheduler compares trials
    population: bool  # members go on from each other's states
    custom: dict[str, code.Code]  # the user's code by its name in the file
    shared: dict[str, ray.ObjectRef[encoded.Encoded]]  # by `encoded.key`
    dataset: ray.ObjectRef[prepare.Dataset]  # a trial with features not in `shared` encodes it
    # epochs of refits, by number; of any other trial the best epoch counts
    refits: dict[int, int] = field(default_factory=dict)


class Session:
    """Trains one trial after another; the encoded data stays.

    `node` is that of the trial whose group this is a worker of: the group ends with it.
    """

    def __init__(self, job: Job, strategy: strategies.OneProcess, node: str | None = None) -> None:
        self._job, self._strategy = job, strategy
        torch.set_num_threads(max(1, int(job.experiment.compute.cpus)))
        store, self._uploads = storage.open(job.experiment.storage), futures.ThreadPoolExecutor(1)
        self._place = checkpoints.Place(
            store,
            searches.Records(store, job.experiment.name, job.search_id),
            self._uploads,
            cache.default(),
            files=frozenset(one.filename for one in job.custom.values()),
            cost=job.experiment.tune.cost,
            population=job.population,
        )
        self._notice = ray_compat.Notice([node, *strategy.each(_own_node())])
        self._cache: dict[str, encoded.Encoded] = {}
        self._members: list[Member] = []
        # by model and number; a trial below enough others of its model cannot win
        self._scores: dict[str, dict[int, float]] = {}
        self.begin({})

    def begin(self, config: dict[str, Any]) -> None:
        """Turn to another trial; `config` is what `searcher.Searcher` suggests."""
        for one in self._members:
            one.close()
        self.config, self._members = config, list[Member]()
        self._packs = not (self._job.population and self._job.custom)  # see `pack_size`
        self._in_turn = bool(config.get("in_turn"))  # one member after another

    def step(self) -> dict[str, Any]:
        """Train until the next rung, the end, or the next report, whichever comes first.

        A process that is told to end saves its members at once, and leaves.
        """
        with self._notice.task():
            self._members = self._members or self._start()
            for one in self._members:
                if one.again:
                    with one.failing():
                        one.start(self._builder(one.number))
            self._advance()
        return self.report()

    def report(self) -> dict[str, Any]:
        """The members' reports since the last ones, and whether all members have ended."""
        reports = [one.report(self._job.metric) for one in self._members]
        done = all(one.ended for one in self._members)
        return {"members": [report for report in reports if report], "done": done}

    def drop(self, numbers: Sequence[int]) -> None:
        """End members that the scheduler has stopped."""
        for one in self._members:
            if one.number in numbers:
                one.close()

    def clone(self, number: int, values: dict[str, Any], checkpoint: searches.Checkpoint) -> None:
        """Let a member go on from another's checkpoint, under values of its own."""
        (one,) = (one for one in self._members if one.number == number)
        with one.failing():
            one.clone(self._builder(number), values, checkpoint)

    def close(self) -> None:
        for one in self._members:
            one.close()
        self._uploads.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> list[Member]:
        """The members; those that ended before the worker of a pack was lost do not start again."""
        members = [
            Member(one["number"], one["values"], self._place, self._strategy)
            for one in self.config["members"]
        ]
        self._members = members
        self._begin_pace()
        ended = functools.cache(lambda: self._ended(members))
        for one in members:
            with one.failing():
                one.ended = len(members) > 1 and one.number in ended()
                if not one.ended:
                    one.start(self._builder(one.number))
        return members

    def _ended(self, members: Sequence[Member]) -> set[int]:
        """The numbers of those that are on record as ended."""
        records = self._place.records.trials_by_number([one.number for one in members])
        return {number for number, record in records.items() if not record.unfinished}

    def _builder(self, number: int) -> Callable[[dict[str, Any]], learner.Learner]:
        return functools.partial(self._trainer, number)

    def _trainer(self, number: int, values: dict[str, Any]) -> learner.Learner:
        experiment = self._job.experiment
        configuration = experiment.configuration(values)
        if experiment.tune.folds > 1:
            build = functools.partial(self._learner, configuration)
            return folded.Folded(build, experiment.tune.folds)
        made = self._learner(configuration)
        made.progress.until = self._job.refits.get(number)
        return made

    def _learner(
        self, configuration: spec.Configuration, fold: int | None = None
    ) -> learner.Learner:
        return learner.build(
            configuration,
            self._data(configuration, fold),
            metric=self._job.metric,
            strategy=self._strategy,
            custom=self._job.custom,
        )

    def _data(self, configuration: spec.Configuration, fold: int | None) -> encoded.Encoded:
        key, shared = encoded.key(configuration.features, fold), self._job.shared
        if key not in self._cache:
            self._cache.clear()  # one setting at a time, to save memory
            if key in shared:
                self._cache[key] = ray.get(shared[key])
            else:
                dataset = ray.get(self._job.dataset)
                dataset = dataset if fold is None else dataset.fold(fold)
                self._cache[key] = dataset.encode(dataset.fit(configuration.features))
        return self._cache[key]

    def _advance(self) -> None:
        until = time.monotonic() + REPORT_S
        while active := [one for one in self._members if one.active]:
            first = active[:1] if self._in_turn else active
            epoch = min(one.epoch for one in first)
            together = [one for one in first if one.epoch == epoch]
            self._train(together, until)
            for one in together:
                one.saved.gather()
            self._save_when_due()
            self._leave_on_notice()
            whole = any(one.epoch > epoch for one in together)
            at_rung = whole and epoch + 1 in self._job.rungs
            ends = not all(one.active for one in together)
            if at_rung or ends:
                self._save_for_comparison()
            if ends and self._in_turn:
                self._begin_pace()  # the next one's
            over = at_rung or (ends and not self._in_turn)
            if over or self._strategy.agree(lambda: time.monotonic() >= until):
                break

    def _train(self, members: list[Member], until: float) -> None:
        """Train members that are in the same epoch, in one pass if they are several.

        One alone stops between two batches for its checkpoint or its report.
        """
        packs = members[1:] and self._packs and not any(o.trainer.partial.batches for o in members)
        passes = self._pack(members) if packs else None
        due = min(until, self._due)

        def stop() -> bool:
            return self._notice.given or time.monotonic() >= due

        for place, one in enumerate(members):
            with one.failing():
                passes[place]() if passes else one.trainer.epoch(stop)

    @property
    def _due(self) -> float:
        """When the next checkpoints are to be saved; what is under way comes before."""
        busy = any(one.active and one.saved.pending for one in self._members)
        return math.inf if busy else self._place.pace.due

    def _save_when_due(self) -> None:
        if self._strategy.agree(lambda: time.monotonic() >= self._due):
            self._begin_pace()
            self._save()

    def _begin_pace(self) -> None:
        self._place.pace.begin(1 if self._in_turn else len(self._members))

    def _save(self) -> None:
        for one in self._members:
            with one.failing():
                one.save_state()

    def _save_for_comparison(self) -> None:
        """Save weights, of which a stopped trial's may be the best; and what others clone.

        A trial by folds saves its state too, and its outputs whatever its score: more folds count
        more than a score.
        """
        folds = self._job.experiment.tune.folds > 1
        trained = [one for one in self._members if one.epoch and not one.ended]
        for one in trained:
            self._scores.setdefault(auto.family(one.values), {})[one.number] = one.trainer.score
        for one in trained:
            alike = self._scores[auto.family(one.values)]
            least = heapq.nlargest(checkpoints.BEST, alike.values())[-1]
            with one.failing():
                worthy = folds or self._place.cost is not None
                one.save(worth=worthy or alike[one.number] >= least)
        if folds or self._job.population:
            self._save()
        if self._job.population:
            for one in self._members:
                if one.active:
                    one.saved.flush(checkpoints.PATIENCE_S)

    def _leave_on_notice(self) -> None:
        """Save all members at once, and end this process or its group."""
        active = [one for one in self._members if one.active]
        if not active or not any(self._strategy.each(self._notice.given)):
            return
        until = time.monotonic() + GRACE_S
        self._save()
        whole = [one.saved.flush(max(0.0, until - time.monotonic())) for one in active]
        log.warning("told to end: %s of %s trials are saved", sum(whole), len(active))
        self._strategy.agree(lambda: None)  # the leading worker has saved them
        if self._strategy.size > 1:
            raise errors.ClusterError("a worker was told to end")
        ray.actor.exit_actor()

    def _pack(self, members: list[Member]) -> list[Callable[[], object]] | None:
        """Train in one pass; return what records it of each. None if that fails, or cannot be."""
        found = (one.trainer for one in members)
        trainers = [one for one in found if isinstance(one, training.Trainer) and one.packs]
        try:
            if len(trainers) == len(members):
                passes = zip(trainers, pack.epoch(trainers), strict=True)
                return [functools.partial(one.record, done) for one, done in passes]
        except Exception:
            log.exception("these trials cannot be trained in one pass: each trains alone")
        self._packs = False
        return None


def _own_node() -> str | None:
    """The id of the node of this process; None without Ray."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
