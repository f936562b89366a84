"""Objects as files: a folder is the bucket, a key is a path below it. For one machine.

A file is written aside, synced, and moved into place in one step, so a reader sees the old object
or the new one. Writers that replace an object hold the key's lock (`flock`, released by the kernel
when its holder dies). An etag is a hash of the content.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from eagleray import errors
from eagleray.storage import Entry, Sink, checked, streams

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of the operating system for no room left."""
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_PRIVATE = ".eagleray"  # below the root: unfinished files and locks; no key may start so
_LOCKS = 64
_CHUNK = 1 << 20  # bytes that are copied at once


class FileStorage:
    """The objects below one folder, which must exist."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = root.as_uri()

    def get(self, key: str) -> bytes:
        with self._errors(key):
            return self._path(key).read_bytes()

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        data = self.get(key)
        return data, _etag(data)

    def get_if_changed(self, key: str, etag: str | None) -> tuple[bytes, str] | None:
        data, now = self.get_tagged(key)
        return None if now == etag else (data, now)

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        with self._errors(key), self._path(key).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def put(self, key: str, data: bytes) -> str:
        self.upload(key, io.BytesIO(data))
        return _etag(data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        path = self._path(key)
        with self._errors(key), self._written(io.BytesIO(data)) as unfinished:
            self._make_parents(path)
            try:
                path.hardlink_to(unfinished)
            except FileExistsError as error:
                raise errors.ObjectExistsError(self._message(key, "the key is taken")) from error
            _sync(path.parent)
        return _etag(data)

    def compare_and_swap(self, key: str, data: bytes, etag: str) -> str:
        path = self._path(key)
        with self._errors(key), self._written(io.BytesIO(data)) as unfinished, self._locked(key):
            if self.get_tagged(key)[1] != etag:
                raise errors.ObjectChangedError(self._message(key, "changed since it was read"))
            self._make_parents(path)
            _move(unfinished, path)
        return _etag(data)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        if prefix:
            checked(prefix.removesuffix("/"))
        with self._errors(prefix):
            if not self.root.is_dir():
                raise FileNotFoundError(self.root)
            for folder, _, names in os.walk(self.root / prefix.rpartition("/")[0]):
                for path in (Path(folder, name) for name in names):
                    key = path.relative_to(self.root).as_posix()
                    if key.startswith(prefix) and not key.startswith(f"{_PRIVATE}/"):
                        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                            yield _entry(key, path)

    def delete(self, key: str) -> None:
        with contextlib.suppress(errors.ObjectNotFoundError), self._errors(key), self._locked(key):
            self._path(key).unlink()

    def upload(self, key: str, source: io.BufferedIOBase) -> None:
        path = self._path(key)
        with self._errors(key), self._written(source) as unfinished, self._locked(key):
            self._make_parents(path)
            _move(unfinished, path)

    def download(self, key: str, sink: Sink) -> None:
        with self._errors(key), self._path(key).open("rb", 0) as source:
            piece, start = memoryview(bytearray(streams.PIECE)), 0
            while got := source.readinto(piece):
                sink.write(piece[:got], start)
                start += got

    def discard(self, before: datetime, *, dry_run: bool = False) -> int:
        with self._errors(""):
            found = [
                path
                for path in self._private().glob(".*.unfinished")
                if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before
            ]
            for path in [] if dry_run else found:
                path.unlink(missing_ok=True)
        return len(found)

    def clock(self) -> None:
        return None

    def _path(self, key: str) -> Path:
        if checked(key).split("/")[0] == _PRIVATE:
            raise errors.UserError(f"storage: {_PRIVATE}/ is reserved, but got the key {key!r}")
        return self.root / key

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Exclude the other writers of this key; keys share a few lock files, never deleted."""
        name = f"lock-{zlib.crc32(key.encode()) % _LOCKS}"
        with (self._private() / name).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _written(self, source: io.BufferedIOBase) -> Iterator[Path]:
        """Yield an unfinished file that holds what the stream gives, synced."""
        with _scratch(self._private()) as unfinished:
            with unfinished.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
            _sync(unfinished)
            yield unfinished

    def _make_parents(self, path: Path) -> None:
        """Make the folders above an object's file."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            law = f"on a file system no key may lie below another key, but got {error}"
            key = path.relative_to(self.root).as_posix()
            raise errors.StorageError(self._message(key, law)) from error

    def _private(self) -> Path:
        folder = self.root / _PRIVATE
        folder.mkdir(exist_ok=True)
        return folder

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn an OSError into a StorageError that names folder and key."""
        try:
            yield
        except OSError as error:
            kind, what = self._classify(error)
            raise kind(self._message(key, what)) from error

    def _classify(self, error: OSError) -> tuple[type[errors.StorageError], str]:
        if not self.root.is_dir():
            law = f"the folder must exist; create it with: mkdir -p {self.root}"
            return errors.BucketNotFoundError, law
        if error.errno in FULL:
            return errors.StorageFullError, f"no room left: {error}"
        if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            return errors.ObjectNotFoundError, "there is no such object"
        denied = error.errno in _DENIED
        return errors.AccessDeniedError if denied else errors.StorageError, str(error)

    def _message(self, key: str, what: str) -> str:
        return f"{self.uri}: key {key!r}: {what}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write; it is renamed to `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(path.parent) as unfinished:
        yield unfinished
        _sync(unfinished)
        _move(unfinished, path)


@contextlib.contextmanager
def creating(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill; it is renamed to `folder`, new or empty, if the block succeeds."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise errors.UserError(f"a new or empty folder is needed, but got {folder}")
    folder = folder.resolve()
    unfinished = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    unfinished = folder / f".{secrets.token_hex(8)}.unfinished"
    try:
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def _move(unfinished: Path, path: Path) -> None:
    unfinished.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _entry(key: str, path: Path) -> Entry:
    with path.open("rb") as file:
        about, digest = os.fstat(file.fileno()), hashlib.file_digest(file, "sha256")
    return Entry(
        key, about.st_size, digest.hexdigest(), datetime.fromtimestamp(about.st_mtime, UTC)
    )


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
