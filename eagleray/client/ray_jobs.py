"""Runs on any Ray cluster, through the job server of its dashboard.

An attempt is a Ray job whose submission id is the attempt's id. The server takes each id once.
https://docs.ray.io/en/latest/cluster/running-applications/job-submission/
"""

import datetime
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from ray import exceptions, job_submission

from eagleray import errors, process, ray_compat
from eagleray.client import runs, tracking
from eagleray.client.runs import Attempt, State
from eagleray.spec import document
from eagleray.state.runs import Run
from eagleray.storage import server

PASSED = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
"""Variables passed to the driver; none names a file of this machine."""
POLL_S = 0.5
STOP_S = 60.0
_STATES: dict[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


class RayJobs:
    """Ray's job server at `http://head:8265`; UserError if it is silent or refuses the token."""

    def __init__(self, address: str) -> None:
        self.address, self.options = address, f"--address {address}"
        with self._naming(errors.UserError), process.variables({ray_compat.ADDRESS: address}):
            self._client = job_submission.JobSubmissionClient(address)

    def attempts(self) -> Sequence[Attempt]:
        with self._naming():
            jobs = self._client.list_jobs()
        return [_attempt(job) for job in jobs if (job.metadata or {}).get("eagleray_run")]

    def most(self) -> None:
        """Unknown: the driver asks the cluster."""

    def plan(self, run: Run, number: int) -> str:
        hidden = dict.fromkeys(environment(self.address, run), "(hidden)")
        return document.write(_job(run, number) | {"runtime_env": {"env_vars": hidden}})

    def start(self, run: Run, number: int) -> None:
        settings, job = environment(self.address, run), _job(run, number)
        try:
            with self._naming():
                self._client.submit_job(**job, runtime_env={"env_vars": settings})
        except errors.ClusterError as cause:
            if "already exists" in str(cause):
                raise errors.ConflictError(f"{job['submission_id']}: exists already") from cause
            raise

    def log(self, attempt: Attempt, *, follow: bool) -> Iterator[str]:
        printed = 0
        while True:
            with self._naming():
                state = self._client.get_job_status(attempt.id)
                text = "" if state == "PENDING" else self._client.get_job_logs(attempt.id)
            yield text[printed:]
            printed = len(text)
            if state.is_terminal() or not follow:
                return
            time.sleep(POLL_S)

    def stop(self, attempt: Attempt) -> None:
        """Ask the driver to end, and wait until it has; Ray kills it after some seconds."""
        until = time.monotonic() + STOP_S
        with self._naming():
            self._client.stop_job(attempt.id)
            while not self._client.get_job_status(attempt.id).is_terminal():
                if time.monotonic() > until:
                    raise RuntimeError(f"{attempt.id} must have stopped in {STOP_S:g} s")
                time.sleep(POLL_S)

    @contextmanager
    def _naming(self, absent: type[errors.EagleRayError] = errors.ClusterError) -> Iterator[None]:
        """Name the address in errors of the block; raise `absent` if nothing answers there."""
        try:
            yield
        except exceptions.AuthenticationError as cause:
            absent_token = re.search(r"Authentication required|(?i:no token)", str(cause))
            law = "asks for a token" if absent_token else "does not accept this token"
            raise errors.UserError(
                f"--address {self.address}: {law}; set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            ) from cause
        except (ConnectionError, requests.ConnectionError) as cause:
            raise absent(
                f"--address {self.address}: must be a Ray dashboard that answers, but it does not; "
                "a run already submitted continues on the cluster"
            ) from cause
        except (RuntimeError, ValueError, requests.RequestException) as cause:
            raise errors.ClusterError(f"Ray at {self.address}: {cause}") from cause


def environment(address: str, run: Run) -> dict[str, str]:
    """Variables that lead the driver to storage, and to MLflow if that is used.

    UserError if only this machine reaches storage.
    """
    known = server.default_environment() or os.environ
    settings = {name: known[name] for name in PASSED if known.get(name)}
    settings |= {name: os.environ[name] for name in tracking.PASSED if os.environ.get(name)}
    endpoint = settings.get("AWS_ENDPOINT_URL_S3") or settings.get("AWS_ENDPOINT_URL") or ""
    local = server.is_local(endpoint) and not server.is_local(address)
    if local and run.storage.startswith("s3://"):
        raise errors.UserError(
            f"storage: must be reachable from {address}, but {endpoint} is on this machine alone"
        )
    return settings


def _job(run: Run, number: int) -> dict[str, Any]:
    return {
        "submission_id": runs.attempt_id(run, number),
        "entrypoint": runs.entrypoint(run),
        "metadata": {
            "eagleray_name": run.name,
            "eagleray_run": run.id,
            "eagleray_attempt": str(number),
            "eagleray_storage": run.storage,
        },
    }


def _attempt(job: job_submission.JobDetails) -> Attempt:
    facts = job.metadata or {}
    began = datetime.datetime.fromtimestamp((job.start_time or 0) / 1000, datetime.UTC)
    message = (job.message or "").splitlines()
    return Attempt(
        id=job.submission_id or "",
        name=facts["eagleray_name"],
        run=facts["eagleray_run"],
        number=int(facts["eagleray_attempt"]),
        state=_STATES[str(job.status)],
        why=message[0].partition(", last available logs")[0] if message else "",
        started=began.isoformat(timespec="milliseconds") if job.start_time else "",
        exit_code=job.driver_exit_code,
        storage=facts.get("eagleray_storage", ""),
    )
