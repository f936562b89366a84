"""Who may ask what: API keys in a file that is read again when it changes.

Whatever is not named here needs a key with the scope `predict`.
"""

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from eagleray import apikeys, errors

log = logging.getLogger("ray.serve")

OPEN = frozenset(("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/docs"))
"""Paths that need no key; nor do the files of `/docs`."""
ADMIN = frozenset(("/metrics", "/live"))
"""Paths that need a key with the scope `admin`."""
_CHECK_S = 1.0  # between two looks at the file
_BEARER = b"bearer "


class Keys:
    """The keys of a file. A damaged or empty one is logged, and the last good keys stay.

    At first there are none: UserError for a file that cannot be read then.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file, clock
        self._stamp = self._stat()
        self._keys = self._read()
        self._looked = clock()

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> str | None:
        """The id of the request's key, None for a path that is open.

        RequestError is 401 without a known key, 403 if the key lacks the scope.
        """
        if path in OPEN or path.startswith("/docs/"):
            return None
        self._refresh()
        key = self._known(presented(headers))
        scope = "admin" if path.rstrip("/") in ADMIN else "predict"
        if scope not in key.scopes:
            raise errors.RequestError(f"the key must have the scope {scope}", status=403)
        return key.id

    def _known(self, key: bytes) -> apikeys.Key:
        """Compare with all keys, in a time that does not depend on which one fits."""
        digest, found = apikeys.digest(key), None
        for one in self._keys:
            if hmac.compare_digest(one.digest, digest):
                found = one
        if found is None:
            law = "a key must be given as `authorization: Bearer …` or `x-api-key`"
            raise errors.RequestError(f"{law}, but got {'another' if key else 'none'}", status=401)
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked < _CHECK_S:
            return
        self._looked = now
        stamp = self._stat()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
            log.info("%s has changed: %s keys", self._file, len(self._keys))
        except errors.UserError as cause:
            log.error("the keys of before stay: %s", cause)

    def _read(self) -> list[apikeys.Key]:
        try:
            return apikeys.parse(self._file.read_text("utf-8"), str(self._file))
        except (OSError, UnicodeDecodeError) as cause:
            law = f"keys_file must be a text file, but {self._file}: {type(cause).__name__}"
            raise errors.UserError(law) from cause

    def _stat(self) -> tuple[int, ...] | None:
        """What changes when the file does; a Secret's files are links that are replaced."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def presented(headers: Mapping[bytes, bytes]) -> bytes:
    """The key that a request gives; empty if it gives none."""
    value = headers.get(b"authorization", b"")
    if value[: len(_BEARER)].lower() == _BEARER:
        return value[len(_BEARER) :].strip()
    return headers.get(b"x-api-key", b"").strip()
