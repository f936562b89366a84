"""Large objects in parts, several of them under way at once: multipart up, ranges down."""

from __future__ import annotations

import collections
import contextlib
import http.client
import io
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict, cast

from botocore.exceptions import ClientError, IncompleteReadError, ResponseStreamingError

from eagleray.storage import Sink, failures, streams

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, GetObjectOutputTypeDef

SIZE = 8 << 20
"""Bytes of a part; a smaller object is uploaded in one request."""
_SENDERS = 6  # of one upload
_READERS = 10  # of one download
_MOST = 10_000  # parts that S3 takes


class Place(TypedDict):
    """The object of a request, named as in boto3."""

    Bucket: str
    Key: str


class _Upload(Place):
    """The parameters of every request of one multipart upload, named as in boto3."""

    UploadId: str


def send(client: S3Client, place: Place, source: io.BufferedIOBase, size: int) -> None:
    """Upload an object in parts; it becomes visible when all of them are there."""
    begun = client.create_multipart_upload(**place)
    upload = _Upload(**place, UploadId=begun["UploadId"])
    try:
        parts = _send(client, upload, source, size)
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    except BaseException:
        with contextlib.suppress(*failures.ERRORS):  # `discard` removes what stays
            client.abort_multipart_upload(**upload)
        raise


def receive(
    client: S3Client, place: Place, sink: Sink, pauses: Callable[[], Iterator[float | None]]
) -> None:
    """Download an object into `sink`, in ranges that are read in parallel.

    `pauses` gives the seconds to wait after each attempt, None after the last.
    """
    try:
        first = client.get_object(**place, Range=_range(0, SIZE))
    except ClientError as error:
        if failures.status_of(error) == 416:  # an empty object has no first byte
            return
        raise

    def ask(start: int, stop: int) -> GetObjectOutputTypeDef:
        return client.get_object(**place, Range=_range(start, stop), IfMatch=first["ETag"])

    size, download = int(first["ContentRange"].rpartition("/")[2]), _Download(ask, sink, pauses)
    with futures.ThreadPoolExecutor(_READERS) as pool:
        try:
            parts = [
                pool.submit(download.read, start, min(start + SIZE, size), None if start else first)
                for start in range(0, size, SIZE)
            ]
            for part in futures.as_completed(parts):
                part.result()
        finally:  # nothing may come to the sink any more
            download.ended.set()
            pool.shutdown(cancel_futures=True)


class _Download:
    """Reads parts of one object into a sink, each byte once."""

    def __init__(
        self,
        ask: Callable[[int, int], GetObjectOutputTypeDef],
        sink: Sink,
        pauses: Callable[[], Iterator[float | None]],
    ) -> None:
        self._ask, self._sink, self._pauses = ask, sink, pauses
        self.ended = threading.Event()

    def read(self, start: int, stop: int, answer: GetObjectOutputTypeDef | None) -> None:
        """Read the bytes from `start` to `stop`, first from `answer` if it is given.

        Where an answer breaks off, the next request asks for what is left.
        """
        for pause in self._pauses():
            try:
                found, answer = answer or self._ask(start, stop), None
                with contextlib.closing(_pieces(found["Body"], stop - start)) as pieces:
                    for piece in pieces:
                        if self.ended.is_set():
                            return
                        self._sink.write(piece, start)
                        start += len(piece)
                return
            except failures.INTERRUPTED:
                if pause is None:
                    raise
                if self.ended.wait(pause):
                    return
        raise AssertionError("the last attempt answers or raises")


def _send(
    client: S3Client, upload: _Upload, source: io.BufferedIOBase, size: int
) -> Sequence[CompletedPartTypeDef]:
    """Upload the parts of an object, a few at once; return them for the last request."""

    def send_part(number: int, body: streams.Buffers) -> CompletedPartTypeDef:
        stream = cast(BinaryIO, body)  # boto3's types know no narrower one
        answer = client.upload_part(**upload, PartNumber=number, Body=stream)
        return {"ETag": answer["ETag"], "PartNumber": number}

    step = max(SIZE, -(-size // _MOST))
    pending: collections.deque[futures.Future[CompletedPartTypeDef]] = collections.deque()
    done: list[CompletedPartTypeDef] = []
    with futures.ThreadPoolExecutor(_SENDERS) as pool:
        try:
            for number, start in enumerate(range(0, size, step), 1):
                body = streams.byte_range(source, start, start + step)
                pending.append(pool.submit(send_part, number, body))
                if len(pending) > _SENDERS:
                    done.append(pending.popleft().result())
            return done + [one.result() for one in pending]
        finally:
            pool.shutdown(cancel_futures=True)  # no part may come after `abort`


def _pieces(body: StreamingBody, size: int) -> Generator[memoryview]:
    """Yield the bytes of a response of this size in pieces, each valid until the next.

    They are read below urllib3, which would copy them twice while it holds up all other threads.
    """
    response, left = cast(Any, body)._raw_stream, size
    buffer = memoryview(bytearray(min(size, streams.PIECE)))
    try:
        while left and (got := response._fp.readinto(buffer[:left])):
            left -= got
            yield buffer[:got]
    except (OSError, http.client.HTTPException) as cause:
        raise ResponseStreamingError(error=cause) from cause
    finally:
        if left:
            response.close()
        else:
            response.release_conn()
    if left:
        raise IncompleteReadError(actual_bytes=size - left, expected_bytes=size)


def _range(start: int, stop: int) -> str:
    return f"bytes={start}-{stop - 1}"
