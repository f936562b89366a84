"""The workers of a distributed trial: one run of Ray Train that trains one trial after another.

The trial's actor asks for steps; the leading worker takes each and gives its reports back, over a
`Mailbox`. Like a single worker, a group stays for the next trial. A group that loses a worker ends;
Ray Tune starts the trial again, which goes on from its last checkpoint (docs/adr/0025).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import tempfile
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import ray
from ray import train
from ray.train import torch as ray_torch
from torch import distributed

from eagleray import errors, process, ray_compat
from ray_jobs import cluster, session, strategies

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

IDLE_S = 30.0
"""A group without a trial gives its workers back after this time."""
LEAVE_S = 5.0
"""Longest wait for a group that is to end."""


class Group:
    """Has the interface of `session.Session`, and a session in each of its workers."""

    def __init__(self, job: session.Job) -> None:
        self._job, self._node = job, ray.get_runtime_context().get_node_id()
        self._run: futures.Future[None] | None = None
        self._mailbox: Any = None
        self.begin({})

    def begin(self, config: dict[str, Any]) -> None:
        self._config = config
        self._asked: Any = None  # the step that is under way

    def step(self) -> dict[str, Any]:
        """The workers' reports; none if the step takes longer than `session.REPORT_S`.

        `waits` says beside none that no worker has started yet.

        Raises:
            ClusterError: a worker was lost.
        """
        if self._run is None:
            self._start()
        assert self._run is not None
        self._asked = self._asked or self._mailbox.step.remote(self._config)
        if ray.wait([self._asked], timeout=session.REPORT_S)[0]:
            asked, self._asked = self._asked, None
            return dict(ray.get(asked))
        if self._run.done():
            return self._ended(self._run)
        return {"members": [], "done": False, "waits": not ray.get(self._mailbox.begun.remote())}

    def drop(self, numbers: Sequence[int]) -> None:
        """Nothing to do: a trial with workers has one member, and Ray Tune stops that itself."""

    def clone(self, *_: object) -> None:
        raise AssertionError("a population has one worker a trial")  # a law of the file

    def close(self) -> None:
        if self._run is not None:
            self._mailbox.end.remote()
            futures.wait([self._run], LEAVE_S)  # what has not started ends with this process

    def _start(self) -> None:
        here = {ray_compat.NODE_LABEL: self._node}  # the run's controller is on this node too
        self._mailbox = ray.remote(num_cpus=0, label_selector=here)(Mailbox).remote()
        self._run = futures.Future()
        threading.Thread(target=self._fit, args=(self._run, self._mailbox), daemon=True).start()

    def _fit(self, run: futures.Future[None], mailbox: Any) -> None:
        try:
            with tempfile.TemporaryDirectory() as folder, process.variables(ray_compat.TRAIN):
                given = {"job": self._job, "mailbox": mailbox, "node": self._node}
                _trainer(given, folder).fit()
            run.set_result(None)
        except BaseException as failure:  # noqa: BLE001 - raised by `step`
            run.set_exception(failure)

    def _ended(self, run: futures.Future[None]) -> dict[str, Any]:
        """The failure of the configuration; ClusterError if the workers are what failed."""
        self._run, self._asked = None, None
        if (failure := run.exception()) is None:  # it was idle; the next step starts another
            return {"members": [], "done": False}
        report = ray.get(self._mailbox.failure.remote())
        if report is None or ray_compat.lost_workers(failure):
            raise errors.ClusterError(f"workers must stay, but {failure}") from failure
        return {"members": [report], "done": True}


class Mailbox:
    """Carries steps from a trial to its group, and results back; an actor.

    A step that its group could not end, as the group was resized, is given to the next one.
    """

    def __init__(self) -> None:
        self._turn, self._begun, self._closed = 0, False, False
        self._config: dict[str, Any] | None = None
        self._result: dict[str, Any] | None = None
        self._failure: dict[str, Any] | None = None
        self._news = asyncio.Condition()

    async def step(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """Called by the trial; None if it has turned to another step meanwhile."""
        async with self._news:
            self._turn, self._config, self._result = self._turn + 1, config, None
            turn = self._turn
            self._news.notify_all()
            await self._news.wait_for(lambda: self._turn != turn or self._result is not None)
            return self._result if self._turn == turn else None

    async def next(
        self, turn: int, result: dict[str, Any] | None
    ) -> tuple[int, dict[str, Any]] | None:
        """Called by the leading worker with the step it has done; None: the group is to end."""
        self._begun = True
        if not turn:  # of a new group: that before it has ended, whatever its workers failed by
            self._failure = None
        async with self._news:
            if turn == self._turn:
                self._result, self._config = result, None
                self._news.notify_all()
            with contextlib.suppress(TimeoutError):
                ready = self._news.wait_for(lambda: self._closed or self._config is not None)
                await asyncio.wait_for(ready, IDLE_S)
            return None if self._closed or self._config is None else (self._turn, self._config)

    async def begun(self) -> bool:
        """Whether a leading worker has called."""
        return self._begun

    async def end(self) -> None:
        """End the group after its step."""
        async with self._news:
            self._closed = True
            self._news.notify_all()

    async def fail(self, report: dict[str, Any]) -> None:
        """Called by a worker whose failure ends the group; the first one counts."""
        self._failure = self._failure or report

    async def failure(self) -> dict[str, Any] | None:
        return self._failure


def work(given: dict[str, Any]) -> None:
    """What each worker runs: steps, until none is asked for."""
    job, mailbox = given["job"], given["mailbox"]
    strategy = _strategy(job)
    own = session.Session(job, strategy, given["node"])
    turn, result = 0, None
    while True:
        asked = strategy.agree(functools.partial(_next, mailbox, turn, result))
        if asked is None:
            break
        turn, config = asked
        if config != own.config:
            own.begin(config)
        try:
            result = own.step()
        except Exception as failure:
            log.exception("worker %s ends its group", strategy.rank)
            for report in own.report()["members"]:
                # without a failure a worker is to end, and the group starts anew
                if "failure" in report and not _is_of_a_peer(failure):
                    place = f"worker {strategy.rank} on {ray.util.get_node_ip_address()}"
                    report["failure"] = f"{place}: {report['failure']}"
                    ray.get(mailbox.fail.remote(report))
            raise errors.TrainingError(str(failure)) from None  # what Ray can carry
    own.close()


def _next(mailbox: Any, *done: Any) -> tuple[int, dict[str, Any]] | None:
    asked: tuple[int, dict[str, Any]] | None = ray.get(mailbox.next.remote(*done))
    return asked


def _is_of_a_peer(failure: BaseException | None) -> bool:
    """Whether workers could not exchange what they have: one has died, or failed by itself."""
    if failure is None:
        return False
    broken = isinstance(failure, distributed.DistError) or "gloo/transport" in str(failure)
    return broken or _is_of_a_peer(failure.__cause__)


def _trainer(given: dict[str, Any], folder: str) -> ray_torch.TorchTrainer:
    compute = given["job"].experiment.compute
    least, most = compute.workers.min, compute.workers.max
    workers: Any = most if least == most else (least, most)
    own_logs: Any = {"logging_config": train.LoggingConfig(log_level="ERROR")}  # untyped in Ray
    # workers with a part of a GPU may share one, which NCCL refuses
    backend = "cpu:gloo,cuda:nccl" if compute.gpus >= 1 else "gloo"
    return ray_torch.TorchTrainer(
        work,
        train_loop_config=given,
        torch_config=ray_torch.TorchConfig(backend=backend),
        scaling_config=train.ScalingConfig(
            num_workers=workers,
            use_gpu=compute.gpus > 0,
            resources_per_worker=cluster.wanted(compute),
        ),
        run_config=train.RunConfig(
            storage_path=folder,  # Ray's own files, scratch
            failure_config=train.FailureConfig(max_failures=0),
            **own_logs,
        ),
    )


def _strategy(job: session.Job) -> strategies.Ddp:
    compute = job.experiment.compute
    device = str(ray_torch.get_device()) if compute.gpus else "cpu"
    kind = strategies.Fsdp if compute.strategy == "fsdp" else strategies.Ddp
    return kind(device, compute.precision, most=compute.workers.max)
