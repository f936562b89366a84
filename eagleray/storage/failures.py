"""What an S3 endpoint says, or fails to say, as an error that names endpoint, bucket and key."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from s3transfer.exceptions import RetriesExceededError

from eagleray import errors

_DENIED = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_FULL = {
    "InsufficientStorage",
    "InsufficientStorageCapacity",
    "QuotaExceeded",
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
}
_RESERVE = 64 << 20  # bytes; with less than a volume left SeaweedFS begins to refuse writes
_AMAZON = "amazonaws.com"


@dataclass(frozen=True)
class Place:
    """Where it happened."""

    endpoint: str
    bucket: str

    def says(self, key: str, what: str) -> str:
        """Compose the one line for people."""
        return f"{self.endpoint}: bucket {self.bucket!r}: key {key!r}: {what}"


def from_answer(place: Place, key: str, error: ClientError) -> errors.StorageError:
    """Turn an answer that is an error into ours."""
    code, status = code_of(error), status_of(error)
    what = f"{code}: {error.response['Error'].get('Message', '')}".strip(": ")
    if code == "NoSuchBucket":
        what = f"there is no such bucket{_unnamed(place)}"
        return errors.BucketNotFoundError(place.says(key, what))
    if status == 404:
        return errors.ObjectNotFoundError(place.says(key, "there is no such object"))
    if status == 412:
        return errors.ObjectChangedError(place.says(key, "changed while it was read"))
    if code in _DENIED or status in (401, 403):
        return errors.AccessDeniedError(place.says(key, what + _unnamed(place)))
    if code in _FULL or status == 507 or (status >= 500 and _disk_is_full(place.endpoint)):
        return errors.StorageFullError(place.says(key, f"no room left: {what}"))
    if status >= 500 or status == 429:
        return errors.StorageUnavailableError(
            place.says(key, f"still failing when repeated: {what}")
        )
    return errors.StorageError(place.says(key, what))


def from_silence(place: Place, key: str, error: BaseException) -> errors.StorageError:
    """Turn the lack of a whole answer into ours."""
    if isinstance(error, RetriesExceededError):
        error = error.last_exception
    if isinstance(error, NoCredentialsError):
        what = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return errors.AccessDeniedError(place.says(key, what + _unnamed(place)))
    what = "was cut in the middle"
    if isinstance(error, ReadTimeoutError | ConnectTimeoutError):
        what = "hung"
    elif isinstance(error, EndpointConnectionError):
        what = "could not be made"
    return errors.StorageUnavailableError(
        place.says(key, f"the connection {what}, also when repeated: {error}")
    )


def from_disk(place: Place, key: str, error: OSError) -> errors.StorageError:
    """Turn a failure to write the local side of a download into ours."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    kind = errors.StorageFullError if full else errors.StorageError
    return kind(place.says(key, f"on this machine: {error}"))


def code_of(error: ClientError) -> str:
    """Give the S3 error code, or the HTTP status where an answer has no body."""
    return error.response["Error"].get("Code", "")


def status_of(error: ClientError) -> int:
    """Give the HTTP status."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def _unnamed(place: Place) -> str:
    """Where the embedded server was looked for, where Amazon's is asked for lack of another."""
    if _AMAZON not in place.endpoint or "AWS_ENDPOINT_URL_S3" in os.environ:
        return ""
    from eagleray.storage import server

    return f"; {server.looked()}"


def _disk_is_full(endpoint: str) -> bool:
    """Tell whether the embedded server answers there and its disk is full.

    SeaweedFS 4.48 answers a full disk with a plain 500 InternalError.
    """
    from eagleray.storage import server

    running = server.status()
    if running is None or running.endpoint != endpoint:
        return False
    disk = shutil.disk_usage(running.folder)
    return disk.free < max(_RESERVE, disk.total // 50)
