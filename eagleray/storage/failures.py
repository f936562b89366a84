"""Errors of boto3, as errors and messages of EagleRay."""

import os
import shutil

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from eagleray import errors
from eagleray.storage import files, server

ERRORS = (ClientError, BotoCoreError, OSError)
"""What boto3 raises; an OSError comes from this machine's side of a transfer."""
INTERRUPTED = (ReadTimeoutError, IncompleteReadError, ResponseStreamingError)
"""Errors of a response that breaks off; botocore does not retry these."""

_DENIED = {"ExpiredToken", "InvalidToken"}  # have status 400
_FULL = {"InsufficientStorageCapacity", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}
_RESERVE = 64 << 20  # bytes; with less than a volume left SeaweedFS begins to refuse writes
_AMAZON = "amazonaws.com"

Failure = tuple[type[errors.StorageError], str]


def classify(error: BaseException, endpoint: str) -> Failure:
    """The class of the error to raise for one of `ERRORS`, and its message."""
    if isinstance(error, ClientError):
        return _answered(error, endpoint)
    if isinstance(error, NoCredentialsError):
        what = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return errors.AccessDeniedError, what + _hint(endpoint)
    if isinstance(error, BotoCoreError):
        return _unanswered(error)
    full = isinstance(error, OSError) and error.errno in files.FULL
    return errors.StorageFullError if full else errors.StorageError, f"on this machine: {error}"


def code_of(error: ClientError) -> str:
    """The S3 error code, or the HTTP status where an answer has no body."""
    return error.response["Error"].get("Code", "")


def status_of(error: ClientError) -> int:
    """The HTTP status."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def _answered(error: ClientError, endpoint: str) -> Failure:
    code, status = code_of(error), status_of(error)
    what = f"{code}: {error.response['Error'].get('Message', '')}".strip(": ")
    if code == "NoSuchBucket":
        return errors.BucketNotFoundError, "there is no such bucket" + _hint(endpoint)
    if status == 404:
        return errors.ObjectNotFoundError, "there is no such object"
    if status == 412:
        return errors.ObjectChangedError, "changed while it was read"
    if code in _FULL or status == 507 or (status >= 500 and _is_disk_full(endpoint)):
        return errors.StorageFullError, f"no room left: {what}"
    if code in _DENIED or status in (401, 403):
        return errors.AccessDeniedError, what + _hint(endpoint)
    if status >= 500 or status == 429:
        return errors.StorageUnavailableError, f"still failing after retries: {what}"
    return errors.StorageError, what


def _unanswered(error: BaseException) -> Failure:
    what = "broke"
    if isinstance(error, ReadTimeoutError | ConnectTimeoutError):
        what = "hung"
    elif isinstance(error, EndpointConnectionError):
        what = "failed"
    return errors.StorageUnavailableError, f"the connection {what}, also after retries: {error}"


def _hint(endpoint: str) -> str:
    """How to start a local server, if Amazon was asked only because no endpoint is set."""
    asked = _AMAZON in endpoint and "AWS_ENDPOINT_URL_S3" not in os.environ
    return f"; {server.not_running()}" if asked else ""


def _is_disk_full(endpoint: str) -> bool:
    """Whether the embedded server's disk is full; SeaweedFS 4.48 just answers 500 InternalError."""
    running = server.status()
    if running is None or running.endpoint != endpoint:
        return False
    disk = shutil.disk_usage(running.folder)
    return disk.free < max(_RESERVE, disk.total // 50)
