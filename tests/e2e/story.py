"""The steps that later tests stand on: each is done once, and skipped over when it has failed."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray import errors
from k8s import api
from k8s.objects import ready
from tests.e2e import clients, helm, settings
from tests.e2e.cluster import INSTANCE, NAMESPACES, Cluster
from tests.e2e.release import Release

EXPERIMENT = """\
name: {name}
data: {{source: "dataset:wine", target: target}}
model: {{hidden: [16]}}
train: {{lr: {{loguniform: [1.0e-3, 1.0e-2]}}, epochs: 3}}
tune: {{trials: 2}}
storage: {storage}
"""


class Story:
    """One release that the tests share, and how far it has come."""

    def __init__(self, chosen: settings.Settings, folder: Path) -> None:
        self.settings = chosen
        self.cluster = Cluster(chosen.namespace)
        self.helm = helm.find(chosen.namespace, folder, chosen.helm)
        uri = settings.storage(chosen, time.strftime("%Y%m%d-%H%M%S"))
        self.release = self.named(chosen.release, uri)
        self.values = settings.values(chosen, uri)
        self.experiment = folder / "e2e.yaml"
        self.experiment.write_text(EXPERIMENT.format(name=settings.MODEL, storage=uri))
        self._failures: dict[str, Exception | None] = {}
        self._made_namespace = False

    def named(self, name: str, uri: str) -> Release:
        """Another release of the same namespace."""
        return Release(name, self.cluster, self.helm, self.settings, uri)

    def installed(self) -> Release:
        """The release, its store and its head being up."""
        self._once("the installation", self._install)
        return self.release

    def learned(self) -> Release:
        """The release with a model in its registry."""
        self.installed()
        self._once("the search", self._search)
        return self.release

    def served(self) -> Release:
        """The release with an endpoint that is ready; waits where a test before has moved it."""
        self.learned()
        self._once("the endpoint", lambda: self._ready(900))
        self._ready(600)
        return self.release

    def clean(self) -> None:
        """Nothing of this run, or of one that was cut off, is left."""
        for name in (self.release.name, other(self.release.name), bad(self.release.name)):
            with contextlib.suppress(errors.EagleRayError):
                self.helm.uninstall(name)
        self.end_runs()
        for pod in self.cluster.pods(client="client"):
            self.cluster.delete(api.PODS, pod["metadata"]["name"])
        self.cluster.delete(api.SECRETS, settings.SECRET)
        if self._made_namespace:
            self.cluster.delete(NAMESPACES, self.cluster.namespace)

    def end_runs(self) -> None:
        """Delete the RayJobs of the release's runs: they are whose who sent them, not Helm's."""
        for job in self.cluster.api.list(api.RAYJOBS, f"{INSTANCE}={self.release.name}"):
            self.cluster.delete(api.RAYJOBS, job["metadata"]["name"])

    def _once(self, step: str, action: Callable[[], None]) -> None:
        """Do a step the first time it is needed; skip whoever needs it after it has failed."""
        if step in self._failures:
            failure = self._failures[step]
            if failure is not None:
                pytest.skip(f"{step} has failed: {str(failure).splitlines()[0]}")
            return
        try:
            action()
        except Exception as failure:
            self._failures[step] = failure
            raise
        self._failures[step] = None

    def _install(self) -> None:
        self._made_namespace = self.cluster.make_namespace()
        if not self._made_namespace:
            self.clean()
            self._nothing_left()
        if self.settings.s3_uri:
            self.cluster.api.create(api.SECRETS, _keys(self.settings))
        self.helm.install(self.release.name, self.values)
        self.release.wait("the release's first pods", self._unstarted, 900)

    def _unstarted(self) -> str:
        """The store, and the head of the endpoint; its workers wait for a model."""
        wanted = {"head": self.release.pods("head")}
        if not self.settings.s3_uri:
            wanted["store"] = self.release.pods(component="store")
        waits = [what for what, pods in wanted.items() if not any(ready(pod) for pod in pods)]
        return f"a ready pod: {', '.join(waits)}" if waits else ""

    def _nothing_left(self) -> None:
        left = lambda: ", ".join(self.cluster.leftovers(self.release.name))  # noqa: E731
        self.release.wait("the end of what a run before this one left", left, 300)

    def _search(self) -> None:
        found = self.release.search(str(self.experiment))
        if found["champion"] != found["version"]:
            raise errors.ClusterError(f"the first version must be the champion, but got {found}")

    def _ready(self, limit_s: float) -> None:
        self.release.wait("an endpoint that is ready", self.release.unready, limit_s)


def other(name: str) -> str:
    """The name of a second release beside the first."""
    return f"other-{name}"


def bad(name: str) -> str:
    """The name of a release that cannot come up."""
    return f"bad-{name}"


def _keys(chosen: settings.Settings) -> dict[str, object]:
    text = {
        "AWS_ACCESS_KEY_ID": chosen.s3_access_key_id,
        "AWS_SECRET_ACCESS_KEY": chosen.s3_secret_access_key,
    }
    metadata = {"name": settings.SECRET, "labels": {clients.MARK: "keys"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": text}
