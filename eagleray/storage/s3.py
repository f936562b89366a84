"""Objects in an S3 bucket, on any endpoint, by boto3.

botocore repeats a request that fails, with jitter and time limits. A conditional write may not just
be repeated: if only its answer was lost, the next attempt finds the object of the first and is
refused. So each such write puts a random `writer` into the object's metadata, and a writer that is
refused but finds its own mark has won.
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import random
import time
import uuid
from collections.abc import Generator, Iterator
from concurrent import futures
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, BinaryIO, TypedDict, cast

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

from eagleray import errors
from eagleray.storage import Entry, Sink, checked, failures, server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CONNECTIONS = 64
_PART = 8 << 20  # bytes of a part of a large object
_PARTS = 6  # of one transfer that are in memory
_INTERRUPTED = (ReadTimeoutError, IncompleteReadError, ResponseStreamingError)


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

    def __init__(self, client: S3Client, bucket: str, prefix: str, patience: Patience) -> None:
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client = client
        self._bucket = bucket
        self._below = f"{prefix}/" if prefix else ""
        self._attempts = patience.attempts
        self._transfer = TransferConfig(
            multipart_threshold=_PART,
            multipart_chunksize=_PART,
            preferred_transfer_client="classic",
        )
        self._transfer.max_in_memory_upload_chunks = _PARTS

    def get(self, key: str) -> bytes:
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        with self._errors(key):
            return self._read(key, Reading())[:2]

    def get_if_changed(self, key: str, etag: str | None) -> tuple[bytes, str] | None:
        with self._errors(key):
            try:
                return self._read(key, Reading(IfNoneMatch=_quoted(etag)) if etag else {})[:2]
            except ClientError as error:
                if failures.status_of(error) == 304:
                    return None
                raise

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
        stream = cast(BinaryIO, source)  # boto3's types know no narrower one
        with self._errors(key):
            self._client.upload_fileobj(stream, self._bucket, self._key(key), Config=self._transfer)

    def download(self, key: str, sink: Sink) -> None:
        with self._errors(key), contextlib.closing(self._parts(key)) as parts:
            for part in parts:
                sink.write(part)

    def clock(self) -> datetime | None:
        with self._errors(""):
            try:
                answer = self._client.head_bucket(Bucket=self._bucket)
                headers = answer["ResponseMetadata"]["HTTPHeaders"]
            except ClientError as error:  # refused, perhaps for the difference of the clocks
                headers = error.response["ResponseMetadata"]["HTTPHeaders"]
        date = headers.get("date")
        return parsedate_to_datetime(date) if date else None

    def _read(self, key: str, condition: Reading) -> tuple[bytes, str, str]:
        """Read an object, its etag and its `Content-Range`; repeat when the body breaks off."""
        for pause in self._pauses():
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key), **condition)
            try:
                data = answer["Body"].read()
                return data, _bare(answer["ETag"]), answer.get("ContentRange", "")
            except _INTERRUPTED:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last attempt answers or raises")

    def _parts(self, key: str) -> Generator[bytes]:
        """Yield the parts of an object in their order, while the next ones are read.

        s3transfer 0.19 does not do this: it waits for itself beyond ten parts of a plain stream.
        """
        try:
            first, etag, found = self._read(key, Reading(Range=_range(0)))
        except ClientError as error:
            if failures.status_of(error) == 416:  # an empty object has no first byte
                return
            raise
        yield first
        starts = range(_PART, int(found.rpartition("/")[2] or 0), _PART)
        with futures.ThreadPoolExecutor(_PARTS) as pool:
            pending = collections.deque[futures.Future[tuple[bytes, str, str]]]()
            try:
                for start in starts:
                    condition = Reading(Range=_range(start), IfMatch=_quoted(etag))
                    pending.append(pool.submit(self._read, key, condition))
                    if len(pending) == _PARTS:
                        yield pending.popleft().result()[0]
                while pending:
                    yield pending.popleft().result()[0]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

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
    config = Config(
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        connect_timeout=patience.connect_s,
        read_timeout=patience.silence_s,
        proxies={} if server.is_local(endpoint or "") else None,
        max_pool_connections=_CONNECTIONS,
        # the trailing checksums of newer SDKs are unknown to many S3-compatible servers
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=embedded.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=embedded.get("AWS_SECRET_ACCESS_KEY"),
            region_name=settings.get("AWS_REGION") or settings.get("AWS_DEFAULT_REGION"),
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise errors.UserError(f"storage: the AWS settings must be whole, but {error}") from error
    return S3Storage(client, bucket, prefix, patience)


def _range(start: int) -> str:
    return f"bytes={start}-{start + _PART - 1}"


def _quoted(etag: str) -> str:
    return f'"{etag}"'


def _bare(etag: str) -> str:
    return etag.strip('"')
