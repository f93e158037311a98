"""Puts calls into shared RPCs and hands the answers back. Subclasses make the RPCs and let callers wait."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from .codec import Answer, Codec
from .errors import InvalidRequestError, ProtocolError, TimeoutError, TriremeError
from .flights import Call, Flight, Flights, Retries
from .options import Coalescing
from .recommendations import Reason, Recommendations
from .recorder import Recorder
from .requests import CheckedRequest
from .rpc import Deadline, Rpc
from .session import Limit, Session

# What finds one bad user of n by halves takes 2·log2(n) RPCs: enough for two of them. Where more are bad, the server
# rather has a fault that no bisection finds.
_RETRIES_PER_HALVING = 4

Result = Recommendations | BaseException
S = TypeVar("S", bound=Session)


class Coalescer(ABC, Generic[S]):
    """Joins the calls of one client, on its own session: a codec found out of date is so for all of its calls."""

    def __init__(self, session: S, options: Coalescing, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._max_users = options.max_users or math.inf
        self.flights = Flights(options)
        self._clock = clock
        self._loading = False

    @abstractmethod
    def _send(self, flight: Flight, rpc: Rpc) -> None:
        """Starts an RPC and sets ``flight.rpc``."""

    @abstractmethod
    def _load(self, deadline: Deadline, until: float) -> None:
        """Starts to read the model's dimensions; ``_loaded`` is called at the end."""

    @abstractmethod
    def _wake(self, call: Call, result: Result) -> None:
        """Gives a caller its result."""

    def _join(self, request: CheckedRequest, timeout: Limit, waiter: Any, recorder: Recorder) -> Call:
        """Returns a call that waits from now on. Raises ValidationError, ClosedError or OverloadedError."""
        seconds = self._session.allowed_seconds(timeout)
        connecting = self._session.codec is None and timeout is ...
        call = Call(request, self._after(seconds), seconds, connecting, waiter, recorder)
        self.flights.add(call)
        return call

    def _leave(self, call: Call) -> None:
        """Settles a call whose caller gave up."""
        if not call.settled:
            self.flights.end(call)
            self._abandon(call)

    def _abandon(self, call: Call, late: bool = False) -> None:
        """Cancels the RPC of a settled call if no other call waits for it, and the server survives that.

        late: whether the call's time ran out.
        """
        if call.flight is None or not all(other.settled for other in call.flight.calls):
            return
        if late:
            self._session.breaker.failed()
        if self._session.cancels:
            call.flight.rpc.cancel()

    def _close(self) -> None:
        for call in self.flights.clear():
            self._settle(call, self._session.closed_meanwhile())

    def _flush(self) -> None:
        """Sends what may leave now."""
        while self.flights.pending:
            codec, now = self._session.codec, self._clock()
            if codec is None:
                self._start_loading()
                return
            flight, late = self.flights.take(now, int(min(self._max_users, codec.info.max_batch_size)))
            for call in late:
                self._wake(call, self._session.timed_out(call.seconds))
            if flight is None:
                return
            self._launch(flight, codec, now)

    def _launch(self, flight: Flight, codec: Codec, now: float) -> None:
        flight.codec = codec
        # The RPC lasts until the last deadline: callers with an earlier one stop waiting by themselves.
        last = max(call.deadline for call in flight.calls)
        deadline = Deadline(None if last == math.inf else last - now)
        recorders = [call.recorder for call in flight.calls if call.recorder.wants_ledger]
        _ended(recorders, "coalesce")
        try:
            message = codec.message([call.request for call in flight.calls], ledger=bool(recorders))
        except Exception as error:  # none is known; without this, one would hold its place among the RPCs for ever
            self.flights.gave_up(flight)
            self._fail(flight.calls, error)
            return
        _ended(recorders, "serialise")
        if self._session.clock.due():
            self._session.ask_clock(codec)
        callers = [span for call in flight.calls for span in call.recorder.sampled]
        self._send(flight, Rpc("ModelInfer", message, deadline, callers))

    def _landed(self, flight: Flight, message: Any) -> None:
        """Ends a flight whose ModelInferResponse came; ``_read`` gives its results."""
        self.flights.answered(flight, self._clock())
        if not all(call.settled for call in flight.calls):
            self._session.breaker.answered()
        _ended([call.recorder for call in flight.calls if call.recorder.wants_ledger], "rpc")
        assert flight.codec is not None
        self._session.notice_version(flight.codec, message)

    def _read(self, flight: Flight, message: Any) -> list[Result]:
        """Returns one result per call. An answer that cannot be read at all is an error for each of them."""
        assert flight.codec is not None
        try:
            answer = flight.codec.answer(message, len(flight.calls))
        except ProtocolError as error:
            return [copy.copy(error) for _ in flight.calls]
        return [self._read_row(answer, row, call) for row, call in enumerate(flight.calls)]

    def _read_row(self, answer: Answer, row: int, call: Call) -> Result:
        try:
            result = answer.of(row, call.request, call.recorder)
        except ProtocolError as error:
            return error
        call.recorder.ended("parse")
        return result

    def _hand_out(self, flight: Flight, results: Iterable[Result]) -> None:
        """Gives the callers of an RPC that was answered their results."""
        gave_way = False
        for call, result in zip(flight.calls, results, strict=True):
            gave_way |= isinstance(result, Recommendations) and result.reason is Reason.OVERLOAD
            self._settle(call, result)
        if flight.calls[0].request.background:
            self.flights.gave_way(gave_way, self._clock())

    def _refused(self, flight: Flight, error: BaseException) -> None:
        """Ends a flight with an error."""
        calls = [call for call in flight.calls if not call.settled]
        if isinstance(error, TriremeError) and calls:
            self._session.noted(error)
        if not isinstance(error, InvalidRequestError):
            self.flights.failed(flight)
            self._fail(calls, error)
            return
        self.flights.gave_up(flight)
        if not self._sent_again(flight, calls):
            self._fail(calls, error)

    def _sent_again(self, flight: Flight, calls: list[Call]) -> bool:
        """Lets the calls of an RPC that the server refused wait again; returns whether that may help.

        Once with the model's dimensions read again, if they were forgotten since. With the same dimensions, one of several
        users may be the reason: each half is sent apart, so that the others are answered.
        """
        if flight.retries is None:
            flight.retries = Retries(_RETRIES_PER_HALVING * math.ceil(math.log2(max(1, len(calls)))))
            if self._session.codec is not flight.codec:
                self.flights.add_again(calls, flight.retries)
                return True
        if len(calls) < 2 or flight.retries.left < 2:
            return False
        flight.retries.left -= 2
        middle = len(calls) // 2
        self.flights.add_again(calls[:middle], flight.retries)
        self.flights.add_again(calls[middle:], flight.retries)
        return True

    def _start_loading(self) -> None:
        if not self._loading:
            self._loading = True
            until = max(call.deadline for call in self.flights.waiting())
            self._load(Deadline(None if until == math.inf else max(0.0, until - self._clock())), until)

    def _loaded(self, error: BaseException | None, until: float) -> None:
        """Goes on once the model's dimensions were read, or could not be because of an error, by the moment ``until``."""
        self._loading = False
        waiting = self.flights.waiting()
        if isinstance(error, TimeoutError):  # calls that came later may have the time to try again
            waiting = [call for call in waiting if call.deadline <= until]
        if error is not None:
            self._fail(waiting, error)
            return
        for call in waiting:
            if call.connecting:
                call.connecting, call.seconds = False, self._session.timeout.request
                call.deadline = self._after(call.seconds)
                self.flights.note_deadline(call)

    def _fail(self, calls: Iterable[Call], error: BaseException) -> None:
        """Gives each caller an error of its own: a traceback grows where it is raised."""
        for call in calls:
            if isinstance(error, TimeoutError):
                self._settle(call, self._session.timed_out(call.seconds))
            else:
                self._settle(call, copy.copy(error) if isinstance(error, TriremeError) else error)

    def _settle(self, call: Call, result: Result) -> None:
        """Ends a call with its result, unless it has ended already."""
        if not call.settled:
            self.flights.end(call)
            self._wake(call, result)

    def _after(self, seconds: float | None) -> float:
        return math.inf if seconds is None else self._clock() + seconds


def _ended(recorders: Iterable[Recorder], part: str) -> None:
    for recorder in recorders:
        recorder.ended(part)
