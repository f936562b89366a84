"""An experiment packed for a journey: the file, its table and the user's modules, in storage.

    runs/{name}/{run}.json          the manifest: which blob, and whether its result may be reused
    runs/{name}/{run}/search.json   which search it is, written by the driver at its beginning
    runs/{name}/{run}/result.json   what came of it, written by the driver at its end

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
from typing import Any

from eagleray import code, errors, spec, storage
from eagleray.spec import document
from eagleray.storage import blobs

FILE = "experiment.yaml"
LIMIT = 100 << 20
"""Most bytes of a table that travel with their experiment."""


@dataclasses.dataclass(frozen=True)
class Run:
    """An experiment on its way: with these three, a driver anywhere finds the rest in storage.

    Attributes:
        name: the experiment's name.
        id: 12 hex digits of what decides the outcome.
        storage: URI of the storage that holds the package.
    """

    name: str
    id: str
    storage: str


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
        files={FILE: document.write(experiment.given()).encode(), **needed, **table},
        settled=not _is_code(source),
    )


def put(package: Package) -> None:
    """Store a package where its experiment is kept."""
    store = storage.open(package.run.storage)
    blob = blobs.put(store, package.archive())
    manifest = {"package": dataclasses.asdict(blob), "settled": package.settled}
    store.put(_manifest_key(package.run), json.dumps(manifest).encode())


def fetch(run: Run, folder: Path) -> Path:
    """Unpack a run into an empty folder, and give its experiment file.

    Raises:
        NotFoundError: nothing was sent under this id.
        CorruptObjectError: the package is not what was sent.
    """
    store = storage.open(run.storage)
    try:
        manifest = json.loads(store.get(_manifest_key(run)))
    except errors.ObjectNotFoundError as cause:
        raise errors.NotFoundError(f"run: must have been sent before, but {cause}") from cause
    archive = blobs.get(store, blobs.Blob(**manifest["package"]))
    _unpack(gzip.decompress(archive), folder)
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


def begin(run: Run, search_id: str) -> None:
    """Put on record which search a run is."""
    storage.open(run.storage).put(_search_key(run), json.dumps(search_id).encode())


def search(run: Run) -> str | None:
    """Id of a run's search, where its driver has come so far."""
    try:
        return str(json.loads(storage.open(run.storage).get(_search_key(run))))
    except errors.ObjectNotFoundError:
        return None


def finish(run: Run, result: dict[str, Any]) -> None:
    """Put on record what came of a run."""
    storage.open(run.storage).put(_result_key(run), json.dumps(result).encode())


def result(run: Run) -> dict[str, Any] | None:
    """What came of a run, where it has come to an end."""
    try:
        found: dict[str, Any] = json.loads(storage.open(run.storage).get(_result_key(run)))
    except errors.ObjectNotFoundError:
        return None
    return found


def _manifest_key(run: Run) -> str:
    return f"runs/{run.name}/{run.id}.json"


def _search_key(run: Run) -> str:
    return f"runs/{run.name}/{run.id}/search.json"


def _result_key(run: Run) -> str:
    return f"runs/{run.name}/{run.id}/result.json"


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
