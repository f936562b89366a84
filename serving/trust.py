"""Which versions a replica may load: with code of their own or without, signed or not."""

from __future__ import annotations

from pathlib import Path

from eagleray import code, errors
from eagleray.state import signatures
from eagleray.state.models import Version
from serving.settings import Settings


class Trust:
    """Refuses versions before a file of theirs is read."""

    def __init__(
        self, *, allow_own_code: bool = True, signing_key_file: Path | None = None
    ) -> None:
        """UserError if there is a file of keys, but it cannot be read."""
        self._allow, self._file = allow_own_code, signing_key_file
        if signing_key_file is not None:
            signatures.keys(signing_key_file)

    @classmethod
    def of(cls, settings: Settings) -> Trust:
        file = settings.signing_key_file
        return cls(
            allow_own_code=settings.allow_own_code, signing_key_file=Path(file) if file else None
        )

    def check(self, version: Version) -> None:
        """ServingError if the version may not be loaded.

        UserError if the keys cannot be read, which are read each time: they rotate without a start.
        """
        own = sorted(path for path in version.files if path.startswith(code.FOLDER))
        if own and not self._allow:
            law = "a version must have no code of its own unless `allow_own_code` is set"
            at = f"{version.name} version {version.number}"
            raise errors.ServingError(
                f"{at}: {law} (the chart: `serving.allowOwnCode`), but has {own[0]}"
            )
        if self._file is not None:
            signatures.check(version, signatures.keys(self._file))
