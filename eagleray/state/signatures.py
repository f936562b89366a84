"""Signatures of versions: an HMAC over what a manifest says, by a key that is not in storage.

Whoever writes the bucket can write a version, but not sign it. The files of a version are signed by
their hashes, which every read verifies.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from eagleray import errors

if TYPE_CHECKING:
    from eagleray.state.models import Version

VARIABLE = "EAGLERAY_SIGNING_KEY_FILE"
"""Environment variable: the file of the key by which `register` signs."""
_LEAST = 32  # bytes of a key
_PREFIX = "hmac-sha256:"


def keys(file: Path) -> list[bytes]:
    """The keys of a file, one a line; the first one signs, any one verifies.

    UserError if there is none, or if one is too short to resist guessing.
    """
    try:
        found = [line.strip() for line in file.read_bytes().splitlines() if line.strip()]
    except OSError as cause:
        law = f"a signing key must be in a file, but {file}: {type(cause).__name__}"
        raise errors.UserError(law) from cause
    if not found or min(map(len, found)) < _LEAST:
        raise errors.UserError(
            f"{file}: must have keys of at least {_LEAST} characters, one a line"
        )
    return found


def from_environment() -> bytes | None:
    """The key by which this process signs; None if it does not."""
    file = os.environ.get(VARIABLE)
    return keys(Path(file))[0] if file else None


def sign(version: Version, key: bytes) -> str:
    """The signature of a version by a key."""
    return _PREFIX + hmac.new(key, _signed(version), hashlib.sha256).hexdigest()


def check(version: Version, known: list[bytes]) -> None:
    """ServingError unless one of the keys has signed the version."""
    at = f"{version.name} version {version.number}"
    if not version.signature:
        raise errors.ServingError(f"{at}: must be signed, but is not")
    given = version.signature.encode()
    # all keys are tried, in a time that does not depend on which one fits
    if not sum(hmac.compare_digest(sign(version, key).encode(), given) for key in known):
        raise errors.ServingError(f"{at}: must be signed by a known key, but is signed by another")


def _signed(version: Version) -> bytes:
    """What is signed; fields that later releases add are not."""
    said = {
        "name": version.name,
        "number": version.number,
        "created": version.created,
        "by": version.by,
        "files": {path: [content.sha256, content.size] for path, content in version.files.items()},
        "manifest": version.manifest,
    }
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
