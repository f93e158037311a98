"""The cache of one client, but for how it waits: what a call finds, whom it waits for, and what it leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from types import EllipsisType
from typing import Any, NamedTuple

from ..errors import ClosedError, TimeoutError
from ..options import check_time_left
from ..recommendations import Recommendations
from ..recorder import NO_CALL, CacheState, Recorder
from ..requests import CheckedRequest, check_int
from ..rpc import T
from ..session import Limit
from ..targets import Targets
from .entries import CacheCounts, Entries, Key
from .flights import Flight, Flights, Outcome
from .options import Cache
from .rules import aged, is_final, is_negative, key_of
from .shared import Found, Shared
from .vocabularies import Vocabularies

# Answers that are asked for in the background at a time, and the seconds for which none is after one that could not be kept.
_MOST_RENEWALS, _RENEWAL_PAUSE = 32, 1.0


class Wait(NamedTuple):
    """Asks to wait for a flight, so many seconds (None: no limit); whether it has ended is sent back."""

    flight: Flight
    seconds: float | None


class Read(NamedTuple):
    """Asks for what Redis holds; a ``Found`` is sent back, or None if that takes too long."""

    key: Key


class Ask(NamedTuple):
    """Asks for the server's answer within a time limit; it is sent back, or its error is raised."""

    timeout: Limit


Step = Wait | Read | Ask
Steps = Generator[Step, Any, T]


class AnswerCache:
    """``client.cache``: counts, and ``forget``. What else is public here is for the client.

    Args:
        options: of the cache.
        targets: the client's servers.
    """

    def __init__(self, options: Cache, targets: Targets, clock: Callable[[], float] = time.monotonic) -> None:
        self._targets, self._clock = targets, clock
        self._entries = Entries(options, clock)
        self._flights = Flights(self._entries)
        self._vocabularies = Vocabularies(targets, self._entries)
        self._renewals: set[Flight] = set()
        self._no_renewal_before = float("-inf")
        # Of the last answer, and the generation that began when it came to be that.
        self._bundle, self._bundle_since = "", 0
        self._bundles: dict[str, str] = {}  # by version
        self._refused = self._shared = 0
        self.redis = Shared(options, self._entries)

    @property
    def counts(self) -> CacheCounts:
        """What became of calls and answers so far."""
        return self._entries.counts._replace(
            shared=self._shared,
            refused=self._refused,
            store_hits=self.redis.hits,
            store_age_s=self.redis.hits_age_s,
            store_failures=self.redis.failures,
            corrupt=self.redis.corrupt,
        )

    @property
    def state(self) -> CacheState:
        """Whether answers are kept: "keeps", or "deaf" while it cannot be heard what users do."""
        return "keeps" if self.redis.hears else "deaf"

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        return self._targets.closing

    def forget(self, user_id: int) -> None:
        """Ends all answers to a user: those that were kept, and those that are being asked for. Call it for what the user did.

        With ``Cache(store=…)``, that holds for all processes that share it.

        Raises:
            ValidationError: ``user_id`` is no int >= 0.
        """
        user = check_int("user_id", user_id, 0)
        self._entries.forget(user)
        self.redis.forget(user)

    def look(self, request: CheckedRequest, recorder: Recorder, timeout: Limit) -> tuple[Recommendations, bool] | None:
        """Returns the answer that is kept for a request, and whether it is to be renewed; None if there is none.

        A call whose time has run out is answered as well.

        Raises:
            ClosedError: the client is closed.
            ValidationError: ``timeout`` is no time limit.
        """
        self._targets.check_open()
        if not isinstance(timeout, EllipsisType):
            with suppress(TimeoutError):
                check_time_left(timeout)
        hit = self._entries.get(key_of(request, self._bundle))
        recorder.cached("miss" if hit is None else "stale" if hit.stale else "hit")
        if hit is None:
            return None
        return aged(hit.answer, hit.age_s), hit.stale

    def steps(self, request: CheckedRequest, recorder: Recorder, timeout: Limit) -> Steps[Recommendations]:
        """Takes the steps of a call that found nothing: it waits for an equal one, or asks, for the others as well.

        Raises:
            TimeoutError: the time was over before another call was answered.
            TriremeError: what the other call, or this one, ended with.
        """
        began, waited = self._clock(), False
        connecting = not self._targets.known.ready
        key = key_of(request, self._bundle)
        if request.context:
            self._vocabularies.look()
        while True:
            flight, leads = self._flights.join(key, request.background)
            left = self._targets.time_left(timeout, began, connecting)
            if leads:
                return (yield from self._lead(flight, request, recorder, left if waited else timeout))
            if not (yield Wait(flight, left)):
                raise self._targets.known.session.timed_out(self._targets.time_left(timeout, self._clock(), connecting))
            waited = True
            if flight.shared:
                self._shared += 1
                recorder.cached("shared")
                recorder.ended("cache")
                return flight.result()

    def renewal(self, request: CheckedRequest) -> Steps[Recommendations | None] | None:
        """Returns the steps by which a kept answer is asked for anew in the background; None if that is not to be done now."""
        if len(self._renewals) >= _MOST_RENEWALS or self._clock() < self._no_renewal_before:
            return None
        key = key_of(request, self._bundle)
        return None if self._flights.has(key, request.background) else self._renew(key, request)

    def _renew(self, key: Key, request: CheckedRequest) -> Steps[Recommendations | None]:
        flight, leads = self._flights.join(key, request.background)
        if not leads:
            return None
        self._renewals.add(flight)
        kept = False
        try:
            answer = yield from self._lead(flight, request, NO_CALL, ...)
            kept = is_final(answer)
            return answer
        finally:
            self._renewals.discard(flight)
            if not kept:
                self._no_renewal_before = self._clock() + _RENEWAL_PAUSE

    def _lead(
        self, flight: Flight, request: CheckedRequest, recorder: Recorder, timeout: Limit
    ) -> Steps[Recommendations]:
        """Finds the answer of a flight, or asks for it."""
        outcome: Outcome = ClosedError("the call ended before it was answered")
        try:
            outcome = yield from self._answer(flight, request, recorder, timeout)
            return outcome
        except BaseException as error:
            outcome = error
            raise
        finally:
            self._flights.end(flight, request.background, outcome)

    def _answer(
        self, flight: Flight, request: CheckedRequest, recorder: Recorder, timeout: Limit
    ) -> Steps[Recommendations]:
        began, found = self._clock(), None
        if flight.key.bundle and self.redis.may_read():
            found = yield Read(flight.key)
            recorder.read("error" if found is None else found.outcome, self._clock() - began)
            if found is not None and found.answer is not None:
                self._keep(flight.key, found.answer, flight.generation, found.age_s)
                recorder.cached("store")
                recorder.ended("cache")
                return aged(found.answer, found.age_s)
            if not isinstance(timeout, EllipsisType) and timeout is not None:
                timeout -= self._clock() - began
        recorder.ended("cache")
        answer: Recommendations = yield Ask(timeout)
        self.came(request, answer, flight.generation, found)
        return answer

    def many(self, requests: Sequence[CheckedRequest]) -> tuple[int, list[Recommendations | None]]:
        """Returns what ``came`` needs, and the answers that are kept, None where there is none."""
        if any(request.context for request in requests):
            self._vocabularies.look()
        generation = self._entries.generation
        hits = [self._entries.get(key_of(request, self._bundle), stale=False) for request in requests]
        return generation, [None if hit is None else aged(hit.answer, hit.age_s) for hit in hits]

    def came(
        self, request: CheckedRequest, answer: Recommendations, generation: int, found: Found | None = None
    ) -> None:
        """Notes a server's answer, and keeps it if it is complete.

        Args:
            request: what was asked.
            answer: as it came.
            generation: of the entries when it was asked for.
            found: what was found of its user in Redis before.
        """
        bundle = self._bundle_of(answer)
        # An answer that was asked for before another bundle answered may come after that: it does not bring its bundle back.
        if bundle != self._bundle and generation >= self._bundle_since:
            self._bundle_since = self._entries.begin_generation()
            self._bundle = bundle
        if not is_final(answer):
            self._refused += 1
        elif bundle and (not request.context or self._vocabularies.fit(generation)):
            key = key_of(request, bundle)
            if self._keep(key, answer, generation) and found is not None:
                self.redis.write(key, answer, found.stamp)

    def _keep(self, key: Key, answer: Recommendations, generation: int, age_s: float = 0.0) -> bool:
        if not self.redis.hears:
            return False
        return self._entries.put(key, answer, generation, negative=is_negative(answer), age_s=age_s)

    def _bundle_of(self, answer: Recommendations) -> str:
        """Returns which bundle has answered; "" if it is not known, as of a version that is new to the client.

        One that was known stays so: of servers of two versions behind a balancer, the client reads one at a time.
        """
        version = answer.model_version
        codecs = [target.session.codec for target in self._targets.all]
        known = {codec.info.bundle for codec in codecs if codec is not None and codec.info.version == version}
        if known:
            self._bundles[version] = known.pop() if len(known) == 1 else ""
        return self._bundles.get(version, "")

    def close(self) -> None:
        """Ends what goes on in the background."""
        self.redis.close()
