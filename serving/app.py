"""The Ray Serve application: one deployment whose replicas each answer requests.

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
from typing import TYPE_CHECKING

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from serving import autoscaling, fast_path, metrics, readiness, rpc, scrape
from serving.settings import Settings

if TYPE_CHECKING:
    from serving import models, web

log = logging.getLogger("ray.serve")

MAX_ONGOING = 100_000
"""Ray's limit of requests in progress; `serving.admission` has the real limits."""


class Replica:
    """A replica; ready once a version of the model has reproduced its golden rows."""

    def __init__(self, settings: Settings) -> None:
        from eagleray.engines import placement
        from serving import models, served

        # Replicas share a machine, and torch's idle threads spin: no more than are reserved.
        placement.use(settings.place())
        log.info("%s: models run on %s", settings.name, settings.place())
        self._settings = settings
        session = ray.get_runtime_context().get_session_name()
        folder = Path(tempfile.gettempdir(), "eagleray", session)
        observe = functools.partial(metrics.Metrics, folder / "metrics" / settings.name)
        self._metrics, shared = observe(settings.name), folder / "aliases"
        self._readiness = readiness.Readiness(settings.http_port)
        if settings.metrics_port:
            answers = self._metrics.exposition, self._readiness.probe
            scrape.Server(settings.metrics_port, *answers).start()
        self._served = served.Served(settings, self._metrics, shared=shared)
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


def build(args: Mapping[str, object]) -> serve.Application:
    """Build the application that serves a model; `args` are those of `Settings`."""
    settings = Settings.model_validate(args)
    deploy = serve.deployment(
        name=settings.name,
        autoscaling_config=_autoscaling(settings),
        max_ongoing_requests=MAX_ONGOING,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        logging_config=LoggingConfig(encoding=settings.logs.upper(), enable_access_log=False),
    )
    return deploy(serve.ingress()(Replica)).bind(settings)


def _autoscaling(settings: Settings) -> AutoscalingConfig:
    with warnings.catch_warnings():
        # Ray announces a variable in place of `metrics_interval_s`, but does not read it yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            min_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            target_ongoing_requests=settings.target_ongoing,
            upscale_delay_s=0,  # the policy has its own delays
            downscale_delay_s=0,
            metrics_interval_s=settings.metrics_interval_s,
            look_back_period_s=settings.look_back_s,
            policy=AutoscalingPolicy(
                policy_function="serving.autoscaling.ray_serve:Policy",
                policy_kwargs=dataclasses.asdict(settings.plan()),
            ),
        )
