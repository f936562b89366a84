"""The `helm` program, version 3 or 4: found on PATH, run in one namespace, its errors explained.

Their flags differ: https://helm.sh/docs/helm/helm_upgrade, https://v3.helm.sh/docs/helm/helm_upgrade.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

from eagleray import errors

OLDEST = (3, 14)
"""The first version with `--reset-then-reuse-values`."""
INSTALL = (
    "install it: https://helm.sh/docs/intro/install (brew install helm, or: curl -fsSL "
    "https://raw.githubusercontent.com/helm/helm/main/scripts/get-helm-4 | bash)"
)
VERSION_S = 20
"""Time limit in seconds for `helm version`, which contacts no cluster."""

_CONFLICT = re.compile(r"applying object (?:\S+/)?(\S+) \S+ Kind=(\w+): Apply failed")
_FIELD = re.compile(r" (\.(?:[\w-]|\[[^\]]*\]|\.)*\w)")
_BUSY = r"another operation|still in use|sh\.helm\.release\S+ already exists"
_FAILURES = (
    (r"release: not found$", errors.NotFoundError, "{space}: {text}"),
    (_BUSY, errors.ConflictError, "{space}: somebody else changes the release now: {text}"),
    (r"unreachable|connection refused", errors.ClusterError, "Kubernetes does not answer: {text}"),
    (
        r"deadline exceeded|timed out",
        errors.ClusterError,
        "{space}: must take the change in time, but did not, and it was undone: {text}; repeat it, "
        "and watch meanwhile: eagleray why, kubectl -n {namespace} get pods",
    ),
)
_MISTAKES = {
    r'cannot (\w+) resource "([\w/]+)"': "{space}: the right to {0} {1} is missing; who deploys "
    "needs the role admin there, and all rights on ray.io",
    r"execution error at \([^)]*\): (.*)": "values: {0}",
    r"meet the specifications of the schema.*?eagleray: (?:- )?(.*)": "values: must keep to the "
    "chart's schema, but {0}; see helm/eagleray/README.md",
    r"failed parsing (--\S+) data: (.*)": "{0}: must be key=value, but {1}",
    r"^(?:failed to parse|open) (\S+?):? (.*)": "--values {0}: must be a file of YAML, but {1}",
    r"(?i)release name (?:is )?invalid|invalid release name": "RELEASE: must be at most 53 of a-z, "
    "0-9, '-' and '.', with a letter or digit at both ends, but {text}",
    r'namespaces "([^"]*)" not found': "{space}: must exist, but does not; make it: kubectl create "
    "namespace {0}",
    r"denied|invalid|exceeded quota|cannot be im|forbidden|field is immutable": "{space}: {text}",
}
"""Patterns of Helm's messages, and the UserError for each; the first match counts."""

Record = Mapping[str, Any]
"""The latest revision of a release as `helm get metadata` prints it: chart, revision, status, …."""


class Helm:
    """The program on PATH, for one namespace; UserError if it is missing or too old."""

    def __init__(self, namespace: str) -> None:
        self.namespace, self._program = namespace, shutil.which("helm") or "helm"
        self.version = _version(self._program)

    def record(self, release: str) -> Record | None:
        """Helm's record of a release; None when there is no such release."""
        try:
            found: Record = json.loads(self.run("get", "metadata", release, "--output", "json"))
        except errors.NotFoundError:
            return None
        return found

    def atomic(self, limit_s: int) -> list[str]:
        """The flags that undo a change unless the store and volumes come up in time."""
        # without `legacy` Helm 4 also waits for Ray's objects, which may wait for a first model
        undo = ["--atomic"] if self.version < (4,) else ["--rollback-on-failure", "--wait=legacy"]
        return [*undo, "--timeout", f"{limit_s}s"]

    def forcing(self, record: Record | None) -> list[str]:
        """The flag that takes fields over from others; Helm 3 and its releases know no owners."""
        owned = self.version >= (4,) and (record is None or record.get("applyMethod") == "ssa")
        return ["--force-conflicts"] if owned else []

    def run(self, *words: str) -> str:
        """Run the program; return its output or raise its error. Awaits its end after Ctrl-C."""
        # HELM_KUBE… may select another cluster than the one that this process uses
        allowed = {key: os.environ[key] for key in os.environ if not key.startswith("HELM_KUBE")}
        with subprocess.Popen(  # noqa: S603 (no shell, and the program is helm)
            [self._program, "--namespace", self.namespace, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=allowed,
        ) as process:
            out, log = _attended(process)
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            raise errors.ClusterError(f"helm {words[0]}: must end by itself, but got {name}")
        if process.returncode:  # warnings come first
            raise explained(" ".join(log.rpartition("Error: ")[2].split()), self.namespace)
        return out


def explained(text: str, namespace: str) -> errors.EagleRayError:
    """Helm's message as an error of one line."""
    space = f"namespace {namespace}"
    if taken := conflict(text):
        return errors.ConflictError(f"{space}: {taken}; take it over once: --force-conflicts")
    mistakes = ((pattern, errors.UserError, law) for pattern, law in _MISTAKES.items())
    for pattern, kind, law in (*_FAILURES, *mistakes):
        if found := re.search(pattern, text):
            return kind(law.format(*found.groups(), text=text, space=space, namespace=namespace))
    return errors.ClusterError(f"{space}: {text}")


def busy(text: str) -> bool:
    """Whether Helm did nothing, because somebody else changes the release now."""
    return re.search(_BUSY, text) is not None


def conflict(text: str) -> str | None:
    """The object and fields that others own, by Helm 4's error or a revision's description."""
    found = _CONFLICT.search(text)
    if not found:
        return None
    managers = dict.fromkeys(re.findall(r'conflicts? with "([^"]+)"', text))
    fields = dict.fromkeys(_FIELD.findall(text))
    return f"{found[2]} {found[1]}: {', '.join(fields)} is set by {', '.join(managers)}"


def _attended(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate()
    except KeyboardInterrupt:  # Helm obeys the first one only, ours or the terminal's
        process.send_signal(signal.SIGINT)
        _attended(process)
        raise


def _version(program: str) -> tuple[int, ...]:
    words = [program, "version", "--template", "{{.Version}}"]
    try:
        text = subprocess.run(  # noqa: S603
            words, capture_output=True, text=True, check=False, timeout=VERSION_S
        ).stdout.strip()
    except FileNotFoundError:
        text = "not on PATH"
    except (OSError, subprocess.TimeoutExpired) as cause:
        text = str(cause)
    numbers = re.match(r"v(\d+)\.(\d+)", text)
    version = tuple(map(int, numbers.groups())) if numbers else ()
    if version < OLDEST:
        raise errors.UserError(
            f"deploy: needs helm 3.14 or newer, but {program} is {text[:80] or 'silent'}; {INSTALL}"
        )
    return version
