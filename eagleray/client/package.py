"""An experiment packed for a cluster: the file, its table and the user's modules.

A run's id is a hash of file, data, code and limits: the same ones find the run that was sent
before, and more trials make another run of the same search. The packed file sets the keys of the
user's file and no others, so that the search has one id wherever it runs.
"""

import dataclasses
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path, PurePosixPath

from eagleray import code, errors, spec
from eagleray.spec import document
from eagleray.state import runs
from eagleray.state.runs import Run
from eagleray.tabular import sources

FILE = "experiment.yaml"
LIMIT = 100 << 20
"""Most bytes of a table that is sent with its experiment."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A run and its files.

    Attributes:
        files: content by path, the experiment file among them as `FILE`.
        settled: whether equal packages give equal results; not if the user's function makes rows.
    """

    run: Run
    files: dict[str, bytes]
    settled: bool

    def archive(self) -> bytes:
        """A gzipped tar of all files; equal content gives equal bytes."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path in sorted(self.files):
                entry = tarfile.TarInfo(path)
                entry.size = len(self.files[path])
                tar.addfile(entry, io.BytesIO(self.files[path]))
        return gzip.compress(buffer.getvalue(), mtime=0)


def pack(experiment: spec.Experiment) -> Package:
    """Pack an experiment with its table and modules from this machine.

    Raises:
        CodeError: the user's module fails to import.
        DataError: the table cannot travel.
        StorageError: the table's object cannot be listed.
    """
    source, folder, etags = experiment.data.source, experiment.path.parent, {}
    own, table = list(experiment.code().values()), {}
    if source.startswith("s3://"):
        etags.update({one.name: one.version for one in sources.find(source, folder)})
    elif code.is_name(source) and not source.startswith("dataset:"):
        own.append(code.read(source, folder))
    elif not source.startswith("dataset:"):
        table = _table(source, folder)
    files = {one.file: one.source.encode() for one in own} | table
    hashes = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    limits = experiment.tune.model_dump(mode="json", include=spec.LIMITS - {"ensemble"})
    limits |= experiment.tune.ensemble.model_dump(exclude_defaults=True)
    limits |= experiment.audit.model_dump(exclude_defaults=True)
    fingerprint = json.dumps([hashes | etags, limits], sort_keys=True)
    return Package(
        run=Run(experiment.name, experiment.search_id(fingerprint), experiment.storage),
        files={FILE: document.write(experiment.explicit()).encode(), **files},
        settled=source not in (one.name for one in own),
    )


def put(package: Package) -> None:
    """Write a package to the storage of its experiment."""
    runs.send(package.run, package.archive(), settled=package.settled)


def load(run: Run, folder: Path) -> spec.Experiment:
    """Unpack a run, and read its experiment as the release that sent it would.

    Raises as `fetch`.
    """
    experiment = spec.load(fetch(run, folder))
    sent = runs.find(run, runs.Sent)
    return experiment if sent and sent.model_by_columns else experiment.with_earlier_model()


def fetch(run: Run, folder: Path) -> Path:
    """Unpack a run into an empty folder, and return the path of its experiment file.

    Raises:
        NotFoundError: nothing was sent under this id.
        CorruptObjectError: the package is not what was sent.
    """
    _unpack(gzip.decompress(runs.fetch(run)), folder)
    return folder / FILE


def _unpack(archive: bytes, folder: Path) -> None:
    """Write an archive's files; Python before 3.11.4 lacks the filters of tarfile."""
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


def _table(source: str, folder: Path) -> dict[str, bytes]:
    """The files of a table by their path below the folder of the experiment."""
    if Path(source).is_absolute() or ".." in Path(source).parts:
        raise errors.DataError(
            "data.source: must be a path below the experiment file's folder or the working "
            f"directory, or s3://…, to travel to a cluster, but got {source!r}"
        )
    found = sources.find(source, folder)
    size = sum(one.size for one in found)
    if size > LIMIT:
        raise errors.DataError(
            f"data.source: at most {LIMIT >> 20} MB travel with an experiment, but {source!r} has "
            f"{size >> 20} MB; put it into storage and name it s3://bucket/key"
        )
    root = next(one for one in (folder, Path.cwd()) if Path(found[0].name).is_relative_to(one))
    paths = (Path(one.name) for one in found)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
