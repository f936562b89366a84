"""The private and undocumented parts of Ray 2.60, used here and in `ray_load` alone.

`tests/unit/test_ray_compat.py` names each part and fails when a release of Ray drops it. The
variables that a node of Serve is started with are in `serving/environment.py`, under the same test.
Ray is imported inside the functions.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import eagleray
from eagleray import errors, process
from eagleray.storage import server

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "TUNE_WARN_THRESHOLD_S": "60",
}
"""Ray Tune's own files are scratch (docs/adr/0001); `searcher` limits trials; we handle Ctrl-C."""
_ADVICE = "\nFailed to apply UDF transform after "
"""The beginning of what Ray Data appends to the message of an error."""
TRAIN = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}
"""A lost worker is noticed within a second; the working directory is that of any trial."""
DEVICES = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""A worker that asks for no GPU keeps the variables that name devices."""
ADDRESS = "RAY_API_SERVER_ADDRESS"
"""Ray's job client prefers this variable to the address that it is given."""
ACTOR = "actor_id"
"""What an error of a dead actor says of it."""
NODE_LABEL = "ray.io/node-id"
"""The label by which a placement group names a node."""
_EVERYWHERE = "[::]"
PROXY = "SERVE_PROXY_ACTOR"
"""Part of the name of each proxy of Ray Serve."""
DRAIN_POLL_S = 2.0
"""Time between two looks whether this node is drained."""
KEPT_TRIALS = 50
"""Ended trials that Ray Tune keeps: their actors may still be ending, or be reused."""
DRIVER = "eagleray"
"""Marks the jobs of our drivers, in their metadata."""
AUTH_MODE = "RAY_AUTH_MODE"
"""Ray sets this variable when it starts a local cluster, and leaves it set."""


@contextlib.contextmanager
def unchanged_authentication() -> Iterator[None]:
    """Restore the authentication mode after the block; its token is for the local cluster only.

    Ray caches both. With a token left over, this process as the next cluster's driver refuses its
    calls, and that cluster ends each actor that this process starts.
    """
    before = os.environ.get(AUTH_MODE)
    try:
        yield
    finally:
        from ray import _raylet

        raylet: Any = _raylet  # untyped
        if before is None and AUTH_MODE in os.environ:
            del os.environ[AUTH_MODE]
            raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def errors_on_stderr() -> Iterator[None]:
    """In the block, print what Ray says of lost workers to stderr: results go to stdout."""
    from ray._private import worker as ray_worker

    worker: Any = ray_worker

    def to_stderr(data: Mapping[str, Any], **_: Any) -> None:
        print(*data["lines"], sep="\n", file=sys.stderr)

    before, worker.print_to_stdstream = worker.print_to_stdstream, to_stderr
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Print nothing in the block, in which Ray prints the exit of its own processes as failures."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


@contextlib.contextmanager
def connected(
    address: str | None, settings: Mapping[str, str] | None = None, **own: Any
) -> Iterator[None]:
    """Connect this process to a Ray cluster, and disconnect it at the end.

    Args:
        address: of the cluster; None starts one node on the loopback and ends it with the block.
        settings: variables that Ray's processes inherit.
        own: further arguments of `ray.init` for a local cluster.

    Raises:
        UserError: no cluster answers at `address`, or this process is connected to one already.
        ClusterError: Ray does not start.
    """
    import ray
    from ray import job_config

    if ray.is_initialized():
        raise errors.UserError(
            "Ray: must not be connected yet, but this process is; stop what uses it, such as "
            "another endpoint, or call ray.shutdown()"
        )
    alone = {"_node_ip_address": "127.0.0.1", "include_dashboard": False, **own}
    home = {"EAGLERAY_HOME": str(server.find())}
    given = process.variables(home | dict(settings or {}))
    with given, unchanged_authentication(), errors_on_stderr():
        try:
            ray.init(
                address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                job_config=job_config.JobConfig(metadata={DRIVER: eagleray.__version__}),
                **({} if address else alone),
            )
        except ConnectionError as cause:
            raise errors.UserError(
                f"--address must be a Ray cluster, but {address}: {cause}"
            ) from cause
        except Exception as cause:  # a node that does not start in time raises Exception itself
            ray.shutdown()
            where = f"at {address}" if address else "on this machine"
            raise errors.ClusterError(f"Ray {where}: must be ready, but {cause}") from cause
        try:
            yield
        finally:
            with quiet():
                ray.shutdown()


def free_reservations() -> list[str]:
    """Remove placement groups of our drivers whose makers died, which Ray keeps; return their ids.

    Ray 2.60 removes a group when its job ends after the actor that made it, but neither one that an
    actor makes a moment after its job, nor any before the job ends: Ray Train's controllers die
    with groups that wait for room.
    """
    from ray import _raylet
    from ray._private import state
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    messages: Any = gcs_pb2  # generated, and untyped
    accessor = state.state._connect_and_get_accessor()
    table = accessor.get_job_table(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True
    )
    jobs = [messages.JobTableData.FromString(one) for one in table]
    dead = {one.job_id: one.is_dead for one in jobs if DRIVER in one.config.metadata}
    driver = _raylet.ActorID.nil().binary()  # what a driver makes is of no actor
    groups = map(messages.PlacementGroupTableData.FromString, accessor.get_placement_group_table())
    left = [
        one.placement_group_id
        for one in groups
        if one.creator_job_id in dead and one.state != one.REMOVED and not one.is_detached
        if dead[one.creator_job_id] or (one.creator_actor_dead and one.creator_actor_id != driver)
    ]
    for name in left:
        remove_placement_group(PlacementGroup(_raylet.PlacementGroupID(name)))
    return [name.hex() for name in left]


def dashboard_headers() -> dict[str, str]:
    """Headers that authenticate this process at a dashboard; none if it needs no token."""
    from ray._private.authentication import http_token_authentication

    return http_token_authentication.get_auth_headers_if_auth_enabled({})


def started_here() -> bool:
    """Whether this process has started the Ray that it is connected to: no node is added there."""
    from ray._private import worker

    node = worker._global_node
    return node is not None and bool(node.is_head())


def allow_failures(trial: Trial, more: int) -> None:
    """Let Ray Tune restart a trial `more` times; its own limit is for the trial's whole life."""
    trial.max_failures = trial.num_failures + more


def actor(trial: Trial) -> Any:
    """The handle of a trial's actor; calls are run between its steps."""
    return trial.temporary_state.ray_actor


def node_of(trial: Trial) -> str:
    """The node of a trial's actor; of one that died before it had started, too. Empty: unknown."""
    from ray._private import state

    running = actor(trial)
    name = running._actor_id.hex() if running else getattr(trial.get_pickled_error(), ACTOR, None)
    entry = state.state.actor_table(name) if name else None
    return str(entry["Address"]["NodeID"]) if entry else ""


def draining() -> set[str]:
    """The nodes that Ray is taking away: preempted, or idle."""
    from ray._private import state

    return set(state.state.get_draining_nodes())


def hold(controller: Any, trial: Trial) -> None:
    """Let a trial that is to start again wait until a scheduler chooses it."""
    controller._set_trial_status(trial, trial.PAUSED)


def forget_ended_trials(controller: Any) -> None:
    """Drop all but the latest ended trials, which Ray Tune keeps until its run ends."""
    tuner = controller._tune_controller
    ended = [one for one in tuner._trials if one.is_finished()]
    if len(ended) < 2 * KEPT_TRIALS:
        return
    gone = set(ended[:-KEPT_TRIALS])
    tuner._trials[:] = [one for one in tuner._trials if one not in gone]
    for named in (tuner._stopped_trials, tuner._failed_trials, tuner._trials_to_cache):
        named.difference_update(gone)


class Candidate:
    """What Ray Tune's schedulers read and change of a trial that has no actor of its own."""

    status = "RUNNING"

    def __init__(self, trial_id: str, config: dict[str, Any]) -> None:
        self.trial_id = self.experiment_tag = trial_id
        self.config, self.finished = config, False
        self.evaluated_params: dict[str, Any] = {}
        limits = SimpleNamespace(num_to_keep=None)
        manager = SimpleNamespace(checkpoint_config=limits, _latest_checkpoint_result=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)

    def is_finished(self) -> bool:
        return self.finished

    def set_experiment_tag(self, tag: str) -> None:
        self.experiment_tag = tag

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config

    def take_checkpoint(self) -> Any:
        """The checkpoint that a scheduler has told this trial to go on from; None without one."""
        manager = self.run_metadata.checkpoint_manager
        told, manager._latest_checkpoint_result = manager._latest_checkpoint_result, None
        return told.checkpoint if told else None


class Controller:
    """What Ray Tune's schedulers ask of its controller; a checkpoint is a result's `state`."""

    search_alg = None

    def get_trials(self) -> list[Candidate]:
        """Trials that may wait for room: none, since those of a population train together."""
        return []

    def pause_trial(self, trial: Candidate, should_checkpoint: bool) -> None:
        """Let the trial go on: it changes its state between two steps."""

    def _schedule_trial_save(self, _: Candidate, *, result: dict[str, Any]) -> Any:
        return result["state"]


def is_out_of_disk(failure: BaseException) -> bool:
    """Whether Ray has no room on this machine for what it moves to disk."""
    from ray import exceptions

    return isinstance(failure, exceptions.OutOfDiskError)


def task_error(failure: BaseException | None) -> errors.EagleRayError | None:
    """The EagleRay error that a task of Ray Data raised, with its own message; None for others.

    Ray raises an error of the same class, whose message is the task's traceback and Ray's advice.
    """
    from ray import exceptions

    while failure is not None:
        is_ray_error = isinstance(failure, exceptions.RayError)
        if isinstance(failure, errors.EagleRayError) and not is_ray_error:
            failure.args = (str(failure).partition(_ADVICE)[0], *failure.args[1:])
            return failure
        failure = getattr(failure, "cause", None) or failure.__cause__
    return None


def lost_workers(failure: BaseException) -> bool:
    """Whether a run of Ray Train failed because a worker died, and not by an error of its own."""
    from ray.train import WorkerGroupError
    from ray.train.v2._internal import exceptions

    lost = (exceptions.WorkerHealthCheckFailedError, exceptions.WorkerHealthCheckTimeoutError)
    group = failure.worker_failures if isinstance(failure, WorkerGroupError) else {}
    return not group or any(isinstance(one, lost) for one in group.values())


class Notice:
    """Tells a worker that it is to end soon, by SIGTERM or because one of `nodes` is drained.

    Ray drains a node when its `ray start --block` gets SIGTERM, such as from Kubernetes, and when
    its autoscaler removes it. Outside of a `task` SIGTERM ends the worker at once, as Ray does it.
    """

    def __init__(self, nodes: Iterable[str | None]) -> None:
        self._nodes = {node for node in nodes if node is not None}
        self._given, self._busy = threading.Event(), False
        self._default: Any = signal.SIG_DFL
        _in_main_thread(self._listen)
        threading.Thread(target=self._watch, name="drain", daemon=True).start()

    @contextlib.contextmanager
    def task(self) -> Iterator[None]:
        """Mark work that looks at `given` by itself."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    @property
    def given(self) -> bool:
        return self._given.is_set()

    def _listen(self) -> None:
        self._default = signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, _: Any) -> None:
        self._given.set()
        if not self._busy:
            signal.signal(number, self._default)
            os.kill(os.getpid(), number)

    def _watch(self) -> None:
        while self._nodes and not self._given.wait(DRAIN_POLL_S):
            with contextlib.suppress(Exception):  # the head may be away; SIGTERM comes without it
                if not self._nodes.isdisjoint(draining()):
                    self._given.set()


_CALLS: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
"""Functions that wait to be called in the main thread."""


def _in_main_thread(function: Callable[[], None]) -> None:
    """Call a function in the main thread, also from the loop of a worker of Ray Train.

    That is another thread; the main one takes the calls of its actor.
    """
    import ray

    if threading.current_thread() is threading.main_thread():
        function()
    elif ray.is_initialized() and ray.get_runtime_context().get_actor_id():
        _CALLS.put(function)
        ray.get(ray.get_runtime_context().current_actor.execute.remote(_call))


def _call() -> None:
    _CALLS.get_nowait()()


def is_serve_proxy() -> bool:
    """Whether this process is a proxy of Ray Serve, which passes requests to replicas."""
    import ray

    name = ray.get_runtime_context().get_actor_name() if ray.is_initialized() else None
    return bool(name and PROXY in name)


def listen_for_grpc_at(host: str) -> None:
    """Let gRPC servers for clients that Ray Serve starts in this process listen at a host alone.

    Ray Serve starts them at all addresses of the machine, whatever its HTTP servers listen at.
    """
    from ray.serve._private import default_impl

    servers: Any = default_impl
    listen = servers.add_grpc_address

    def narrowed(server: Any, address: str) -> None:
        listen(server, address.replace(_EVERYWHERE, host))

    servers.add_grpc_address = narrowed


def answer_directly(server: Any, service: str) -> None:
    """Let a gRPC server of Ray Serve call a service's own handlers; before they are added."""
    server.add_passthrough_service(service)


def own_way(server: Any, path: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """How a gRPC server of Ray Serve itself answers a call: by a replica, once there is one."""
    from ray.serve._private.proxy_request_response import gRPCStreamingType

    unary = gRPCStreamingType.UNARY_UNARY
    answer: Callable[[bytes, Any], Awaitable[bytes]] = server.service_handler_factory(
        service_method=path, streaming_type=unary
    )
    return answer
