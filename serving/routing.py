"""Which of two versions answers a request, and what is counted of both."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eagleray import errors, machine
from eagleray.state import aliases
from eagleray.state.evidence import Counts, Evidence
from serving import admission, batching, capture, shares
from serving.predictor import Predictor
from serving.protocol import Body
from serving.wire import Answers, Encoded, Exchange, Header

log = logging.getLogger("ray.serve")

Outcome = Callable[[Mapping[str, Any]], str]
MOST_SHADOWS = 16
"""Requests whose answers a shadow is computing; further ones are not compared."""
MOST_SHARE = 0.95
"""Of the requests for a candidate: without any for the stable version nothing is compared."""
LATE_S = 10.0
"""A candidate that takes longer has failed a request."""
_LOG_S = 10.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Chooses the candidate for a share of the requests: by a header's value, or else by chance.

    As the share grows, a value that has got the candidate keeps it.
    """

    share: float
    header: bytes | None
    salt: bytes  # another one shuffles the values anew

    @classmethod
    def of(cls, route: aliases.Route) -> Choice:
        header = route.sticky.lower().encode() if route.sticky else None
        share = route.share if route.shadow else min(route.share, MOST_SHARE)
        return cls(share, header, route.rollout.encode())

    def candidate(self, headers: Mapping[bytes, bytes], chance: float) -> bool:
        """Whether the candidate is chosen; `chance` is uniform in [0, 1)."""
        return self._at(headers, chance) < self.share

    def control(self, headers: Mapping[bytes, bytes], chance: float) -> bool:
        """Whether the control is chosen, for as many requests as the candidate has."""
        return self.share <= self._at(headers, chance) < 2 * self.share

    def _at(self, headers: Mapping[bytes, bytes], chance: float) -> float:
        value = headers.get(self.header) if self.header else None
        return chance if value is None else self._place(value)

    def _place(self, value: bytes) -> float:
        digest = hashlib.blake2b(value, digest_size=8, key=self.salt[:64]).digest()
        return int.from_bytes(digest) / 2**64


class Tally:
    """What this replica counts of one version; one thread counts, others read."""

    def __init__(self) -> None:
        self._requests = self._errors = self._compared = self._differing = 0
        self._labels = self._hits = 0
        self._seconds, self._outcomes = Counter[int](), Counter[str]()
        self._turn: int | None = None

    def answered(self, seconds: float, outcome: str, turn: int | None = None) -> None:
        """Count a request by its time, and what was predicted for its first row.

        The rows of a request depend on each other, requests hopefully do not; but those of one
        turn are answered together, so the time of its first request counts.
        """
        self._requests += 1
        if turn is None or turn != self._turn:
            self._seconds[shares.bucket(seconds)] += 1
        self._turn = turn
        if outcome:
            self._outcomes[outcome] += 1

    def failed(self) -> None:
        self._requests += 1
        self._errors += 1

    def compared(self, rows: int, differing: int) -> None:
        self._compared += rows
        self._differing += differing

    def labelled(self, *, right: bool) -> None:
        self._labels += 1
        self._hits += right

    def counts(self) -> Counts:
        return Counts(
            requests=self._requests,
            errors=self._errors,
            seconds=dict(self._seconds),
            outcomes=dict(self._outcomes),
            compared=self._compared,
            differing=self._differing,
            labels=self._labels,
            hits=self._hits,
        )


class Split:
    """Shares the requests of a stable version with a candidate, for one rollout.

    A request that the candidate fails is answered by the stable version, and counts against it.
    One that its client gave up has failed too, whichever version was to answer it.
    The candidate is compared with a control: the stable version with as many requests in batches of
    their own, since the fewer requests share a batch, the longer each of them takes. Quick batches
    run together, and their answers come together, so there the control's are the stable version's,
    and one draw decides for all requests of a turn: they make one batch in place of two.
    """

    def __init__(
        self,
        rollout_id: str,
        capacity: admission.Capacity,
        outcome: Outcome,
        schedule: batching.Schedule,
    ) -> None:
        """`outcome` says what an answer of either version counts as; both run by `schedule`."""
        self.rollout, self._capacity, self._outcome = rollout_id, capacity, outcome
        self._schedule, self._drawn = schedule, (-1, 0.0)
        self.stable, self.candidate = Tally(), Tally()
        self._logged = -_LOG_S
        self._shadows: set[asyncio.Task[None]] = set()
        self._versions: tuple[Predictor, Predictor, Predictor, Choice, bool] | None = None
        self._memory_mb = 0.0  # of this process when the candidate came

    def follow(
        self, stable: Predictor, control: Predictor, candidate: Predictor, route: aliases.Route
    ) -> None:
        """Share the requests of the stable version as the route says."""
        self._memory_mb = self._memory_mb or _resident_mb()
        self._versions = stable, control, candidate, Choice.of(route), route.shadow

    def labelled(self, version: int, *, right: bool) -> None:
        """Count a request that the truth of came; nothing for a version that is not compared."""
        if self._versions is None:
            return
        stable, _, candidate = self._versions[:3]
        for tally, one in ((self.stable, stable), (self.candidate, candidate)):
            if one.number == version:
                tally.labelled(right=right)

    def serves(self, version: int) -> Predictor | None:
        """The candidate, if that is its number."""
        candidate = self._versions[2] if self._versions is not None else None
        return candidate if candidate is not None and candidate.number == version else None

    def evidence(self, refused: str | None) -> Evidence:
        """What was counted of both, and how much the processes of the candidate have grown."""
        grown_mb = 0.0
        if self._versions is not None:
            elsewhere = self._versions[2].remote
            there_mb = elsewhere.grown_mb if elsewhere is not None else 0.0
            grown_mb = max(there_mb, _resident_mb() - self._memory_mb)
        return Evidence(
            stable=self.stable.counts(),
            candidate=self.candidate.counts(),
            grown_mb=round(grown_mb, -1),
            refused=refused,
        )

    async def answer(
        self,
        body: Body,
        reservation: admission.Reservation,
        headers: Mapping[bytes, bytes],
        exchange: Exchange,
    ) -> tuple[Encoded, Header]:
        """Answer as `Predictor.answer`; also return the header that names the version."""
        assert self._versions is not None
        stable, control, candidate, choice, shadow = self._versions
        quick = stable.is_quick and candidate.is_quick
        turn = self._schedule.turn if quick and not shadow else None
        chance = self._chance(turn)
        chosen = choice.candidate(headers, chance)
        if chosen and not shadow:
            return await self._try(stable, candidate, body, reservation, exchange, turn)
        if not chosen and not choice.control(headers, chance):
            return await stable.answer(body, reservation, exchange), stable.header
        control = stable if stable.is_quick else control
        try:
            predictions, seconds = await control.timed(body, reservation, exchange)
        except errors.RequestError:
            raise
        except Exception:
            self.stable.failed()
            raise
        except asyncio.CancelledError:
            if not shadow:  # which is not cancelled
                self.stable.failed()
            raise
        self.stable.answered(seconds, self._outcome(predictions[0]), turn)
        if chosen:
            self._compare_later(candidate, bytes(body), exchange, predictions)
        return control.encode(exchange, predictions), control.header

    def _chance(self, turn: int | None) -> float:
        """A draw in [0, 1), the same for all requests of a turn.

        Without a turn each has its own: while a slow batch runs, further requests come, so a
        version that is slower would get more of them.
        """
        if turn is None or turn != self._drawn[0]:
            self._drawn = -1 if turn is None else turn, random.random()  # noqa: S311 - no secret
        return self._drawn[1]

    async def _try(
        self,
        stable: Predictor,
        candidate: Predictor,
        body: Body,
        reservation: admission.Reservation,
        exchange: Exchange,
        turn: int | None,
    ) -> tuple[Encoded, Header]:
        """Answer by the candidate, or if it fails by the stable version."""
        try:
            async with asyncio.timeout(LATE_S):
                predictions, seconds = await candidate.timed(body, reservation, exchange)
            self.candidate.answered(seconds, self._outcome(predictions[0]), turn)
            return candidate.encode(exchange, predictions), candidate.header
        except errors.UnavailableError:  # in a deployment of its own, which has no room now
            return await stable.answer(body, reservation, exchange), stable.header
        except errors.RequestError as refusal:
            if refusal.status == 503:  # of the replica, whatever the version
                raise
            cause: Exception = refusal
        except Exception as failure:  # noqa: BLE001 (a user's model may raise anything)
            cause = failure
        except asyncio.CancelledError:  # its client waits no longer
            self.candidate.failed()
            raise
        # raises what is wrong with the request, which is then not the candidate's fault
        answer = await stable.answer(body, reservation, exchange)
        self._fail(candidate, cause)
        return answer, stable.header

    def _fail(self, candidate: Predictor, cause: Exception) -> None:
        self.candidate.failed()
        if time.monotonic() - self._logged >= _LOG_S:
            self._logged = time.monotonic()
            law = "version %s failed, and the stable version answered: %r"
            log.error(law, candidate.number, cause, exc_info=cause)

    def _compare_later(
        self, candidate: Predictor, body: bytes, exchange: Exchange, answers: Answers
    ) -> None:
        """Let the candidate answer too, when the request has its answer; or not under load."""
        if len(self._shadows) < MOST_SHADOWS:
            task = asyncio.create_task(self._compare(candidate, body, exchange, answers))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)

    async def _compare(
        self, candidate: Predictor, body: bytes, exchange: Exchange, answers: Answers
    ) -> None:
        capture.sampled.set(None)  # only what was answered is kept
        reservation = admission.Reservation(self._capacity)
        try:
            async with asyncio.timeout(LATE_S):
                theirs, seconds = await candidate.timed(body, reservation, exchange)
        except Exception as cause:  # noqa: BLE001 (a user's model may raise anything)
            if not isinstance(cause, errors.RequestError) or cause.status != 503:
                self._fail(candidate, cause)
            return
        finally:
            reservation.release()
        outcomes = [[self._outcome(one) for one in each] for each in (answers, theirs)]
        self.candidate.answered(seconds, outcomes[1][0])
        differing = sum(one != other for one, other in zip(*outcomes, strict=True))
        self.candidate.compared(len(answers), differing)


def _resident_mb() -> float:
    return machine.resident_memory() / 2**20
