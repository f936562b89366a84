"""Objects in an S3 bucket, on any endpoint, by boto3.

botocore repeats a request that fails, with jitter and time limits. A conditional write may not just
be repeated: if only its answer was lost, the next attempt finds the object of the first and is
refused. So each such write puts a random `writer` into the object's metadata, and a writer that is
refused but finds its own mark has won.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypedDict

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from eagleray import errors
from eagleray.storage import Entry, Sink, checked, failures, parts, server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CONNECTIONS = 64


@dataclass(frozen=True)
class Patience:
    """How often an operation is tried, and how long an attempt may be silent, in seconds."""

    attempts: int = 8
    connect_s: float = 5.0
    silence_s: float = 15.0


class Condition(TypedDict, total=False):
    """Conditional headers of a request, named as in boto3."""

    IfNoneMatch: str
    IfMatch: str


class Reading(Condition, total=False):
    """The headers of a read."""

    Range: str  # of bytes


class S3Storage:
    """The objects of one bucket whose keys lie below a prefix."""

    def __init__(
        self, client: Callable[[bool], S3Client], bucket: str, prefix: str, patience: Patience
    ) -> None:
        """`client` makes one that signs the bodies of requests, or does not."""
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._make, self._client = client, client(True)
        self._bucket = bucket
        self._below = f"{prefix}/" if prefix else ""
        self._attempts = patience.attempts

    @functools.cached_property
    def _sender(self) -> S3Client:
        """A client for large contents: their hash is verified when they are read."""
        return self._make(False)

    def get(self, key: str) -> bytes:
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        with self._errors(key):
            return self._read(key, Reading())

    def get_if_changed(self, key: str, etag: str | None) -> tuple[bytes, str] | None:
        with self._errors(key):
            try:
                return self._read(key, Reading(IfNoneMatch=_quoted(etag)) if etag else {})
            except ClientError as error:
                if failures.status_of(error) == 304:
                    return None
                raise

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        with self._errors(key):
            return self._read(key, Reading(Range=f"bytes={start}-{stop - 1}"))[0]

    def put(self, key: str, data: bytes) -> str:
        with self._errors(key):
            answer = self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data)
            return _bare(answer["ETag"])

    def put_if_absent(self, key: str, data: bytes) -> str:
        taken = errors.ObjectExistsError(self._message(key, "the key is taken"))
        return self._put_if(key, data, Condition(IfNoneMatch="*"), taken)

    def compare_and_swap(self, key: str, data: bytes, etag: str) -> str:
        changed = errors.ObjectChangedError(self._message(key, "changed since it was read"))
        return self._put_if(key, data, Condition(IfMatch=_quoted(etag)), changed)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        if prefix:
            checked(prefix.removesuffix("/"))
        pages = self._client.get_paginator("list_objects_v2")
        with self._errors(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._below + prefix):
                for found in page.get("Contents", []):
                    key, etag = found["Key"].removeprefix(self._below), _bare(found["ETag"])
                    yield Entry(key, found["Size"], etag, found["LastModified"])

    def delete(self, key: str) -> None:
        with self._errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def upload(self, key: str, source: io.BufferedIOBase) -> None:
        with self._errors(key):
            size = source.seek(0, io.SEEK_END)
            if size > parts.SIZE:
                parts.send(self._sender, self._place(key), source, size)
                return
            source.seek(0)
            self.put(key, source.read())

    def download(self, key: str, sink: Sink) -> None:
        with self._errors(key):
            parts.receive(self._client, self._place(key), sink, self._pauses)

    def discard(self, before: datetime, *, dry_run: bool = False) -> int:
        found, pages = 0, self._client.get_paginator("list_multipart_uploads")
        with self._errors(""):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._below):
                for one in page.get("Uploads", []):
                    if one["Initiated"] < before:
                        found += 1
                        if not dry_run:
                            self._client.abort_multipart_upload(
                                Bucket=self._bucket, Key=one["Key"], UploadId=one["UploadId"]
                            )
        return found

    def clock(self) -> datetime | None:
        with self._errors(""):
            try:
                answer = self._client.head_bucket(Bucket=self._bucket)
                headers = answer["ResponseMetadata"]["HTTPHeaders"]
            except ClientError as error:  # refused, perhaps for the difference of the clocks
                headers = error.response["ResponseMetadata"]["HTTPHeaders"]
        date = headers.get("date")
        return parsedate_to_datetime(date) if date else None

    def _read(self, key: str, condition: Reading) -> tuple[bytes, str]:
        """Read an object; repeat when the body breaks off, which botocore does not."""
        for pause in self._pauses():
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key), **condition)
            try:
                return answer["Body"].read(), _bare(answer["ETag"])
            except failures.INTERRUPTED:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last attempt answers or raises")

    def _put_if(
        self, key: str, data: bytes, condition: Condition, refusal: errors.StorageError
    ) -> str:
        """Write under a condition, else raise the refusal, or ObjectNotFoundError for no object."""
        path, writer = self._key(key), uuid.uuid4().hex
        with self._errors(key):
            for pause in self._pauses():
                try:
                    answer = self._client.put_object(
                        Bucket=self._bucket,
                        Key=path,
                        Body=data,
                        Metadata={"writer": writer},
                        **condition,
                    )
                    return _bare(answer["ETag"])
                except ClientError as error:
                    status = failures.status_of(error)
                    if status == 412 or failures.code_of(error) == "NoSuchKey":
                        break
                    if status != 409 or pause is None:  # 409: AWS has a write under way
                        raise
                time.sleep(pause)
            found = self._client.head_object(Bucket=self._bucket, Key=path)
        if found["Metadata"].get("writer") != writer:
            raise refusal
        return _bare(found["ETag"])

    def _pauses(self) -> Iterator[float | None]:
        """The pause after each attempt, below 0.1, 0.2, 0.4 … s; None after the last."""
        for attempt in range(self._attempts - 1):
            yield random.random() * 0.1 * 2**attempt  # noqa: S311 - jitter, not a secret
        yield None

    def _place(self, key: str) -> parts.Place:
        return {"Bucket": self._bucket, "Key": self._key(key)}

    def _key(self, key: str) -> str:
        return self._below + checked(key)

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn what boto3 raises into an error that names endpoint, bucket and key."""
        try:
            yield
        except failures.ERRORS as error:
            kind, what = failures.classify(error, self._client.meta.endpoint_url)
            raise kind(self._message(key, what)) from error

    def _message(self, key: str, what: str) -> str:
        return f"{self._client.meta.endpoint_url}: bucket {self._bucket!r}: key {key!r}: {what}"


def connect(bucket: str, prefix: str = "", patience: Patience | None = None) -> S3Storage:
    """Open a bucket with the settings of the environment, or else of the embedded server."""
    patience, embedded = patience or Patience(), server.default_environment()
    settings = {**os.environ, **embedded}
    endpoint = settings.get("AWS_ENDPOINT_URL_S3") or settings.get("AWS_ENDPOINT_URL")
    session = boto3.session.Session()

    def client(signs: bool) -> S3Client:
        try:
            return session.client(
                "s3",
                endpoint_url=endpoint,
                aws_access_key_id=embedded.get("AWS_ACCESS_KEY_ID"),
                aws_secret_access_key=embedded.get("AWS_SECRET_ACCESS_KEY"),
                region_name=settings.get("AWS_REGION") or settings.get("AWS_DEFAULT_REGION"),
                config=_config(patience, local=server.is_local(endpoint or ""), signs=signs),
            )
        except (BotoCoreError, ValueError) as error:
            law = "the AWS settings must be whole, but"
            raise errors.UserError(f"storage: {law} {error}") from error

    return S3Storage(client, bucket, prefix, patience)


def _config(patience: Patience, *, local: bool, signs: bool) -> Config:
    return Config(
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        connect_timeout=patience.connect_s,
        read_timeout=patience.silence_s,
        proxies={} if local else None,
        max_pool_connections=_CONNECTIONS,
        s3=None if signs else {"payload_signing_enabled": False},
        # the trailing checksums of newer SDKs are unknown to many S3-compatible servers
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def _quoted(etag: str) -> str:
    return f'"{etag}"'


def _bare(etag: str) -> str:
    return etag.strip('"')
