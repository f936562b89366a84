"""What a run on a cluster is told, by environment variables; and the chart's values made of it."""

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eagleray import errors
from tests.values import merged as merged

PREFIX = "EAGLERAY_E2E_"
MODEL = "e2e"
SECRET = "s3-keys-of-e2e"


def _of(default: str, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """Each field is the environment variable EAGLERAY_E2E_ and its name in capitals."""

    namespace: str = _of("eagleray-e2e", "namespace; made, and deleted at the end, if absent")
    release: str = _of("e2e", "name of the Helm release")
    image: str = _of("", "image of all pods, `repository:tag` or `repository@sha256:…`")
    pull_policy: str = _of("IfNotPresent", "`IfNotPresent`, `Always`, or `Never` for a loaded one")
    pull_secret: str = _of("", "Secret to pull the image with; make it, and the namespace, before")
    storage_class: str = _of("", "storage class of the volumes of the store and of the head")
    s3_uri: str = _of("", "`s3://bucket[/prefix]` of an S3 of yours, instead of the embedded store")
    s3_endpoint: str = _of("", "its URL as pods see it; empty means AWS")
    s3_endpoint_here: str = _of("", "its URL as this machine sees it; empty means the same")
    s3_region: str = _of("us-east-1", "region of that bucket")
    s3_access_key_id: str = _of("", "access key of that bucket")
    s3_secret_access_key: str = _of("", "its secret")
    kuberay: str = _of("1.7", "the operator's version, the chart's `kuberay.version`")
    fault_tolerance: str = _of(
        "embedded",
        "`embedded` (KubeRay 1.7 with its gate), or `none`: then the head's loss is felt",
    )
    helm: str = _of(
        "",
        "a `helm` program, or `3` or `4` for the one that `make` fetched; empty: of PATH, else 4",
    )
    head_cpu: str = _of("100m", "CPU that a head pod requests")
    worker_cpu: str = _of("200m", "CPU that a worker pod requests")
    serving_head_memory: str = _of("1600Mi", "memory of the endpoint's head pod")
    tuning_head_memory: str = _of("1700Mi", "memory of a search's head pod")
    serving_worker_memory: str = _of("1150Mi", "memory of the endpoint's worker pods")
    tuning_worker_memory: str = _of("1400Mi", "memory of a search's worker pod")
    values: str = _of("", "a further values file for the chart; it wins")
    patience: str = _of("1", "factor on all time limits, such as `2` for a slow cluster")
    keep: str = _of("", "anything: leave all in place when a test has failed")

    def limit_s(self, seconds: float) -> float:
        """A time limit on this cluster."""
        return seconds * float(self.patience)


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of an environment.

    Raises:
        UserError: a variable that nobody reads, or values that contradict each other.
    """
    names = {variable(each.name): each.name for each in dataclasses.fields(Settings)}
    given = {name: text for name, text in environment.items() if name.startswith(PREFIX)}
    for name in given:
        if name not in names:
            near = "".join(difflib.get_close_matches(name, names, n=1))
            meant = f"; did you mean {near}" if near else ""
            raise errors.UserError(f"{name}: must be a variable of tests/e2e/README.md{meant}")
    chosen = Settings(**{names[name]: text for name, text in given.items() if text})
    _check(chosen)
    return chosen


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def described() -> list[str]:
    """A row of the README's table for each variable."""
    return [
        f"| `{variable(each.name)}` | {f'`{each.default}`' if each.default else ''} "
        f"| {each.metadata['meaning']} |"
        for each in dataclasses.fields(Settings)
    ]


def _check(chosen: Settings) -> None:
    keys = (chosen.s3_access_key_id, chosen.s3_secret_access_key)
    if chosen.s3_uri and not all(keys):
        raise errors.UserError(
            f"{PREFIX}S3_URI: needs {PREFIX}S3_ACCESS_KEY_ID and {PREFIX}S3_SECRET_ACCESS_KEY, "
            "since this machine sends the experiment there"
        )
    if chosen.fault_tolerance not in ("embedded", "none"):
        raise errors.UserError(
            f"{PREFIX}FAULT_TOLERANCE: must be embedded or none, but got {chosen.fault_tolerance}"
        )
    if chosen.fault_tolerance == "embedded" and chosen.kuberay in ("1.4", "1.5", "1.6"):
        raise errors.UserError(
            f"{PREFIX}FAULT_TOLERANCE: embedded needs KubeRay 1.7, but {PREFIX}KUBERAY is "
            f"{chosen.kuberay}; set {PREFIX}FAULT_TOLERANCE=none"
        )
    if chosen.values and not Path(chosen.values).is_file():
        raise errors.UserError(f"{PREFIX}VALUES: must be a file, but got {chosen.values}")
    if not re.fullmatch(r"\d+(\.\d+)?", chosen.patience) or float(chosen.patience) <= 0:
        raise errors.UserError(f"{PREFIX}PATIENCE: must be a number, but got {chosen.patience}")


def storage(chosen: Settings, stamp: str) -> str:
    """Where models are; in a bucket of yours below a prefix that no run before this one used."""
    return f"{chosen.s3_uri.rstrip('/')}/e2e-{stamp}" if chosen.s3_uri else "s3://models"


def values(chosen: Settings, uri: str) -> dict[str, Any]:
    """The two values that are required, and sizes that a small cluster has room for."""
    made = merged(_small(chosen), _image(chosen))
    made |= {"model": {"name": MODEL}, "storage": {"uri": uri}}
    made["kuberay"] = {"version": chosen.kuberay}
    made = merged(made, _own_store(chosen) if chosen.s3_uri else _embedded(chosen))
    further = _further(chosen.values) if chosen.values else {}
    return merged(made, further)


def _further(file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path(file).read_text()) or {}
    return found


def _small(chosen: Settings) -> dict[str, Any]:
    """Two of these clusters at once, during an upgrade, leave room in 4 CPUs and 8 GB."""
    head = {"cpus": 1, "cpuRequest": chosen.head_cpu}
    worker = {"cpus": 1, "cpuRequest": chosen.worker_cpu}
    trials = {**worker, "memory": chosen.tuning_worker_memory}
    return {
        "ray": {
            "autoscaler": {"cpu": "100m", "memory": "300Mi", "idleSeconds": 20},
            "faultTolerance": {
                "embedded": chosen.fault_tolerance == "embedded",
                "storageClassName": chosen.storage_class,
            },
        },
        "serving": {
            "grpc": {"enabled": True},
            "replicas": {
                "min": 1,
                "max": 2,
                "targetOngoing": 2,
                "upscaleDelaySeconds": 2,
                "downscaleDelaySeconds": 10,
            },
            "head": {**head, "memory": chosen.serving_head_memory},
            "workers": {**worker, "memory": chosen.serving_worker_memory, "min": 1, "max": 2},
            "upgradeStrategy": {"deletionDelaySeconds": 20},
        },
        "tuning": {
            "head": {**head, "memory": chosen.tuning_head_memory},
            "workers": [{**trials, "name": "cpu", "min": 1, "max": 1}],
        },
        "runs": {"retries": 1, "keepSeconds": 5},
    }


def _image(chosen: Settings) -> dict[str, Any]:
    pull: dict[str, Any] = {"pullPolicy": chosen.pull_policy}
    if chosen.pull_secret:
        pull |= {"pullSecrets": [chosen.pull_secret]}
    if not chosen.image:
        return {"image": pull}
    whole, _, digest = chosen.image.partition("@")
    repository, colon, tag = whole.rpartition(":")
    if not colon or "/" in tag:  # no tag: the colon was of a registry's port, or there was none
        repository, tag = whole, ""
    named = {"repository": repository, "tag": tag, "digest": digest}
    return {"image": {**pull, **{key: text for key, text in named.items() if text}}}


def _embedded(chosen: Settings) -> dict[str, Any]:
    store = {"embedded": True, "size": "1Gi", "cpuRequest": "50m", "memory": "400Mi"}
    store |= {"keepData": False, "storageClassName": chosen.storage_class}
    return {"objectStore": store}


def _own_store(chosen: Settings) -> dict[str, Any]:
    own = {"endpoint": chosen.s3_endpoint, "region": chosen.s3_region, "existingSecret": SECRET}
    return {"storage": own}
