"""A model in this replica: its versions, the application that answers, and its part in rollouts."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eagleray import bundle, errors, storage
from eagleray.state import plans
from eagleray.state.evidence import Evidence
from eagleray.state.models import Registry
from eagleray.state.rollouts import Rollouts
from eagleray.storage import cache
from serving import (
    admission,
    batching,
    capture,
    controller,
    guard,
    loaded,
    metrics,
    node,
    predictor,
    remote,
    routing,
    tracing,
    trust,
    versions,
    web,
)
from serving.settings import Settings

log = logging.getLogger("ray.serve")

STALE = 5.0
"""Polls after which a node's copy of the aliases is not believed any more."""
SWITCH_S = 0.0005
"""A thread that keeps the interpreter lets go after this time where the event loop waits for it;
Python's 5 ms are several requests' time, and files of captured rows take longer."""


class Served:
    """Serves the version that an alias names, beside the candidate of its rollout."""

    def __init__(
        self,
        settings: Settings,
        observer: metrics.Metrics,
        *,
        shared: Path | None = None,
        beside: web.Application | None = None,
        large: remote.Call | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Replicas of one node have the folder `shared` in common.

        A model `beside` the own one of the replica has its limits, and keeps no unused versions.
        `large` calls the deployment for versions that do not fit here.
        """
        self._settings, self._metrics = settings, observer
        store = self._store = storage.open(settings.storage)
        capacity = beside.capacity if beside else admission.Capacity(settings.queue_rows)
        self.application = web.Application(settings.name, observer, capacity)
        self.application.access_log = settings.access_log
        self.application.guard = beside.guard if beside else guard.Guard.of(settings)
        if beside is not None:
            self.application.ongoing = beside.ongoing
            self.application.departures = beside.departures
        self._spans = None if beside else tracing.Tracing.of_environment(settings.name)
        self.application.tracing = beside.tracing if beside else self._spans
        self._samples = self.application.samples = _samples(settings, store, observer)
        self._split: routing.Split | None = None
        self._control: predictor.Predictor | None = None  # see `routing.Split`
        self._schedule = batching.Schedule(settings.wait_ms / 1000)
        self.registry = registry = Registry(store, local=cache.default())
        watch = None
        if shared is not None:
            stale_s = STALE * settings.poll_s
            watch = node.NodeAliases(registry, settings.name, shared, stale_s=stale_s).watch
        self.remote: remote.Remote | None = None
        if large is not None and settings.large is not None:
            start_s = settings.large.start_s
            self.remote = remote.Remote(large, self._outline, start_s=start_s)
        self.versions = versions.Versions(
            registry,
            settings.name,
            settings.alias,
            watch=watch,
            held=self._memory(0.0 if beside is not None else settings.versions_mb),
            follow=self._follow,
            observer=observer,
            memory=loaded.MEMORY if beside is None else 0,
            large=self.remote,
        )
        rollouts = Rollouts(store)
        self.controller = controller.Controller(
            rollouts, settings.name, settings.alias, self._counted, clock=clock
        )
        self.application.pages.live.follow(rollouts, settings.name, settings.alias)

    @property
    def ready(self) -> bool:
        return self.versions.serving is not None

    def start(self) -> None:
        """Follow the alias and take part in rollouts, in threads beside the event loop."""
        sys.setswitchinterval(SWITCH_S)
        self.versions.start(self._settings.poll_s)
        self.controller.start()
        if self._samples is not None:
            self._samples.start()

    def publish(self) -> None:
        """Set how rollouts of the alias proceed, if the settings say so."""
        settings = self._settings
        if settings.rollout is None:
            return
        plan = settings.rollout.plan(settings.p95_ms)
        try:
            plans.publish(self._store, settings.name, settings.alias, plan)
        except errors.StorageError as cause:
            log.warning("%s: how rollouts proceed was not set: %s", settings.name, cause)

    def stop(self) -> None:
        self.versions.stop()
        self.controller.stop()
        if self.remote is not None:
            self.remote.stop()
        if self.versions.serving is not None:
            self._metrics.unloaded(self.versions.serving)
        if self._spans is not None:
            self._spans.stop()
        if self._samples is not None:
            self._samples.stop()

    def _predictor(
        self, found: bundle.Bundle, batches: remote.Batches | None = None
    ) -> predictor.Predictor:
        return predictor.Predictor.of(
            self._settings,
            found,
            self._metrics,
            samples=self._samples,
            spans=self._spans,
            remote=batches,
            schedule=self._schedule,
        )

    def _memory(self, most_mb: float) -> loaded.Loaded:
        """What holds versions here; their files have at most so many MiB, 0 sets no bound."""
        return loaded.Loaded(
            self.registry,
            self._settings.name,
            build=self._predictor,
            observer=self._metrics,
            check=trust.Trust.of(self._settings).check,
            budget=int(most_mb * 2**20),
        )

    def _outline(self, number: int, batches: remote.Batches) -> predictor.Predictor:
        """A version whose rows are predicted elsewhere."""
        version = self.registry.version(self._settings.name, number)
        return self._predictor(bundle.outline(self.registry, version), batches)

    def _follow(self, now: versions.Followed) -> None:
        """Serve other versions from the next request on."""
        route, application = now.route, self.application
        if route is None:
            self._split = self._control = None
        elif self._split is None or self._split.rollout != route.rollout:
            capacity, outcome = application.capacity, now.stable.outcome
            self._split = routing.Split(route.rollout, capacity, outcome, self._schedule)
        if self._split is not None and now.candidate is not None and route is not None:
            if self._control is None or self._control.bundle is not now.stable.bundle:
                self._control = self._controls(now.stable)
            self._split.follow(now.stable, self._control, now.candidate, route)
        for one in (now.stable, now.candidate):
            if one is not None and isinstance(one.remote, remote.Batches):
                one.remote.alone = one is now.stable
        application.predictor = now.stable
        application.split = self._split if now.candidate is not None else None

    def _controls(self, stable: predictor.Predictor) -> predictor.Predictor:
        """The stable version with batches of its own; apart from here it has no other ones."""
        return stable if stable.remote is not None else self._predictor(stable.bundle)

    def _counted(self) -> tuple[str, Evidence] | None:
        """What this replica has counted in the rollout that is under way."""
        if (split := self._split) is None:
            return None
        return split.rollout, split.evidence(self.versions.refused)


def _samples(
    settings: Settings, store: storage.Storage, observer: metrics.Metrics
) -> capture.Capture | None:
    """What keeps samples of requests; None where no share of them is to be kept."""
    if not settings.capture:
        return None
    privacy = capture.Privacy.of(
        settings.capture_exclude, settings.capture_hash, settings.capture_key_file
    )
    return capture.Capture(
        store, settings.name, settings.capture, privacy=privacy, observer=observer
    )
