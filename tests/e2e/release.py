"""A release of the chart on the cluster: its names, its state, and how to talk to it."""

import base64
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient import grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from eagleray import errors
from k8s import api
from k8s.objects import ready
from tests.e2e import clients, diagnosis, tunnel, waiting
from tests.e2e.cluster import Cluster, names
from tests.e2e.helm import Helm
from tests.e2e.settings import MODEL, Settings

SERVE, GRPC, STORE = 8000, 9000, 8333


@dataclass(frozen=True)
class Release:
    """One release. The names are those that the chart gives to a release with a short name."""

    name: str
    cluster: Cluster
    helm: Helm
    settings: Settings
    storage: str

    @property
    def url(self) -> str:
        """The endpoint as pods of the cluster call it."""
        return f"http://{self.name}-serve-svc.{self.cluster.namespace}.svc:{SERVE}"

    def wait(self, wish: str, missing: Any, limit_s: float, every_s: float = 2.0) -> None:
        """Wait with this cluster's patience, and with a diagnosis when it is over."""
        waiting.until(
            wish,
            missing,
            limit_s=self.settings.limit_s(limit_s),
            every_s=every_s,
            reason=lambda: diagnosis.report(self.cluster),
        )

    def pods(self, role: str = "", component: str = "serving", **labels: str) -> list[Any]:
        """The pods of a part of the release."""
        chosen = {"role": role, **labels} if role else labels
        return self.cluster.pods(instance=self.name, component=component, **chosen)

    def active(self) -> str:
        """The Ray cluster that has the traffic."""
        return str(self._status().get("activeServiceStatus", {}).get("rayClusterName", ""))

    def unready(self) -> str:
        """What is missing until the endpoint is ready and at rest, on one Ray cluster."""
        status = self._status()
        said = {one["type"]: one for one in status.get("conditions", ())}
        if said.get("Ready", {}).get("status") != "True":
            return f"RayService {self.name}: Ready ({said.get('Ready', {}).get('message', 'no')})"
        if said.get("UpgradeInProgress", {}).get("status") == "True":
            return f"RayService {self.name}: the end of its upgrade"
        waits = [pod for pod in self.pods() if not ready(pod)]
        return f"ready pods: {', '.join(names(waits))}" if waits else ""

    def replicas(self) -> int:
        """Workers that take traffic; each has room for one replica."""
        found = self.pods("worker", cluster=self.active())
        return sum(ready(pod) for pod in found)

    def image(self) -> dict[str, Any]:
        """The image as the release's pods have it."""
        found = self.pods() or self.pods(component="store")
        if not found:
            raise errors.ClusterError(f"release {self.name}: must have pods, but has none")
        return clients.image_of(found[0])

    def load(self, **options: float) -> contextlib.AbstractContextManager[clients.Load]:
        """Requests from a pod of the namespace, see `examples/load.py`."""
        command = clients.load_command(self.url, MODEL, **options)
        limit_s = self.settings.limit_s(options.get("patience", clients.STARTED_S))
        return clients.load(self.cluster, self.image(), command, limit_s=limit_s)

    def predict(self) -> dict[str, Any]:
        """One prediction, asked from this machine through a worker's port."""
        with self._tunnel(self._worker(), SERVE) as here:
            return _json(f"http://{here}/v1/models/{MODEL}:predict", _example(here))

    def infer(self) -> tuple[str, str]:
        """The model and version that answer the same by gRPC, through the worker's other port."""
        worker = self._worker()
        with self._tunnel(worker, SERVE) as here:
            row = _example(here)["instances"][0]
        with self._tunnel(worker, GRPC) as here:
            return infer(here, MODEL, row)

    def mute(self, seconds: float = 10) -> str:
        """What is missing until it answers for some time without a failure."""
        if missing := self.unready():
            return missing
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                self.predict()
            except (OSError, ValueError, KeyError, errors.EagleRayError) as failure:
                return f"an answer ({failure})"
            time.sleep(1)
        return ""

    def eagleray(self, *words: str, limit_s: float = 120) -> Any:
        """A command of ours on this machine, with `--json`; gives what it printed.

        Raises:
            ClusterError: it failed, or took too long; with all that it said.
        """
        command = [sys.executable, "-m", "eagleray", *words, "--json"]
        with self._storage() as aws:
            outer = self.helm.environment().items()
            clean = {key: text for key, text in outer if not key.startswith("AWS_")}
            try:
                ended = subprocess.run(
                    command,
                    env=clean | aws,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=self.settings.limit_s(limit_s),
                )
            except subprocess.TimeoutExpired as late:
                raise self._failed(words, f"not within {late.timeout:g} s", late.stderr) from late
        if ended.returncode:
            raise self._failed(words, f"exit code {ended.returncode}", ended.stderr)
        return json.loads(ended.stdout)

    def search(self, file: str, *changes: str) -> dict[str, Any]:
        """Send an experiment as a RayJob, follow it to its end, give what came of it."""
        sets = [word for change in changes for word in ("--set", change)]
        there = ["--kubernetes", "--namespace", self.cluster.namespace, "--release", self.name]
        found: dict[str, Any] = self.eagleray("run", file, *sets, *there, limit_s=1200)
        return found

    def deploy(self, *words: str) -> dict[str, Any]:
        """Change the release by `eagleray deploy`, give what came of it."""
        there = ["--kubernetes", "--namespace", self.cluster.namespace]
        found: dict[str, Any] = self.eagleray("deploy", self.name, *there, *words, limit_s=1200)
        return found

    def alias(self) -> int:
        """The version that `champion` names, by the registry."""
        found = self.eagleray("models", "list", "--storage", self.storage)
        (model,) = [one for one in found if one["name"] == MODEL]
        return int(model["aliases"]["champion"])

    def _worker(self) -> Any:
        """A worker that is ready."""
        for pod in self.pods("worker", cluster=self.active()):
            if ready(pod):
                return pod
        raise errors.ClusterError(f"release {self.name}: no worker is ready")

    def _status(self) -> dict[str, Any]:
        found = self.cluster.api.get(api.RAYSERVICES, self.name)
        status: dict[str, Any] = found.get("status") or {}
        return status

    def _failed(self, words: Sequence[str], what: str, said: Any) -> errors.ClusterError:
        text = said.decode(errors="replace") if isinstance(said, bytes) else said or ""
        failure = errors.ClusterError(f"eagleray {' '.join(words)}: {what}: {text.strip()[-3000:]}")
        failure.add_note(diagnosis.report(self.cluster))
        return failure

    def _tunnel(self, pod: Any, port: int) -> contextlib.AbstractContextManager[str]:
        return tunnel.opened(self.cluster.namespace, pod["metadata"]["name"], port)

    @contextlib.contextmanager
    def _storage(self) -> Iterator[dict[str, str]]:
        """The AWS variables by which this machine reaches the release's S3."""
        chosen = self.settings
        if chosen.s3_uri:
            endpoint = chosen.s3_endpoint_here or chosen.s3_endpoint
            keys = (chosen.s3_access_key_id, chosen.s3_secret_access_key)
            yield _aws(endpoint, chosen.s3_region, *keys)
            return
        secret = self.cluster.api.get(api.SECRETS, f"{self.name}-store")["data"]
        found = [base64.b64decode(secret[key]).decode() for key in KEYS]
        (pod,) = self.pods(component="store")
        with self._tunnel(pod, STORE) as here:
            yield _aws(f"http://{here}", "us-east-1", *found)


KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def _aws(endpoint: str, region: str, key: str, secret: str) -> dict[str, str]:
    made = {KEYS[0]: key, KEYS[1]: secret, "AWS_REGION": region}
    return made | ({"AWS_ENDPOINT_URL_S3": endpoint} if endpoint else {})


def infer(address: str, model: str, row: Mapping[str, Any]) -> tuple[str, str]:
    """The model and version that answer a row by gRPC.

    Raises:
        ClusterError: the call failed, with its code and what the server says.
    """
    try:
        with grpc.InferenceServerClient(address) as client:
            columns = client.get_model_metadata(model, client_timeout=30).inputs
            inputs = [grpc.InferInput(one.name, [1], one.datatype) for one in columns]
            for one in inputs:
                value = np.array([row[one.name()]], triton_to_np_dtype(one.datatype()))
                one.set_data_from_numpy(value)
            said = client.infer(model, inputs, client_timeout=30).get_response()
    except InferenceServerException as failure:
        raise errors.ClusterError(f"gRPC at {address}: {failure}") from failure
    return said.model_name, said.model_version


def _example(here: str) -> dict[str, Any]:
    """The body of a request that the model's own description gives."""
    paths = _json(f"http://{here}/openapi.json")["paths"]
    post = paths[f"/v1/models/{MODEL}:predict"]["post"]
    body: dict[str, Any] = post["requestBody"]["content"]["application/json"]["example"]
    return body


def _json(url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """GET, or POST of a body, past any proxy."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
