"""What happens to which process, and when: drawn from a seed alone.

An event comes when its search has made so much progress, not at a time: a seed replays.
"""

import itertools
import random
from dataclasses import dataclass

VICTIMS = ("worker", "raylet", "driver", "head", "s3")
KINDS = ("asha", "workers", "packs", "alone")
"""Kinds of searches, see `searched`; each has a file in this order."""
PER_SEARCH = 5
FIRST, LAST = 0.05, 0.8
"""The part of a search's least work after which its first and last events come."""


@dataclass(frozen=True)
class Event:
    """A kill (SIGKILL) or a pause (SIGSTOP past the lease, then SIGCONT) of one process."""

    after: float  # part of the least work that the search does
    victim: str
    act: str
    pick: float  # from 0 to 1: which one of several


@dataclass(frozen=True)
class Search:
    """A search, and what happens while it runs, in order."""

    kind: str
    events: tuple[Event, ...]


def draw(seed: int, events: int) -> list[Search]:
    """Draw so many events; up to five are kills alone, more are pauses by half.

    Every victim has its turn before one has its second.
    """
    random_ = random.Random(seed)
    acts = ("kill",) if events <= len(VICTIMS) else ("kill", "pause")
    deck = list(itertools.product(VICTIMS, acts))
    happens: list[tuple[str, str]] = []
    while len(happens) < events:
        happens += random_.sample(deck, len(deck))
    count = max(2, round(events / PER_SEARCH))
    shares = [happens[:events][number::count] for number in range(count)]
    kinds = itertools.cycle(KINDS)
    return [Search(next(kinds), _events(random_, share)) for share in shares]


def _events(random_: random.Random, share: list[tuple[str, str]]) -> tuple[Event, ...]:
    times = sorted(random_.uniform(FIRST, LAST) for _ in share)
    return tuple(
        Event(round(after, 3), victim, act, round(random_.random(), 3))
        for after, (victim, act) in zip(times, share, strict=True)
    )
