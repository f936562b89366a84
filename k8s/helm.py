"""The `helm` program, version 3 or 4: found, run in one namespace, and its errors in one line.

Their flags differ: https://helm.sh/docs/helm/helm_upgrade, https://v3.helm.sh/docs/helm/helm_upgrade.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from eagleray import errors

OLDEST = (3, 14)
"""The first that knows `--reset-then-reuse-values`."""
INSTALL = (
    "install it: https://helm.sh/docs/intro/install (brew install helm, or: curl -fsSL "
    "https://raw.githubusercontent.com/helm/helm/main/scripts/get-helm-4 | bash)"
)
ASIDE_S = 20
"""Longest time to tell the version: no cluster is asked."""

_CONFLICT = re.compile(r"applying object (?:\S+/)?(\S+) \S+ Kind=(\w+): Apply failed")
_FIELD = re.compile(r" (\.(?:[\w-]|\[[^\]]*\]|\.)*\w)")
_FORBIDDEN = re.compile(r'cannot (\w+) resource "([\w/]+)"')
_VALUES = re.compile(r"execution error at \([^)]*\): (.*)")
_SCHEMA = re.compile(r"meet the specifications of the schema.*?eagleray: (?:- )?(.*)")
_NAME = re.compile(r"release name (?:is )?invalid|invalid release name", re.IGNORECASE)
_PARSE = re.compile(r"failed parsing (--\S+) data: (.*)")
_FILE = re.compile(r"^(?:failed to parse|open) (\S+?):? (.*)")
_BUSY = re.compile(r"another operation|still in use|sh\.helm\.release\S+ already exists")
_REFUSED = (
    "denied",
    "invalid",
    "exceeded quota",
    "cannot be im",
    "forbidden",
    "field is immutable",
)


@dataclass(frozen=True)
class Record:
    """What Helm keeps of a release's latest revision.

    Attributes:
        chart: name of its chart.
        revision: how often it was installed or changed.
        status: `deployed`, `failed`, `pending-upgrade` and others.
        server_side: whether Helm applies it server-side, and so owns fields.
    """

    chart: str
    revision: int
    status: str
    server_side: bool


@dataclass(frozen=True)
class Conflict:
    """Fields of an object that somebody else owns, so that Helm 4 does not change them."""

    thing: str
    managers: Sequence[str]
    fields: Sequence[str]

    def __str__(self) -> str:
        return f"{self.thing}: {', '.join(self.fields)} is set by {', '.join(self.managers)}"


class Helm:
    """The program on PATH, for one namespace.

    Raises:
        UserError: there is none, or it is too old.
    """

    def __init__(self, namespace: str) -> None:
        found = shutil.which("helm")
        if found is None:
            raise errors.UserError(f"deploy: needs the helm program, but PATH has none; {INSTALL}")
        self.namespace, self._program = namespace, found
        self.version = _version(found)
        if self.version < OLDEST:
            raise errors.UserError(
                f"deploy: needs helm {_dotted(OLDEST)} or newer, but {found} is "
                f"{_dotted(self.version)}; {INSTALL}"
            )

    def record(self, release: str) -> Record | None:
        """Return Helm's record of a release; None when there is no such release."""
        try:
            found = json.loads(self.run("get", "metadata", release, "--output", "json"))
        except errors.NotFoundError:
            return None
        server_side = found.get("applyMethod") == "ssa"
        return Record(found["chart"], found["revision"], found["status"], server_side)

    def atomic(self, limit_s: int) -> list[str]:
        """The flags that undo what fails, once the store and volumes had their time to come up.

        By itself Helm 4 would also wait for Ray's objects, which may wait for a first model.
        """
        undo = ["--atomic"] if self.version < (4,) else ["--rollback-on-failure", "--wait=legacy"]
        return [*undo, "--timeout", f"{limit_s}s"]

    def forcing(self, record: Record | None) -> list[str]:
        """The flag that takes fields over from others; only Helm 4 knows owners, not of all."""
        known = self.version >= (4,) and (record is None or record.server_side)
        return ["--force-conflicts"] if known else []

    def run(self, *words: str) -> str:
        """What the program prints; Ctrl-C is handed on, and what it undoes then is waited for.

        Raises:
            EagleRayError: it failed; its last words, in one line.
        """
        command = [self._program, "--namespace", self.namespace, *words]
        with subprocess.Popen(  # noqa: S603 (no shell, and the program is helm)
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
        ) as process:
            out, said = _attended(process)
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            raise errors.ClusterError(f"helm {words[0]}: must end by itself, but got {name}")
        if process.returncode:
            raise explained(_error(said), self.namespace)
        return out


def explained(said: str, namespace: str) -> errors.EagleRayError:
    """Helm's message as an error of one line."""
    space = f"namespace {namespace}"
    if said.endswith("release: not found"):
        return errors.NotFoundError(f"{space}: {said}")
    if taken := conflict(said):
        return errors.ConflictError(f"{space}: {taken}; take it over once: --force-conflicts")
    if busy(said):
        return errors.ConflictError(f"{space}: somebody else changes the release now: {said}")
    if forbidden := _FORBIDDEN.search(said):
        verb, resource = forbidden.groups()
        return errors.UserError(
            f"{space}: the right to {verb} {resource} is missing; who deploys needs the role "
            f"admin there, and all rights on ray.io"
        )
    if "unreachable" in said or "connection refused" in said:
        return errors.ClusterError(f"Kubernetes: does not answer: {said}")
    if mistake := _mistake(said):
        return errors.UserError(mistake)
    if re.search(r'namespaces "[^"]*" not found', said):
        return errors.UserError(
            f"{space}: must exist, but does not; make it: kubectl create namespace {namespace}"
        )
    if "deadline exceeded" in said or "timed out" in said:
        return errors.ClusterError(
            f"{space}: must take the change in time, but did not, and it was undone: {said}; do it "
            f"again, and look meanwhile: eagleray why, kubectl -n {namespace} get pods"
        )
    refused = any(word in said for word in _REFUSED)
    return (errors.UserError if refused else errors.ClusterError)(f"{space}: {said}")


def busy(said: str) -> bool:
    """Whether somebody else changes the release at the same time, so that Helm did nothing."""
    return _BUSY.search(said) is not None


def conflict(said: str) -> Conflict | None:
    """The fields that others own, by what Helm 4 says, or keeps as a revision's description."""
    found = _CONFLICT.search(said)
    if not found:
        return None
    managers = re.findall(r'conflicts? with "([^"]+)"', said)
    return Conflict(
        f"{found[2]} {found[1]}", [*dict.fromkeys(managers)], [*dict.fromkeys(_FIELD.findall(said))]
    )


def _mistake(said: str) -> str | None:
    """What is wrong with the values, the release's name or the options."""
    if found := _VALUES.search(said):
        return f"values: {found[1]}"
    if found := _SCHEMA.search(said):
        return (
            f"values: must keep to the chart's schema, but {found[1]}; see helm/eagleray/README.md"
        )
    if found := _PARSE.search(said):
        return f"{found[1]}: must be key=value, but {found[2]}"
    if found := _FILE.search(said):
        return f"--values {found[1]}: must be a file of YAML, but {found[2]}"
    if _NAME.search(said):
        return (
            "RELEASE: must be at most 53 of a-z, 0-9, '-' and '.', with a letter or digit at both "
            f"ends, but {said}"
        )
    return None


def _attended(process: subprocess.Popen[str]) -> tuple[str, str]:
    interrupted = False
    while True:
        try:
            out, said = process.communicate()
        except KeyboardInterrupt:  # Helm minds the first alone, whether from us or the terminal
            interrupted = True
            process.send_signal(signal.SIGINT)
            continue
        if interrupted:
            raise KeyboardInterrupt
        return out, said


def _error(said: str) -> str:
    """What Helm says after its warnings, in one line."""
    return " ".join(said.rpartition("Error: ")[2].split())


def _version(program: str) -> tuple[int, int]:
    words = [program, "version", "--template", "{{.Version}}"]
    try:
        told = subprocess.run(  # noqa: S603
            words, capture_output=True, text=True, check=False, timeout=ASIDE_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as cause:
        raise errors.UserError(
            f"{program}: must tell its version, but {cause}; {INSTALL}"
        ) from cause
    found = re.match(r"v(\d+)\.(\d+)", told)
    if not found:
        raise errors.UserError(
            f"{program}: must tell its version, but got {told.strip()[:80]!r}; {INSTALL}"
        )
    return int(found[1]), int(found[2])


def _environment() -> dict[str, str]:
    """Ours, without what would lead Helm to another cluster than the one we ask."""
    return {name: text for name, text in os.environ.items() if not name.startswith("HELM_KUBE")}


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
