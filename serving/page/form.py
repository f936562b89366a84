"""The page of a version for people, and the page that says why there is none."""

from __future__ import annotations

import dataclasses
import functools

import msgspec

from eagleray import bundle, look
from serving.responses import Response

PATH = "/"
HTML = b"text/html; charset=utf-8"
_HEADERS = (
    (b"vary", b"accept"),
    (b"cache-control", b"no-store"),  # it holds a row
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_TITLES = {
    429: "Too many requests",
    500: "The server failed",
    503: "No answer yet",
}


def wanted(path: str, headers: dict[bytes, bytes]) -> bool:
    """Whether a request is a browser's for the page; other clients get JSON."""
    return path == PATH and b"text/html" in headers.get(b"accept", b"")


def made(loaded: bundle.Bundle) -> Response:
    """The page of a version: its form is filled with the first golden row."""
    assert loaded.golden is not None
    ranges, rows = loaded.transforms.ranges(), loaded.golden.rows
    fields = [
        (column, column.kind.field(column, rows[column.name], ranges.get(column.name)))
        for column in loaded.schema.columns
    ]
    page = _template("page.html").page(
        name=loaded.name,
        version=loaded.number,
        target=loaded.schema.target,
        fields=fields,
        explains=loaded.task.explains,
    )
    return _response(200, page)


def refused(name: str, refusal: Response) -> Response:
    """A refusal as a page; it asks for a key where that is what lacks."""
    said = msgspec.json.decode(refusal.body)["error"]
    page = _template("refused.html").page(
        name=name,
        status=refusal.status,
        title=_TITLES.get(refusal.status, "This page cannot be shown"),
        message=said["message"],
        key=refusal.status in (401, 403),
        again=refusal.status == 503,
        request_id=said.get("request_id"),
    )
    shown = _response(refusal.status, page)
    return dataclasses.replace(shown, headers=(*refusal.headers, *shown.headers))


def _response(status: int, page: look.Page) -> Response:
    policy = (b"content-security-policy", page.policy.encode())
    return Response(status, page.html, HTML, (policy, *_HEADERS))


@functools.cache
def _template(name: str) -> look.Template:
    return look.Template(__package__, name, scripts=("live.js", "page.js"))
