"""Objects in an S3 bucket, on any endpoint, by boto3.

botocore repeats an attempt that was refused, cut, timed out or answered with 5xx, after a pause
with jitter; each attempt has a limit for connecting and for silence. Repeating is harmless but in
one case: a conditional write that took place and whose answer was lost finds its own object when
it is repeated, and is refused. So each such write carries a random `writer` in the object's
metadata: whoever is refused looks whether the object bears its own mark, and then has won.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

import boto3.session
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from s3transfer.exceptions import RetriesExceededError

from eagleray import errors
from eagleray.storage import Entry, checked, failures, files

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_PART = 8 << 20  # bytes of a part of a parallel transfer
_THREADS = 8
_CONNECTIONS = 64
_SETTINGS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
)


@dataclass(frozen=True)
class Patience:
    """How often an operation is tried, and how long an attempt may be silent, in seconds."""

    attempts: int = 8
    connect_s: float = 5.0
    silence_s: float = 15.0


class Condition(TypedDict, total=False):
    """What must hold for a write to take place."""

    IfNoneMatch: str
    IfMatch: str


class S3Storage:
    """The objects of one bucket whose keys lie below a prefix."""

    def __init__(self, client: S3Client, bucket: str, prefix: str, patience: Patience) -> None:
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client = client
        self._bucket = bucket
        self._below = f"{prefix}/" if prefix else ""
        self._patience = patience
        self._place = failures.Place(client.meta.endpoint_url, bucket)
        self._transfer = TransferConfig(
            multipart_threshold=_PART,
            multipart_chunksize=_PART,
            max_concurrency=_THREADS,
            num_download_attempts=patience.attempts,
            preferred_transfer_client="classic",
        )

    def get(self, key: str) -> bytes:
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        with self._naming(key):
            return self._read(key, Condition())

    def get_if_changed(self, key: str, etag: str | None) -> tuple[bytes, str] | None:
        if etag is None:
            return self.get_tagged(key)
        with self._naming(key):
            try:
                return self._read(key, Condition(IfNoneMatch=_quoted(etag)))
            except ClientError as error:
                if failures.status_of(error) == 304:
                    return None
                raise

    def put(self, key: str, data: bytes) -> str:
        with self._naming(key):
            answer = self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data)
            return _bare(answer["ETag"])

    def put_if_absent(self, key: str, data: bytes) -> str:
        with self._naming(key):
            etag, _ = self._put_if(key, data, Condition(IfNoneMatch="*"))
        if etag is None:
            raise errors.ObjectExistsError(self._place.says(key, "the key is taken"))
        return etag

    def compare_and_swap(self, key: str, data: bytes, etag: str) -> str:
        with self._naming(key):
            swapped, found = self._put_if(key, data, Condition(IfMatch=_quoted(etag)))
        if swapped is not None:
            return swapped
        if not found:
            raise errors.ObjectNotFoundError(self._place.says(key, "there is no such object"))
        raise errors.ObjectChangedError(self._place.says(key, "changed since it was read"))

    def list(self, prefix: str = "") -> Iterator[Entry]:
        if prefix:
            checked(prefix.removesuffix("/"))
        pages = self._client.get_paginator("list_objects_v2")
        with self._naming(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._below + prefix):
                for found in page.get("Contents", []):
                    key, etag = found["Key"].removeprefix(self._below), _bare(found["ETag"])
                    yield Entry(key, found["Size"], etag, found["LastModified"])

    def delete(self, key: str) -> None:
        with self._naming(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def upload(self, key: str, path: Path) -> None:
        with path.open("rb") as source, self._naming(key):
            self._client.upload_fileobj(source, self._bucket, self._key(key), Config=self._transfer)

    def download(self, key: str, path: Path) -> None:
        with (
            self._naming(key),
            files.replacing(path) as unfinished,
            unfinished.open("wb") as sink,
        ):
            self._client.download_fileobj(self._bucket, self._key(key), sink, Config=self._transfer)

    def clock(self) -> datetime | None:
        """Also where we are refused, be it for the difference of our clocks."""
        with self._naming(""):
            try:
                answer = self._client.head_bucket(Bucket=self._bucket)
                headers = answer["ResponseMetadata"]["HTTPHeaders"]
            except ClientError as error:
                headers = error.response["ResponseMetadata"]["HTTPHeaders"]
        said = headers.get("date")
        return parsedate_to_datetime(said) if said else None

    def _read(self, key: str, condition: Condition) -> tuple[bytes, str]:
        """Read an object; botocore repeats the request, and this a body that breaks off."""
        for pause in self._pauses():
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key), **condition)
            try:
                return answer["Body"].read(), _bare(answer["ETag"])
            except (ReadTimeoutError, IncompleteReadError, ResponseStreamingError):
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last attempt answers or raises")

    def _put_if(self, key: str, data: bytes, condition: Condition) -> tuple[str | None, bool]:
        """Write under a condition: the etag, or None when refused; and whether there is an object.

        409 is what AWS answers while another conditional write to the key is under way.
        """
        writer = uuid.uuid4().hex
        for pause in self._pauses():
            try:
                answer = self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._key(key),
                    Body=data,
                    Metadata={"writer": writer},
                    **condition,
                )
                return _bare(answer["ETag"]), True
            except ClientError as error:
                refused = failures.status_of(error) == 412 or failures.code_of(error) == "NoSuchKey"
                if not refused and (failures.status_of(error) != 409 or pause is None):
                    raise
            if refused:
                break
            time.sleep(pause or 0)
        found = self._head(key)
        if found is not None and found["Metadata"].get("writer") == writer:
            return _bare(found["ETag"]), True
        return None, found is not None

    def _head(self, key: str) -> HeadObjectOutputTypeDef | None:
        try:
            return self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        except ClientError as error:
            if failures.status_of(error) == 404:
                return None
            raise

    def _pauses(self) -> Iterator[float | None]:
        """Give the pause after each attempt, below 0.1, 0.2, 0.4 … s; None after the last."""
        for attempt in range(self._patience.attempts - 1):
            yield random.random() * 0.1 * 2**attempt  # noqa: S311 - jitter, not a secret
        yield None

    def _key(self, key: str) -> str:
        return self._below + checked(key)

    @contextlib.contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise failures.from_answer(self._place, key, error) from error
        except (BotoCoreError, RetriesExceededError) as error:
            raise failures.from_silence(self._place, key, error) from error
        except OSError as error:
            raise failures.from_disk(self._place, key, error) from error


def connect(bucket: str, prefix: str = "", patience: Patience | None = None) -> S3Storage:
    """Open a bucket with what the environment says, or else the embedded server's settings."""
    patience = patience or Patience()
    try:
        client = _client(patience, _settings())
    except (BotoCoreError, ValueError) as error:
        raise errors.UserError(f"storage: the AWS settings must be whole, but {error}") from error
    return S3Storage(client, bucket, prefix, patience)


def create_bucket(name: str, environment: dict[str, str]) -> None:
    """Create a bucket unless it exists, trying once; `environment` has the AWS variables."""
    client = _client(Patience(attempts=1), environment)
    place = failures.Place(client.meta.endpoint_url, name)
    try:
        client.create_bucket(Bucket=name)
    except client.exceptions.BucketAlreadyOwnedByYou:
        return
    except ClientError as error:
        raise failures.from_answer(place, "", error) from error
    except BotoCoreError as error:
        raise failures.from_silence(place, "", error) from error


def _client(patience: Patience, settings: dict[str, str]) -> S3Client:
    endpoint = (
        settings.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=settings.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=settings.get("AWS_SECRET_ACCESS_KEY"),
        region_name=settings.get("AWS_REGION"),
        config=Config(
            retries={"mode": "standard", "total_max_attempts": patience.attempts},
            connect_timeout=patience.connect_s,
            read_timeout=patience.silence_s,
            proxies={} if _on_this_machine(endpoint) else None,
            max_pool_connections=_CONNECTIONS,
            # the trailing checksums of newer SDKs are unknown to many S3-compatible servers
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _settings() -> dict[str, str]:
    """Give what boto3 does not find by itself: a region, or the whole embedded server."""
    from eagleray.storage import server

    if not any(name in os.environ for name in _SETTINGS):
        running = server.status()
        if running is not None:
            return server.environment(running)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return {"AWS_REGION": region} if region else {}


def _on_this_machine(endpoint: str | None) -> bool:
    return endpoint is not None and urlsplit(endpoint).hostname in ("127.0.0.1", "::1", "localhost")


def _quoted(etag: str) -> str:
    return f'"{etag}"'


def _bare(etag: str) -> str:
    return etag.strip('"')
