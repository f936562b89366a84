"""The private and undocumented parts of Ray that we use are there; each test names its part."""

import asyncio
import inspect
import json
import os
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from eagleray import errors, ray_compat, ray_load
from serving import environment, fast_path
from serving.autoscaling import ray_serve

ROOT = Path(str(util.find_spec("ray").origin)).parent  # type: ignore[union-attr]
READERS = (
    "_private/accelerators/accelerator.py",
    "_private/ray_constants.py",
    "_common/usage/usage_constants.py",
    "air/constants.py",
    "dashboard/utils.py",
    "serve/_private/constants.py",
    "train/constants.py",
    "train/v2/_internal/constants.py",
    "tune/constants.py",
)
"""Modules of Ray that name the variables it reads."""
VARIABLES = (
    *ray_compat.TRAIN,
    *ray_compat.TUNE,
    *ray_compat.DEVICES,
    ray_compat.ADDRESS,
    *environment.FAST,
    *environment.GRPC,
    *environment.private_paths(Path("/run")),
    environment.BINARY,
    environment.BUFFER,
)


@pytest.mark.parametrize("name", VARIABLES)
def test_ray_still_reads_the_variable(name: str) -> None:
    assert any(f'"{name}"' in (ROOT / reader).read_text() for reader in READERS)


def test_a_clusters_address_on_this_machine_is_an_argument_of_init() -> None:
    assert '"_node_ip_address"' in (ROOT / "_private/worker.py").read_text()


def test_headers_for_a_dashboard_come_from_rays_own_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert ray_compat.dashboard_headers() == {}


def test_a_cluster_of_ones_own_leaves_no_mode_of_authentication_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private.authentication import authentication_token_setup as setup

    monkeypatch.delenv(ray_compat.AUTH_MODE, raising=False)
    with ray_compat.unchanged_authentication():
        assert setup.enable_token_auth_by_default()  # as `ray.init` does
        assert os.environ[ray_compat.AUTH_MODE] == "token"
    assert ray_compat.AUTH_MODE not in os.environ


def test_the_token_of_one_cluster_is_not_kept_for_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ray import _raylet

    loader = _raylet.AuthenticationTokenLoader.instance()
    monkeypatch.setenv("HOME", str(tmp_path))
    with ray_compat.unchanged_authentication():
        with monkeypatch.context() as own:
            own.setenv("RAY_AUTH_TOKEN", "0" * 32)
            assert loader.has_token(ignore_auth_mode=True)
        assert loader.has_token(ignore_auth_mode=True)  # the cached one
    assert not loader.has_token(ignore_auth_mode=True)
    assert ray_compat.dashboard_headers() == {}


def test_what_ray_says_of_lost_workers_is_kept_out_of_the_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ray._private import worker

    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages)
    with ray_compat.errors_on_stderr():
        worker.print_to_stdstream({"lines": ["A worker died"]}, ignore_prefix=False)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "A worker died\n")


def test_a_trial_may_fail_again_once_it_got_further() -> None:
    from ray.tune.experiment import Trial

    trial = Trial("PPO", stub=True)
    ray_compat.allow_failures(trial, 2)
    assert trial.max_failures == trial.num_failures + 2
    assert "self.max_failures" in inspect.getsource(Trial.should_recover)


def test_a_trial_is_held_back_by_its_status_and_placed_by_a_label_of_the_node() -> None:
    from ray._private import state
    from ray.tune.execution import tune_controller
    from ray.tune.experiment import Trial

    controller = inspect.getsource(tune_controller.TuneController)
    assert "def _set_trial_status(self, trial: Trial, status: str)" in controller
    assert Trial.PAUSED == "PAUSED"
    assert "self._scheduler_alg.on_trial_add(self._wrapped(), trial)" in controller
    assert '"NodeID"' in inspect.getsource(state)
    assert "def get_draining_nodes" in inspect.getsource(state)


def test_of_the_trials_that_have_ended_a_controller_keeps_the_latest() -> None:
    from ray.tune.execution import tune_controller
    from ray.tune.experiment import Trial

    ended = [Trial("PPO", stub=True) for _ in range(2 * ray_compat.KEPT_TRIALS + 3)]
    for one in ended:
        one.set_status(Trial.TERMINATED)
    runs = Trial("PPO", stub=True)
    tuner = SimpleNamespace(
        _trials=[*ended[:5], runs, *ended[5:]],
        _stopped_trials=set(ended),
        _failed_trials=set(),
        _trials_to_cache={runs, *ended},
    )
    source, listed = inspect.getsource(tune_controller), tuner._trials
    assert all(f"self.{name}: " in source for name in vars(tuner) if name != "_trials_to_cache")
    assert "self._trials_to_cache" in source
    assert "self._tune_controller = tune_controller" in source
    ray_compat.forget_ended_trials(SimpleNamespace(_tune_controller=tuner))
    latest = ended[-ray_compat.KEPT_TRIALS :]
    assert tuner._trials == [runs, *latest]
    assert tuner._trials is listed  # Ray Tune's callbacks hold it
    assert (tuner._stopped_trials, tuner._trials_to_cache) == (set(latest), {runs, *latest})


def test_ray_says_who_made_a_placement_group_and_whether_that_has_died() -> None:
    from ray._private import state
    from ray.core.generated import gcs_pb2

    job = gcs_pb2.JobTableData(job_id=b"1", is_dead=True)
    job.config.metadata[ray_compat.DRIVER] = "1"
    group = gcs_pb2.PlacementGroupTableData(creator_actor_id=b"1", creator_job_id=b"1")
    assert not group.creator_actor_dead
    assert not group.is_detached
    assert group.state != group.REMOVED
    source = inspect.getsource(state)
    assert "accessor.get_job_table(" in source
    assert "accessor.get_placement_group_table()" in source


def test_population_based_training_gives_a_trial_anothers_checkpoint_and_changed_values() -> None:
    """It needs nothing of Ray's trials and controller that ours lack."""
    from ray.tune.schedulers import PopulationBasedTraining

    training = PopulationBasedTraining(
        time_attr="epoch",
        metric="value",
        mode="max",
        perturbation_interval=1,
        hyperparam_mutations={"lr": [0.1, 0.2, 0.3]},
        log_config=False,
    )
    trials = [ray_compat.Candidate(str(number), {"lr": 0.2}) for number in range(2)]
    controller: Any = ray_compat.Controller()
    for one in trials:
        training.on_trial_add(controller, one)  # type: ignore[arg-type]
    for epoch in (1, 2):
        for value, one in enumerate(trials):
            result = {"epoch": epoch, "value": value, "state": f"{value} at {epoch}"}
            assert training.on_trial_result(controller, one, result) == "CONTINUE"  # type: ignore[arg-type]
    assert trials[0].take_checkpoint() == "1 at 1"
    assert trials[0].take_checkpoint() is None
    assert trials[0].config["lr"] in (0.1, 0.2, 0.3)
    assert trials[1].take_checkpoint() is None


def test_the_error_of_a_task_of_ray_data_has_its_own_text() -> None:
    from ray import exceptions
    from ray.data._internal import util

    ours = errors.DataError("a.csv: row 1", "a.csv: row 2")
    advised = util._annotate_exception_with_retry_context(
        ours,
        description="apply UDF transform",
        attempts=1,
        max_attempts=1,
        total_backoff_s=0.0,
        exception_str="",
    )
    told = exceptions.RayTaskError("f", "the trace", advised, "task", 1, "127.0.0.1")
    raised = told.as_instanceof_cause()
    assert isinstance(raised, errors.DataError)
    assert "the trace" in str(raised)
    found = ray_compat.task_error(raised)
    assert type(found) is errors.DataError
    assert str(found) == "a.csv: row 1\na.csv: row 2"
    assert ray_compat.task_error(exceptions.RayError("lost")) is None


def test_a_run_of_ray_train_tells_lost_workers_from_failures_of_their_own() -> None:
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal import exceptions

    own, lost = ValueError("wrong"), exceptions.WorkerHealthCheckFailedError("died", OSError())
    assert not ray_compat.lost_workers(WorkerGroupError("", {0: own, 1: own}))
    assert ray_compat.lost_workers(WorkerGroupError("", {0: own, 1: lost}))
    assert ray_compat.lost_workers(ControllerError(own))


def test_the_first_autoscaler_names_types_of_nodes_and_calls_those_without_one_by_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import ray_constants
    from ray.autoscaler._private.util import format_readonly_node_type
    from ray.experimental import internal_kv

    def told(report: dict[str, Any] | None) -> tuple[dict[str, int], bool | None]:
        text = json.dumps({"autoscaler_report": report}) if report is not None else None
        known = {ray_constants.DEBUG_AUTOSCALING_STATUS: text}
        monkeypatch.setattr(internal_kv, "_internal_kv_get", known.get)
        starting, autoscaled = ray_load._first_autoscaler()
        return dict(starting), autoscaled

    assert told(None) == ({}, None)
    assert told({"node_type_mapping": {"0a": format_readonly_node_type("0a")}}) == ({}, False)
    pending = {"pending_launches": {"gpu": 2}, "pending_nodes": [["10.0.0.9", "gpu", "waiting"]]}
    assert told({"node_type_mapping": {"10.0.0.8": "head"}, **pending}) == ({"gpu": 3}, True)


@pytest.mark.parametrize("method", ["__serve_build_asgi_app__", "record_autoscaling_stats"])
def test_serve_asks_a_replica_for_its_application_and_its_load(method: str) -> None:
    ours = Path(str(util.find_spec("serving.app").origin))  # type: ignore[union-attr]
    assert f"def {method}(" in ours.read_text()
    assert method in (ROOT / "serve/_private/replica.py").read_text()


def test_serve_wraps_its_server_in_the_middlewares_that_a_variable_names() -> None:
    source = (ROOT / "serve/_private/http_util.py").read_text()
    assert "http_options.middlewares.extend(" in source
    assert "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH" in source


def test_a_proxy_of_serve_is_known_by_its_name_and_holds_requests_for_a_first_replica() -> None:
    private = ROOT / "serve/_private"
    name = f'SERVE_PROXY_NAME = "{ray_compat.PROXY}"'
    assert name in (private / "constants.py").read_text()
    assert not ray_compat.is_serve_proxy()
    # HAProxy's last server, and the report that wakes the controller, at no replica.
    assert "check backup" in (private / "haproxy_templates.py").read_text()
    router = (private / "router.py").read_text()
    assert "def should_send_scaled_to_zero_optimized_push(" in router


def test_serve_passes_what_haproxy_repeats_on_to_its_configuration_as_it_is() -> None:
    """The options that Serve has no setting for follow in the section of `retry-on`."""
    source = (ROOT / "serve/_private/haproxy_templates.py").read_text()
    section = source.partition("\ndefaults\n")[2].partition("\nfrontend ")[0]
    assert "\n    retry-on {{ config.retry_on }}\n" in section


def test_a_proxy_of_serve_gives_no_answer_for_a_lost_replica_but_to_a_middleware() -> None:
    source = (ROOT / "serve/_private/http_util.py").read_text()
    silent = "    if response_started or status.code not in (408, 429, 503):\n        return []\n"
    assert silent in source
    assert "for middleware in [Middleware(RequestIdMiddleware)] + middlewares:" in source


def test_the_autoscaling_context_has_what_the_policy_reads() -> None:
    config = (ROOT / "serve/config.py").read_text()
    for name in ray_serve.Context.__annotations__:
        assert f"def {name}(" in config or f"self.{name} =" in config
    state = (ROOT / "serve/_private/autoscaling_state.py").read_text()
    assert "return raw(**policy.policy_kwargs)" in state


def test_ray_tells_a_process_that_started_it_from_one_that_joined() -> None:
    from ray._private import node, worker

    assert not ray_compat.started_here()  # nothing is connected
    assert hasattr(worker, "_global_node")
    assert callable(node.Node.is_head)


def test_a_worker_learns_of_its_end_by_a_signal_or_from_the_list_of_drained_nodes() -> None:
    from ray._private import state

    assert callable(state.state.get_draining_nodes)
    worker, node = (ROOT / f"_private/{name}.py" for name in ("worker", "node"))
    assert "set_sigterm_handler(sigterm_handler)" in worker.read_text()
    assert "def _drain_node_before_shutdown(" in node.read_text()


def test_a_worker_of_ray_train_calls_what_it_is_given_in_its_main_thread() -> None:
    source = (ROOT / "train/v2/_internal/execution/worker_group/worker.py").read_text()
    assert "        return fn(*fn_args, **fn_kwargs)\n" in source.partition("def execute(self")[2]
    assert "def run_train_fn(" in source  # the loop is in a thread of its own


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Serve's own, at its import
def test_a_grpc_server_of_ray_serve_can_call_a_services_own_handlers() -> None:
    from ray.serve._private import grpc_util

    async def answer(request: bytes, context: object) -> bytes:
        return request

    async def check() -> None:
        server = grpc_util.gRPCGenericServer(lambda **_: None)
        ray_compat.answer_directly(server, "own.Service")
        own = {"Ask": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("own.Service", own),))
        assert own["Ask"].unary_unary is answer
        (added,) = server.generic_rpc_handlers
        assert added[0]._method_handlers["/own.Service/Ask"].unary_unary is answer

    asyncio.run(check())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Serve's own, at its import
def test_grpc_servers_of_ray_serve_listen_where_they_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Middlewares are asked for before they start, also in its proxy."""
    from ray.serve._private import default_impl, grpc_util, haproxy, proxy, replica

    listened = list[str]()
    monkeypatch.setattr(default_impl, "add_grpc_address", lambda _, at: listened.append(at))
    monkeypatch.setenv(fast_path.GRPC_HOST, "127.0.0.1")
    assert fast_path.middlewares()
    default_impl.add_grpc_address(None, "[::]:7")  # type: ignore[arg-type]
    assert listened == ["127.0.0.1:7"]
    started = inspect.getsource(grpc_util.start_grpc_server)
    assert "default_impl import add_grpc_address\n" in started
    assert 'add_grpc_address(server, f"[::]:{' in started
    for module, begin in (
        (replica, "def _maybe_start_direct_ingress_servers("),
        (proxy, "class ProxyActor("),
    ):
        source = inspect.getsource(module).partition(begin)[2]
        assert 0 < source.index("configure_http_middlewares(") < source.index("start_grpc_server(")
    assert "get_localhost_ip() if target.ip == self._node_ip_address" in inspect.getsource(haproxy)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Serve's own, at its import
def test_ray_serves_own_way_to_answer_a_call_is_a_method_like_any_other() -> None:
    """Also the one of its proxy, which sets no code where one is set."""
    from ray.serve._private import grpc_util, proxy

    def factory(service_method: str, streaming_type: Any) -> Any:
        return service_method, streaming_type.value

    async def check() -> None:
        server = grpc_util.gRPCGenericServer(factory)
        assert ray_compat.own_way(server, "/own.Service/Ask") == ("/own.Service/Ask", "unary_unary")

    asyncio.run(check())
    made = inspect.getsource(proxy.gRPCProxy.service_handler_factory)
    assert "async def unary_unary(\n" in made
    assert "set_grpc_code_and_details(context, status)" in made
    assert "if not context.code():" in inspect.getsource(grpc_util.set_grpc_code_and_details)
