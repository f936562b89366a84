"""Models by name: immutable numbered versions, movable aliases, and a log of who moved what."""

import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any

from eagleray import errors, names, storage
from eagleray.state import aliases, documents, keys, signatures
from eagleray.state.aliases import CHAMPION, LATEST, Aliases, Event
from eagleray.storage import blobs, cache, files

_SWAPS = 100  # attempts before a ConflictError
Skip = Callable[[errors.StorageError], None]


class Version(documents.Document, frozen=True):
    """A registered bundle."""

    KIND = "version"

    name: str  # the model's
    number: int  # counted from 1
    created: str  # when, in ISO 8601
    by: str = ""  # who registered it; empty where that is not on record
    files: dict[str, blobs.Blob]  # contents by path
    manifest: dict[str, Any]  # facts about the version, as JSON
    signature: str = ""  # see `signatures`; empty where nobody signed

    def event(self) -> Event:
        at, number = self.created, self.number
        return Event(id=f"v{number:010}", at=at, action="registered", number=number, by=self.by)


class Registry:
    """The models of one storage; `now` gives nanoseconds since 1970.

    Files are read through `local`, if it is given.
    """

    def __init__(
        self,
        store: storage.Storage,
        *,
        now: Callable[[], int] = time.time_ns,
        local: cache.Cache | None = None,
    ) -> None:
        self._store = store
        self._now = now
        self._local = local

    def register(
        self,
        name: str,
        files: Mapping[str, bytes],
        manifest: Mapping[str, Any],
        *,
        same: Callable[[Version], bool] | None = None,
    ) -> Version:
        """Store the files, by path, as the next version of a model. No alias moves.

        It is signed where `signatures.VARIABLE` names a key; UserError if that cannot be read.
        A version appears whole or not at all. A known version for which `same` holds is
        returned instead, so of many processes that register the same at once only one does.
        """
        numbers, key = self.numbers(name), signatures.from_environment()
        for path in files:
            storage.checked(path)
        if known := self._last(same, name, numbers):
            return known
        version = Version(
            name=name,
            number=max(numbers, default=0) + 1,
            created=aliases.iso(self._now()),
            by=aliases.user(),
            files={path: blobs.put(self._store, data) for path, data in files.items()},
            manifest=dict(manifest),
        )
        while not self._put_if_absent(
            keys.VERSION, version := _signed(version, key), name=name, number=version.number
        ):
            if known := self._last(same, name, [version.number]):
                return known
            version = version.model_copy(update={"number": version.number + 1})
        return version

    def models(self) -> list[str]:
        """The names of all models that have a version."""
        return sorted({name for name, _ in self._listed(keys.MODELS)})

    def numbers(self, name: str) -> set[int]:
        """The version numbers of a model; none when there is no such model."""
        names.check("model", name)
        return {number for _, number in self._listed(keys.VERSIONS.format(name=name))}

    def latest(self, name: str) -> int:
        """The highest version number of a model; NotFoundError when there is no such model."""
        return max(self._existing(name))

    def versions(self, name: str, skip: Skip | None = None) -> list[Version]:
        """All versions, the oldest first; errors of unreadable ones go to `skip`, or are raised."""
        return self._versions(name, self.numbers(name), skip)

    def version(self, name: str, number: int) -> Version:
        """One version; NotFoundError when the model or the version does not exist."""
        names.check("model", name)
        key = keys.VERSION.format(name=name, number=number)
        found = Version.find(self._store, key)
        if found is None:
            known = ", ".join(map(str, sorted(self._existing(name))[-10:]))
            raise errors.NotFoundError(
                f"model {name}: must be one of its versions ({known}), but got {number}"
            )
        if (found.name, found.number) != (name, number):
            raise errors.CorruptObjectError(
                f"{documents.where(self._store, key)}: must be version {number} of {name}, but "
                f"got version {found.number} of {found.name}"
            )
        return found

    def resolve(self, name: str, reference: str) -> Version:
        """The version that an alias, a number or `latest` stands for, else NotFoundError."""
        if reference.isdecimal():
            return self.version(name, int(reference))
        if reference == LATEST:
            return self.version(name, self.latest(name))
        values = self.aliases(name).values
        if reference in values:
            return self.version(name, values[reference])
        self._existing(name)
        known = ", ".join(sorted(values)) or "none is set"
        raise errors.NotFoundError(
            f"model {name}: must be one of its aliases ({known}), a number or {LATEST}, "
            f"but got {reference!r}{names.near(reference, [*values, LATEST])}"
        )

    def read(self, version: Version, path: str) -> bytes:
        """Read one file of a version, verified."""
        if path not in version.files:
            raise errors.NotFoundError(
                f"model {version.name}, version {version.number}: must be one of its files "
                f"({', '.join(version.files)}), but got {path!r}{names.near(path, version.files)}"
            )
        content = version.files[path]
        if self._local is not None:
            return self._local.get(self._store, content)
        return blobs.get(self._store, content)

    def pull(self, version: Version, folder: Path) -> None:
        """Write the files of a version, verified, into a folder that is new or empty."""
        with files.creating(folder) as unfinished:
            for path in version.files:
                target = unfinished / storage.checked(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.read(version, path))

    def aliases(self, name: str) -> Aliases:
        """The aliases of a model; empty when none was ever set."""
        return self.watch(name, None) or Aliases()

    def watch(self, name: str, etag: str | None) -> Aliases | None:
        """The aliases, or None when they are still those of `etag` (None: never set)."""
        names.check("model", name)
        key = keys.ALIASES.format(name=name)
        try:
            found = self._store.get_if_changed(key, etag)
        except errors.ObjectNotFoundError:
            return Aliases() if etag else None
        return Aliases.tagged(*found, documents.where(self._store, key)) if found else None

    def promote(
        self,
        name: str,
        number: int,
        alias: str = CHAMPION,
        *,
        expect: int | EllipsisType | None = ...,
        check: Callable[[Version, Version], None] | None = None,
        why: str = "",
        by: str | None = None,
        dry_run: bool = False,
    ) -> Aliases:
        """Point an alias to a version; nothing happens when it points there already.

        `why` and `by` (else this process's user) go to the log. ConflictError if the alias does not
        point to `expect` (None: nowhere) before. `check` gets old and new, and raises to refuse.
        """
        aliases.check(alias)
        version = self.version(name, number)

        def point(now: Aliases) -> Aliases:
            aliases.check_unrouted(now, alias, name)
            current = now.values.get(alias)
            if expect is not ... and current not in (expect, number):
                raise errors.ConflictError(
                    f"model {name}: {alias} must point to version {expect or 'none'}, "
                    f"but points to {current or 'none'}; somebody moved it"
                )
            if check is not None and current not in (None, number):
                check(self.version(name, current), version)
            return aliases.promoted(now, alias, number)

        event = functools.partial(aliases.event, action="promoted", alias=alias, by=by, why=why)
        return self._swap(name, point, event, dry_run=dry_run)

    def rollback(
        self, name: str, alias: str = CHAMPION, *, why: str = "", dry_run: bool = False
    ) -> Aliases:
        """Point an alias to its previous version; repeated, further back.

        NotFoundError if there is none; ConflictError if somebody else moved the alias meanwhile.
        """
        self._existing(name)
        seen = self.aliases(name).values.get(alias)

        def back(now: Aliases) -> Aliases:
            aliases.check_unrouted(now, alias, name)
            if now.values.get(alias) != seen:
                raise errors.ConflictError(f"model {name}: somebody else moved {alias} meanwhile")
            return aliases.rolled_back(now, alias, name)

        event = functools.partial(
            aliases.event, action="rolled-back", alias=alias, by=None, why=why
        )
        return self._swap(name, back, event, dry_run=dry_run)

    def route(
        self,
        name: str,
        alias: str,
        change: Callable[[Aliases], Aliases],
        *,
        action: str,
        why: str,
        by: str | None = None,
    ) -> Aliases:
        """Change the route of an alias, or end it; `change` may be repeated, or raise to refuse."""
        event = functools.partial(aliases.event, action=action, alias=alias, by=by, why=why)
        return self._swap(name, change, event, dry_run=False)

    def refuse(self, name: str, seen: Aliases, alias: str, *, by: str, why: str) -> None:
        """Log that the version which an alias names cannot be served: once for each of its moves.

        `seen` are the aliases as the replica has read them. Any number of replicas may call this.
        """
        event = aliases.refusal(seen, alias, by=by, why=why, now=self._now())
        self._put_if_absent(keys.EVENT, event, name=name, id=event.id)

    def events(self, name: str) -> list[Event]:
        """The log of a model, the oldest first."""
        last = self.aliases(name).last  # before the others: the next move puts it among them
        listed = sorted(entry.key for entry in self._store.list(keys.EVENTS.format(name=name)))
        stored = documents.read_all(lambda key: Event.read(self._store, key), listed)
        known = {one.id: one for one in [*stored, last] if one}
        logged = {one.number for one in known.values() if one.action == "registered"}
        versions = self.versions(name, _ignore)
        registered = [one.event() for one in versions if one.number not in logged]
        return sorted(
            [*known.values(), *registered], key=lambda one: (one.at, one.alias is not None, one.id)
        )

    def _listed(self, prefix: str) -> list[tuple[str, int]]:
        return keys.versions(entry.key for entry in self._store.list(prefix))

    def _versions(self, name: str, numbers: Iterable[int], skip: Skip | None) -> list[Version]:
        def read(number: int) -> Version | errors.StorageError:
            try:
                return self.version(name, number)
            except (errors.CorruptObjectError, errors.NewerFormatError) as cause:
                return cause

        found = documents.read_all(read, sorted(numbers))
        for one in found:
            if not isinstance(one, Version):
                if skip is None:
                    raise one
                skip(one)
        return [one for one in found if isinstance(one, Version)]

    def _last(
        self, same: Callable[[Version], bool] | None, name: str, numbers: Iterable[int]
    ) -> Version | None:
        versions = self._versions(name, numbers, _ignore) if same else []
        return next(filter(same, reversed(versions)), None)

    def _existing(self, name: str) -> set[int]:
        if numbers := self.numbers(name):
            return numbers
        models = self.models()
        raise errors.NotFoundError(
            f"model: must be one of those registered ({', '.join(models) or 'none is'}), "
            f"but got {name!r}{names.near(name, models)}"
        )

    def _swap(
        self,
        name: str,
        change: Callable[[Aliases], Aliases],
        event: Callable[..., Event],
        *,
        dry_run: bool,
    ) -> Aliases:
        """Change the aliases by compare-and-swap; `change` is repeated if others were faster."""
        for _ in range(_SWAPS):
            before = self.aliases(name)
            after = change(before)
            if dry_run or after is before:
                return after
            last = event(before, after, now=self._now())
            if before.last is not None:
                self._put_if_absent(keys.EVENT, before.last, name=name, id=before.last.id)
            with contextlib.suppress(*documents.MISSED):
                return after.replace(self._store, keys.ALIASES.format(name=name), last=last)
            time.sleep(random.random() / 50)  # noqa: S311 - jitter, not a secret
        raise errors.ConflictError(f"model {name}: its aliases changed during {_SWAPS} attempts")

    def _put_if_absent(self, key: str, document: documents.Document, **names: object) -> bool:
        try:
            self._store.put_if_absent(key.format(**names), document.encode())
        except errors.ObjectExistsError:
            return False
        return True


def _signed(version: Version, key: bytes | None) -> Version:
    if key is None:
        return version
    return version.model_copy(update={"signature": signatures.sign(version, key)})


def _ignore(_: errors.StorageError) -> None:
    """Go on without a version that cannot be read."""
