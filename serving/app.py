"""The Ray Serve application: a deployment whose replicas each answer requests.

A second one, for versions that do not fit there, is part of it if the settings have `large`: it has
no replica, and costs nothing, until a version needs one.

In Python: `serve.run(build({"name": "digits", …}))`. In a RayService: `import_path:
serving.app:build` with the same keys under `args`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from eagleray import errors
from serving import autoscaling, fast_path, metrics, readiness, rpc, scrape
from serving.autoscaling.plan import Plan
from serving.settings import Settings

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from serving import models, remote, web

log = logging.getLogger("ray.serve")

MAX_ONGOING = 100_000
"""Ray's limit of requests in progress; `serving.admission` has the real limits."""


class Replica:
    """A replica; ready once a version of the model has reproduced its golden rows."""

    def __init__(self, settings: Settings, large: DeploymentHandle[Any] | None = None) -> None:
        from eagleray.engines import placement
        from serving import models, served

        # Replicas share a machine, and torch's idle threads spin: no more than are reserved.
        placement.use(settings.place())
        log.info("%s: models run on %s", settings.name, settings.place())
        self._settings = settings
        folder = _folder()
        observe = functools.partial(metrics.Metrics, folder / "metrics" / settings.name)
        self._metrics, shared = observe(settings.name), folder / "aliases"
        self._readiness = readiness.Readiness(settings.http_port)
        if settings.metrics_port:
            answers = self._metrics.exposition, self._readiness.probe
            scrape.Server(settings.metrics_port, *answers).start()
        call = _Calls(large) if large is not None else None
        self._served = served.Served(settings, self._metrics, shared=shared, large=call)
        self.application: web.Application | models.Models = self._served.application
        self._stops = [self._served.stop]
        if settings.models:
            self.application = several = models.Models(
                settings, self._served, observe, shared=shared
            )
            self._stops.append(several.stop)

    async def __serve_build_asgi_app__(self) -> object:
        """Return the application once it can answer; Ray Serve sends traffic after that."""
        settings = self._settings
        if self._served.remote is not None:
            self._served.remote.start()
        await asyncio.to_thread(self._served.versions.check)
        if not self._served.ready:
            log.warning(
                "%s: no version with alias %s can be served yet", settings.name, settings.alias
            )
        while not self._served.ready:
            await asyncio.sleep(settings.poll_s)
            await asyncio.to_thread(self._served.versions.check)
        await asyncio.to_thread(self._served.publish)
        self._served.start()
        if settings.announce_s:
            await self._readiness.announce(settings.announce_s)
        self._busy = autoscaling.Busy()  # of this thread, which runs the event loop
        fast_path.enable(self.application)
        return self.application

    def check_health(self) -> None:
        """Raise if batches cannot run any more; Ray Serve then replaces the replica."""
        if (failure := self.application.failure) is not None:
            raise RuntimeError(failure)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `autoscaling.policy` decides by; Ray Serve calls this periodically."""
        ongoing = self._served.application.ongoing
        average, busy = ongoing.average(), self._busy.share()
        self._metrics.ongoing.set(average)
        self._metrics.busy.set(busy)
        self._metrics.queued.set(self._served.application.capacity.rows)
        self._metrics.count()
        values = average, *ongoing.rates(), busy
        return dict(zip(autoscaling.METRICS, values, strict=True))

    def __del__(self) -> None:
        for stop in self._stops:
            stop()
        self._metrics.count()


for _name in rpc.CALLS:
    setattr(Replica, _name, rpc.by_ray(_name))


class LargeReplica:
    """A replica for versions that do not fit into a `Replica`; ready once it has loaded one."""

    def __init__(self, settings: Settings) -> None:
        from eagleray.engines import placement
        from serving import large

        placement.use(settings.place())
        self._metrics = metrics.Metrics(_folder() / "metrics" / settings.name, settings.name)
        if settings.metrics_port:
            probe = readiness.Readiness(settings.http_port).probe
            scrape.Server(settings.metrics_port, self._metrics.exposition, probe).start()
        self._large = large.Large(settings, self._metrics)
        self._busy = autoscaling.Busy()
        self._large.begin()

    async def ready(self, number: int) -> remote.State:
        return await self._large.ready(number)

    async def predict(self, *given: Any) -> remote.Reply:
        return await self._large.predict(*given)

    def check_health(self) -> None:
        """Raise if batches cannot run any more; Ray Serve then replaces the replica."""
        if (failure := self._large.failure) is not None:
            raise RuntimeError(failure)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `autoscaling.policy` decides by; Ray Serve calls this periodically."""
        ongoing = self._large.ongoing
        self._metrics.count()
        values = ongoing.average(), *ongoing.rates(), self._busy.share()
        return dict(zip(autoscaling.METRICS, values, strict=True))

    def __del__(self) -> None:
        self._metrics.count()


class _Calls:
    """Calls replicas of the other deployment; waits for the first one where there is none."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def __call__(self, method: str, *given: Any) -> Any:
        try:
            response = getattr(self._handle, method).remote(*given)
            try:
                return await response
            except asyncio.CancelledError:
                response.cancel()  # nobody waits for it: the rows leave the queue there
                raise
        except asyncio.CancelledError as cause:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise errors.LostError("its replica has cancelled the request") from cause
        except Exception as cause:  # its methods raise nothing: whatever comes is Ray's
            raise errors.LostError(f"its replica is lost: {cause!r}"[:500]) from cause


def build(args: Mapping[str, object]) -> serve.Application:
    """Build the application that serves a model; `args` are those of `Settings`."""
    settings = Settings.model_validate(args)
    deployed = functools.partial(_deployment, settings)
    own = deployed(settings.name, settings.plan())(serve.ingress()(Replica))
    bound = []
    if settings.large is not None:
        memory = {"memory": settings.large.memory_mb * 2**20} if settings.large.memory_mb else {}
        large = deployed(f"{settings.name}-large", settings.large_plan(), **memory)(LargeReplica)
        bound.append(large.bind(settings))
    application: serve.Application = own.bind(settings, *bound)
    return application


def _deployment(settings: Settings, name: str, plan: Plan, **reserved: float) -> Any:
    """What makes a deployment of a class; its replicas reserve further resources, if any."""
    return serve.deployment(
        name=name,
        autoscaling_config=_autoscaling(settings, plan),
        max_ongoing_requests=MAX_ONGOING,
        ray_actor_options={
            "num_cpus": settings.cpus,
            "num_gpus": settings.gpus,
            **reserved,
        },
        logging_config=LoggingConfig(encoding=settings.logs.upper(), enable_access_log=False),
    )


def _autoscaling(settings: Settings, plan: Plan) -> AutoscalingConfig:
    with warnings.catch_warnings():
        # Ray announces a variable in place of `metrics_interval_s`, but does not read it yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            min_replicas=plan.min_replicas,
            max_replicas=plan.max_replicas,
            target_ongoing_requests=settings.target_ongoing,
            upscale_delay_s=0,  # the policy has its own delays
            downscale_delay_s=0,
            metrics_interval_s=settings.metrics_interval_s,
            look_back_period_s=settings.look_back_s,
            policy=AutoscalingPolicy(
                policy_function="serving.autoscaling.ray_serve:Policy",
                policy_kwargs=dataclasses.asdict(plan),
            ),
        )


def _folder() -> Path:
    """What replicas on this node share."""
    session = ray.get_runtime_context().get_session_name()
    return Path(tempfile.gettempdir(), "eagleray", session)
