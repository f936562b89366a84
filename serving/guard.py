"""What is checked of a request before its body is read; each part is off without its setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.types import Scope

from serving import keys, rates
from serving.settings import Settings


class Guard:
    """Refuses requests by their path, headers and caller.

    A caller is a key. Without keys it is the value of `client_header`, or else the address that the
    connection comes from, which behind HAProxy is HAProxy's.
    """

    def __init__(
        self,
        known: keys.Keys | None = None,
        limits: rates.Rates | None = None,
        *,
        client_header: str = "",
    ) -> None:
        self._keys, self._rates = known, limits
        self._header = client_header.lower().encode()

    @classmethod
    def of(cls, settings: Settings) -> Guard | None:
        """None where nothing is to be checked; UserError for a file that cannot be read."""
        known, limits, per_s = None, None, settings.rate_per_s
        if settings.keys_file:
            known = keys.Keys(Path(settings.keys_file))
        if per_s:
            limits = rates.Rates(per_s, settings.rate_burst or per_s)
        if known is None and limits is None:
            return None
        return cls(known, limits, client_header=settings.client_header)

    @property
    def asks_for_keys(self) -> bool:
        return self._keys is not None

    def check(self, path: str, headers: Mapping[bytes, bytes], scope: Scope) -> None:
        """RequestError is 401, 403 or 429; health and readiness are never refused."""
        key = self._keys.check(path, headers) if self._keys is not None else None
        if self._rates is not None and path not in keys.OPEN:
            self._rates.check(key or headers.get(self._header) or _address(scope))


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
