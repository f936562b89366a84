"""The files that `data.source` names: one, those of a folder, or those of a pattern with `*`.

They lie below a folder of this machine, or in a bucket. Their order is that of their names.
"""

import contextlib
import fnmatch
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eagleray import errors, messages, names, storage
from eagleray.storage import Entry, sinks
from eagleray.tabular import files

SCHEME = "s3://"
_WILD = frozenset("*?")
_HIDDEN = (".", "_")  # first letters of files that other programs leave beside their tables


@dataclass(frozen=True)
class File:
    """A file of a source, on this machine or in a bucket."""

    name: str  # a path, or `s3://bucket/key`
    size: int  # in bytes
    version: str  # another one for another content

    @property
    def is_local(self) -> bool:
        return not self.name.startswith(SCHEME)

    @contextlib.contextmanager
    def opened(self, *, key: str = "data.source") -> Iterator[Path]:
        """The file on this machine's disk; an object is fetched for the time of the block.

        Messages say that `key` names the source.

        Raises:
            DataError: it is gone, or has changed since it was found.
            StorageError: it cannot be fetched.
        """
        if self.is_local:
            path = Path(self.name)
            self._check(_local(path))
            try:
                yield path
            finally:  # also if it could not be read, as what it was read for has changed
                self._check(_local(path))
            return
        with tempfile.TemporaryDirectory(prefix="eagleray-source-") as folder:
            path = Path(folder, Path(self.name).name)
            fetch(self.name, path, key=key)
            self._check(_listed(self.name))
            yield path

    def _check(self, now: "File | None") -> None:
        if now != self:
            got = "it has changed" if now else "it is gone"
            raise errors.DataError(f"{self.name}: must stay as it is while it is read, but {got}")


def find(source: str, base: Path, *, key: str = "data.source") -> list[File]:
    """The files of a source; a path starts at `base`, then at the working directory.

    Messages say that `key` names the source.

    Raises:
        DataError: there are none, or they are not of one format.
        StorageError: the bucket cannot be listed.
    """
    remote = source.startswith(SCHEME)
    found = _objects(source, key) if remote else _paths(source, base, key)
    _check_alike(source, found, key)
    return found


def is_several(source: str) -> bool:
    """Whether a source is a pattern, or the folder of a bucket."""
    return source.endswith("/") or bool(_WILD & set(source))


def fetch(uri: str, path: Path, *, key: str = "data.source") -> None:
    """Write an object to a file; DataError where there is none, or another one meanwhile.

    Messages say that `key` names the source.
    """
    bucket, object_key = address(uri, key)
    try:
        with path.open("wb") as file:
            sink = sinks.File(file.fileno())
            storage.open(f"{SCHEME}{bucket}").download(object_key, sink)
    except errors.ObjectNotFoundError as cause:
        raise errors.DataError(f"{key}: an object is needed, but {cause}") from cause
    except errors.ObjectChangedError as cause:
        law = "an object must stay as it is while it is read"
        raise errors.DataError(f"{key}: {law}, but {cause}") from cause


def address(uri: str, named: str = "data.source") -> tuple[str, str]:
    """Bucket and key of an object; DataError for another URI, which `named` has."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not key:
        raise errors.DataError(f"{named}: s3://bucket/key is needed, but got {uri!r}")
    return bucket, key


def check_columns(name: str, got: Sequence[str], first: str, needed: Sequence[str]) -> None:
    """DataError if a file does not have the columns of the first one."""
    if set(got) == set(needed):
        return
    lacks = [repr(one) for one in needed if one not in got]
    more = [repr(one) for one in got if one not in needed]
    parts = [
        f"{word} {messages.listed(some)}"
        for word, some in (("lacks", lacks), ("has", more))
        if some
    ]
    raise errors.DataError(
        f"{name}: the columns of {first} are needed in each file, but it {' and '.join(parts)}"
    )


def _paths(source: str, base: Path, key: str) -> list[File]:
    roots = (base / source, Path.cwd() / source)
    paths = next(filter(None, map(_matching, roots)), [])
    found = [one for path in sorted(paths) if (one := _local(path)) is not None]
    if found:
        return found
    folders = [root.parent for root in roots if root.parent.is_dir()]
    beside = [path.name for folder in folders for path in folder.iterdir() if files.is_known(path)]
    relative = " beside the experiment file or in the working directory"
    where = "" if Path(source).is_absolute() else relative
    near = names.near(Path(source).name, beside)
    raise errors.DataError(f"{key}: a file is needed, but there is no {source!r}{where}{near}")


def _matching(root: Path) -> list[Path]:
    """The file, those below a folder, or those of a pattern."""
    if root.is_dir():
        below = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return [root / one for one in below if not _is_hidden(one)]
    if not _WILD & set(str(root)):
        return [root] if root.is_file() else []
    found = Path(root.anchor).glob(str(root.relative_to(root.anchor)))
    return [path for path in found if path.is_file() and not _is_hidden(Path(path.name))]


def _local(path: Path) -> File | None:
    if not path.is_file():
        return None
    about = path.stat()
    return File(str(path), about.st_size, str(about.st_mtime_ns))


def _objects(source: str, named: str) -> list[File]:
    bucket, key = address(source, named)
    fixed = len(key) if not _WILD & set(key) else min(map(key.find, _WILD & set(key)))
    found = [
        File(f"{SCHEME}{bucket}/{one.key}", one.size, one.etag)
        for one in _entries(bucket, key[:fixed])
        if _is_meant(key, one.key)
    ]
    if not found:
        raise errors.DataError(f"{named}: an object is needed, but there is no {source}")
    return sorted(found, key=lambda one: one.name)


def _is_meant(wanted: str, key: str) -> bool:
    """Whether `data.source` names an object: its key, its folder, or its pattern."""
    if wanted.endswith("/"):
        return not _is_hidden(Path(key.removeprefix(wanted)))
    if not _WILD & set(wanted):
        return key == wanted
    return fnmatch.fnmatchcase(key, wanted) and key.count("/") == wanted.count("/")


def _listed(uri: str) -> File | None:
    bucket, key = address(uri)
    return next(
        (File(uri, one.size, one.etag) for one in _entries(bucket, key) if one.key == key), None
    )


def _entries(bucket: str, prefix: str) -> Iterator[Entry]:
    return storage.open(f"{SCHEME}{bucket}").list(prefix)


def _is_hidden(path: Path) -> bool:
    return path.name == "" or any(part.startswith(_HIDDEN) for part in path.parts)


def _check_alike(source: str, found: Sequence[File], key: str) -> None:
    kinds = {Path(one.name).suffix.lower(): one.name for one in found}
    if len(kinds) > 1:
        got = " and ".join(sorted(kinds.values())[:2])
        raise errors.DataError(f"{key}: {source} must name files of one format, but got {got}")
    parted = next((one.name for one in found if "=" in Path(one.name).parent.name), None)
    if parted is not None and "=" not in source:
        law = "columns in the names of folders are not read: write them into the files"
        raise errors.DataError(f"{key}: {law}, but got {parted}")
