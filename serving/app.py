"""The Ray Serve application: one deployment whose replicas each answer requests.

In Python: `serve.run(build({"name": "digits", …}))`. In a RayService: `import_path:
serving.app:build` with the same keys under `args`.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from serving import admission, autoscaling, batching, fast_path, metrics, readiness, scrape
from serving.settings import Settings

if TYPE_CHECKING:
    from eagleray import bundle

log = logging.getLogger("ray.serve")

MAX_ONGOING = 100_000
"""Ray's limit of requests in progress; `serving.admission` has the real limits."""


class Replica:
    """A replica; ready once a version of the model has reproduced its golden rows."""

    def __init__(self, settings: Settings) -> None:
        from eagleray import storage
        from eagleray.engines import placement
        from eagleray.state.models import Registry
        from eagleray.storage import cache
        from serving import alias_watcher, web

        # Replicas share a machine, and torch's idle threads spin: no more than are reserved.
        placement.use(settings.place())
        log.info("%s: models run on %s", settings.name, settings.place())
        self._settings = settings
        session = ray.get_runtime_context().get_session_name()
        folder = Path(tempfile.gettempdir(), "eagleray", session, "metrics", settings.name)
        self._metrics = metrics.Metrics(folder, settings.name)
        self._readiness = readiness.Readiness(settings.http_port)
        if settings.metrics_port:
            answers = self._metrics.exposition, self._readiness.probe
            scrape.Server(settings.metrics_port, *answers).start()
        capacity = admission.Capacity(settings.queue_rows)
        self._application = web.Application(settings.name, self._metrics, capacity)
        self._limits = batching.Limits(settings.max_rows, settings.wait_ms / 1000)
        self._thread = ThreadPoolExecutor(
            1, "batch", initializer=placement.use, initargs=(settings.place(),)
        )
        self._watcher = alias_watcher.AliasWatcher(
            Registry(storage.open(settings.storage), local=cache.default()),
            settings.name,
            settings.alias,
            self._install,
            self._metrics,
        )

    async def __serve_build_asgi_app__(self) -> object:
        """Return the application once it can answer; Ray Serve sends traffic after that."""
        settings = self._settings
        await asyncio.to_thread(self._watcher.check)
        if self._watcher.serving is None:
            log.warning(
                "%s: no version with alias %s can be served yet", settings.name, settings.alias
            )
        while self._watcher.serving is None:
            await asyncio.sleep(settings.poll_s)
            await asyncio.to_thread(self._watcher.check)
        self._watcher.start(settings.poll_s)
        if settings.announce_s:
            await self._readiness.announce(settings.announce_s)
        self._busy = autoscaling.Busy()  # of this thread, which runs the event loop
        fast_path.enable(self._application)
        return self._application

    def check_health(self) -> None:
        """Raise if batches cannot run any more; Ray Serve then replaces the replica."""
        loaded = self._application.predictor
        if loaded is not None and loaded.failure is not None:
            raise RuntimeError(loaded.failure)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the metrics for `autoscaling.policy`; Ray Serve calls this periodically."""
        average, busy = self._application.ongoing.average(), self._busy.share()
        self._metrics.ongoing.set(average)
        self._metrics.busy.set(busy)
        return {autoscaling.ONGOING: average, autoscaling.BUSY: busy}

    def _install(self, loaded: bundle.Bundle) -> None:
        from serving import predictor

        self._application.predictor = predictor.Predictor(
            loaded,
            self._limits,
            self._thread,
            self._metrics,
            extra_fields=self._settings.extra_fields,
        )

    def __del__(self) -> None:
        self._watcher.stop()


def build(args: Mapping[str, object]) -> serve.Application:
    """Build the application that serves a model; `args` are those of `Settings`."""
    settings = Settings.model_validate(args)
    deploy = serve.deployment(
        name=settings.name,
        autoscaling_config=_autoscaling(settings),
        max_ongoing_requests=MAX_ONGOING,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        logging_config=LoggingConfig(enable_access_log=False),
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
            upscale_delay_s=settings.upscale_delay_s,
            downscale_delay_s=settings.downscale_delay_s,
            metrics_interval_s=settings.metrics_interval_s,
            look_back_period_s=settings.look_back_s,
            policy=AutoscalingPolicy(policy_function="serving.autoscaling:policy"),
        )
