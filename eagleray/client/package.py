"""An experiment packed for a run elsewhere: the file, its table and the user's modules.

A run is named by what it is made of, so the same file, data and code have the same run id wherever
they are sent, and sending them again finds what was sent before. With more trials it is another run
of the same search. The file that travels sets the keys that the user's sets, no others, so that the
search has one id wherever it runs.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path, PurePosixPath

from eagleray import code, errors, spec, storage
from eagleray.spec import document
from eagleray.state import runs
from eagleray.state.runs import Run

FILE = "experiment.yaml"
LIMIT = 100 << 20
"""Most bytes of a table that travel with their experiment."""


@dataclasses.dataclass(frozen=True)
class Package:
    """What travels.

    Attributes:
        files: content by path, the experiment file among them as `FILE`.
        settled: whether the same package always has the same result; not so when a function of
            the user's makes the rows.
    """

    run: Run
    files: dict[str, bytes]
    settled: bool

    def archive(self) -> bytes:
        """One file of all, the same bytes for the same content."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path in sorted(self.files):
                entry = tarfile.TarInfo(path)
                entry.size = len(self.files[path])
                tar.addfile(entry, io.BytesIO(self.files[path]))
        return gzip.compress(buffer.getvalue(), mtime=0)


def pack(experiment: spec.Experiment) -> Package:
    """Gather what an experiment needs of this machine.

    Raises:
        CodeError: the user's module fails to import.
        DataError: the table cannot travel.
        StorageError: the table is an object that cannot be looked at.
    """
    needed = {_module_path(one): one.source.encode() for one in _code(experiment)}
    source = experiment.data.source
    table = {source: _table(experiment)} if _is_path(source) else {}
    contents = {path: hashlib.sha256(data).hexdigest() for path, data in (needed | table).items()}
    if source.startswith("s3://"):
        contents[source] = _etag(source)
    limits = experiment.tune.model_dump(mode="json", include=spec.LIMITS)
    fingerprint = json.dumps([contents, limits], sort_keys=True)
    return Package(
        run=Run(experiment.name, experiment.search_id(fingerprint), experiment.storage),
        files={FILE: document.write(experiment.explicit()).encode(), **needed, **table},
        settled=not _is_code(source),
    )


def put(package: Package) -> None:
    """Store a package where its experiment is kept."""
    runs.send(package.run, package.archive(), settled=package.settled)


def fetch(run: Run, folder: Path) -> Path:
    """Unpack a run into an empty folder, and give its experiment file.

    Raises:
        NotFoundError: nothing was sent under this id.
        CorruptObjectError: the package is not what was sent.
    """
    _unpack(gzip.decompress(runs.fetch(run)), folder)
    return folder / FILE


def _unpack(archive: bytes, folder: Path) -> None:
    """Write an archive's files; the filters of tarfile came with Python 3.11.4."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for entry in tar:
            path, content = PurePosixPath(entry.name), tar.extractfile(entry)
            if content is None or path.is_absolute() or ".." in path.parts:
                raise errors.CorruptObjectError(
                    f"package: must hold files below its folder alone, but has {entry.name!r}"
                )
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())


def _code(experiment: spec.Experiment) -> list[code.Code]:
    own = list(experiment.code().values())
    source = experiment.data.source
    return [*own, code.read(source, experiment.path.parent)] if _is_code(source) else own


def _module_path(one: code.Code) -> str:
    """Where `code.read` looks for it, beside the experiment file."""
    return one.name.partition(":")[0].replace(".", "/") + ".py"


def _is_code(source: str) -> bool:
    return code.is_name(source) and not source.startswith("dataset:")


def _is_path(source: str) -> bool:
    return not (source.startswith(("dataset:", "s3://")) or _is_code(source))


def _table(experiment: spec.Experiment) -> bytes:
    """The bytes of the table, which stands beside the experiment or in the working directory."""
    source = experiment.data.source
    if Path(source).is_absolute() or ".." in Path(source).parts:
        raise errors.DataError(
            "data.source: must be a path below the experiment file's folder or the working "
            f"directory, or s3://…, to travel to a cluster, but got {source!r}"
        )
    folders = (experiment.path.parent, Path.cwd())
    path = next((one / source for one in folders if (one / source).is_file()), None)
    if path is None:
        raise errors.DataError(
            f"data.source: a file is needed, but there is no {source!r} beside the experiment "
            "file or in the working directory"
        )
    size = path.stat().st_size
    if size > LIMIT:
        raise errors.DataError(
            f"data.source: at most {LIMIT >> 20} MB travel with an experiment, but {source!r} has "
            f"{size >> 20} MB; put it into storage and name it s3://bucket/key"
        )
    return path.read_bytes()


def _etag(source: str) -> str:
    bucket, _, key = source.removeprefix("s3://").partition("/")
    found = [one.etag for one in storage.open(f"s3://{bucket}").list(key) if one.key == key]
    if not found:
        raise errors.DataError(f"data.source: an object is needed, but there is no {source}")
    return found[0]
