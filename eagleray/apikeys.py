"""API keys of an endpoint: a file with a line a key, which holds no key itself.

    team-a predict 9f86d081884c7d65…      id, scopes parted by commas, SHA-256 in hexadecimal
    prometheus admin 60303ae22b998861…    # a comment

A key is 32 random bytes, so a plain hash cannot be reversed: slow, salted hashes are for passwords,
which people choose.
"""

import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass

from eagleray import errors, names

SCOPES = ("predict", "admin")
"""`admin` reads metrics; `predict` everything else that is not open to all."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Key:
    """What is on record of a key."""

    id: str
    scopes: frozenset[str]
    digest: bytes  # SHA-256 of the key

    def line(self) -> str:
        return f"{self.id} {','.join(sorted(self.scopes))} {self.digest.hex()}"


def new(identity: str, scopes: Collection[str]) -> tuple[str, Key]:
    """Make a key: its text, which is on record nowhere, and what the file holds of it.

    UserError for an id or a scope that a file may not have.
    """
    _check_id(identity, "--id")
    _check_scopes(scopes, "--scope")
    text = f"er_{secrets.token_urlsafe(32)}"
    return text, Key(identity, frozenset(scopes), digest(text.encode()))


def digest(key: bytes) -> bytes:
    """The SHA-256 of a key, which is what is on record of it."""
    return hashlib.sha256(key).digest()


def parse(text: str, where: str) -> list[Key]:
    """The keys of a file; UserError names the line that is wrong, or that there is none."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    found = [_line(line, f"{where}:{at}") for at, line in enumerate(lines, 1) if line]
    if not found:
        raise errors.UserError(f"{where}: must have a line for a key, but has none")
    for part in ([key.id for key in found], [key.digest for key in found]):
        if len(set(part)) < len(part):
            raise errors.UserError(f"{where}: ids and keys must differ, but one is there twice")
    return found


def _line(line: str, where: str) -> Key:
    words = line.split()
    if len(words) != 3:
        law = f"{where}: must be an id, scopes and a SHA-256"
        raise errors.UserError(f"{law}, but got {len(words)} words")
    identity, scopes, digits = words[0], words[1].split(","), words[2]
    _check_id(identity, where)
    _check_scopes(scopes, where)
    if not _HASH.fullmatch(digits):
        # The value may be a key, put here by mistake: it is not shown.
        law = f"{where}: a SHA-256 must be 64 lower-case hexadecimal digits"
        raise errors.UserError(f"{law}, but got {len(digits)} other characters")
    return Key(identity, frozenset(scopes), bytes.fromhex(digits))


def _check_id(identity: str, where: str) -> None:
    if not _ID.fullmatch(identity):
        law = f"{where}: an id must be letters, digits, dots and dashes, at most 63"
        raise errors.UserError(f"{law}, but got {identity!r:.80}")


def _check_scopes(scopes: Collection[str], where: str) -> None:
    for scope in scopes:
        if scope not in SCOPES:
            law, near = f"a scope must be one of {', '.join(SCOPES)}", names.near(scope, SCOPES)
            raise errors.UserError(f"{where}: {law}, but got {scope!r:.80}{near}")
