"""Rates of requests, a token bucket for each caller."""

import time
from collections import OrderedDict
from collections.abc import Callable

from eagleray import errors

MOST_CALLERS = 10_000
"""Buckets that are kept; the one that was used longest ago leaves."""


class Rates:
    """Lets each caller send `per_s` requests a second, and `burst` at once."""

    def __init__(
        self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s, self._burst, self._clock = per_s, max(1.0, burst), clock
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()  # tokens, when

    def check(self, caller: object) -> None:
        """Take a token of the caller's; RequestError 429 if there is none."""
        now = self._clock()
        tokens, since = self._buckets.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._per_s)
        self._buckets[caller] = tokens - (tokens >= 1), now  # the latest used
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            law = f"at most {self._per_s:g} requests a second are answered, {self._burst:g} at once"
            raise errors.RequestError(f"{law}, but got more", status=429)
