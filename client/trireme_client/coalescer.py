"""Calls into shared RPCs and their answers back to the callers, without any I/O: what a coalescing client does, except
for how RPCs are made and how callers wait."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from .base import BaseClient, Deadline, Rpc
from .codec import Answer, Codec
from .errors import InvalidRequestError, ProtocolError, TimeoutError, TriremeError, ValidationError
from .ledger import CallClock
from .options import Coalescing
from .recommendations import Recommendations
from .requests import CheckedRequest
from .window import Call, Flight, Window

if TYPE_CHECKING:
    from .spans import CallSpan

Result = Recommendations | BaseException


class Coalescer(ABC):
    """Joins the calls of one client. Its subclasses make the RPCs and let callers wait: for asyncio, and for threads.

    It works on the client's own state: a codec that a call through one path finds out of date is so for all.
    """

    def __init__(self, client: BaseClient, options: Coalescing, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._max_users = options.max_users or math.inf
        self._window = Window(options)
        self._clock = clock
        self._loading = False

    @abstractmethod
    def _send(self, flight: Flight, rpc: Rpc) -> None:
        """Starts an RPC and sets `flight.rpc`, which has a method `cancel`."""

    @abstractmethod
    def _load(self, deadline: Deadline, until: float) -> None:
        """Starts to read the model's dimensions; its end is told to `_loaded`."""

    @abstractmethod
    def _wake(self, call: Call, result: Result) -> None:
        """Gives a caller its result."""

    def _join(
        self,
        request: CheckedRequest,
        timeout: float | None | EllipsisType,
        waiter: Any,
        clock: CallClock | None,
        caller: CallSpan | None,
    ) -> Call:
        """A call that waits from now on. Raises ValidationError, ClosedError and OverloadedError."""
        seconds = self._client._allowed_seconds(timeout)
        connecting = self._client._codec is None and isinstance(timeout, EllipsisType)
        call = Call(request, self._after(seconds), seconds, connecting, waiter, clock, caller)
        self._window.add(call)
        return call

    def _leave(self, call: Call) -> None:
        """A caller does not wait any more. The RPC of which it was the last is given up."""
        if not call.settled:
            self._window.end(call)
            if call.flight is not None and all(other.settled for other in call.flight.calls):
                call.flight.rpc.cancel()

    def _close(self) -> None:
        for call in self._window.clear():
            self._settle(call, self._client._closed_meanwhile())

    def _flush(self, hurry: bool = False) -> None:
        """Sends what may leave now."""
        while self._window.pending:
            codec, now = self._client._codec, self._clock()
            if codec is None:
                self._start_loading()
                return
            flight, late = self._window.take(now, int(min(self._max_users, codec.info.max_batch_size)), hurry)
            for call in late:
                self._wake(call, self._client._timed_out(call.seconds))
            if flight is None:
                return
            self._launch(flight, codec, now)

    def _launch(self, flight: Flight, codec: Codec, now: float) -> None:
        flight.codec = codec
        flight.calls = [call for call in flight.calls if self._fits(call, codec)]
        if not flight.calls:
            self._window.gave_up(flight)
            return
        # Until the last deadline: callers with an earlier one stop waiting by themselves.
        last = max(call.deadline for call in flight.calls)
        deadline = Deadline(None if last == math.inf else last - now)
        clocks = [call.clock for call in flight.calls if call.clock is not None]
        _end_part(clocks, "coalesce")
        message = codec.message([call.request for call in flight.calls], ledger=bool(clocks))
        _end_part(clocks, "serialise")
        callers = [call.caller for call in flight.calls if call.caller is not None]
        self._send(flight, Rpc("ModelInfer", message, deadline, callers))

    def _fits(self, call: Call, codec: Codec) -> bool:
        try:
            codec.check_k(call.request)
        except ValidationError as error:
            self._settle(call, error)
            return False
        return True

    def _landed(self, flight: Flight, message: Any) -> None:
        """A flight's ModelInferResponse came; `_read` gives its results."""
        self._window.answered(flight, self._clock())
        _end_part([call.clock for call in flight.calls if call.clock is not None], "rpc")
        if flight.codec is not None:
            self._client._notice_version(flight.codec, message)

    def _read(self, calls: Sequence[Call], message: Any) -> list[Result]:
        """One result per call. An answer that no row can be read from is an error for each of them."""
        try:
            answer = Answer(message, len(calls))
        except ProtocolError as error:
            return [copy.copy(error) for _ in calls]
        return [self._read_row(answer, row, call) for row, call in enumerate(calls)]

    def _read_row(self, answer: Answer, row: int, call: Call) -> Result:
        try:
            result = answer.of(row, call.request)
        except ProtocolError as error:
            return error
        if call.clock is not None:
            call.clock.told = answer.ledger(row)
            call.clock.end("parse")
        return result

    def _refused(self, flight: Flight, error: BaseException) -> None:
        """A flight ended with an error.

        If the server refuses the request of several users, one of them may be the reason: each half goes again, so
        that the others are answered.
        """
        calls = [call for call in flight.calls if not call.settled]
        if isinstance(error, InvalidRequestError):
            self._window.gave_up(flight)
            if len(calls) > 1:
                middle = len(calls) // 2
                self._window.add_again(calls[:middle])
                self._window.add_again(calls[middle:])
                return
        else:
            self._window.failed(flight)
        self._fail(calls, error)

    def _start_loading(self) -> None:
        if not self._loading:
            self._loading = True
            until = max(call.deadline for call in self._window.waiting())
            self._load(Deadline(None if until == math.inf else max(0.0, until - self._clock())), until)

    def _loaded(self, error: BaseException | None, until: float) -> None:
        """The model's dimensions were read, or were not because of an error, before the moment `until`."""
        self._loading = False
        waiting = self._window.waiting()
        if isinstance(error, TimeoutError):  # whoever came later may have the time to try again
            waiting = [call for call in waiting if call.deadline <= until]
        if error is not None:
            self._fail(waiting, error)
            return
        for call in waiting:
            if call.connecting:
                call.connecting, call.seconds = False, self._client._timeout.request
                call.deadline = self._after(call.seconds)

    def _fail(self, calls: Iterable[Call], error: BaseException) -> None:
        """Each caller gets an error of its own: a traceback grows where it is raised."""
        for call in calls:
            if isinstance(error, TimeoutError):
                self._settle(call, self._client._timed_out(call.seconds))
            else:
                self._settle(call, copy.copy(error) if isinstance(error, TriremeError) else error)

    def _settle(self, call: Call, result: Result) -> None:
        """Ends a call, wherever it is; nothing if it has ended."""
        if not call.settled:
            self._window.end(call)
            self._wake(call, result)

    def _after(self, seconds: float | None) -> float:
        return math.inf if seconds is None else self._clock() + seconds


def with_ledger(result: Recommendations, clock: CallClock | None) -> Recommendations:
    """What a caller gets once he runs again."""
    if clock is None:
        return result
    clock.end("wake")
    return replace(result, ledger=clock.ledger())


def _end_part(clocks: Iterable[CallClock], part: str) -> None:
    for clock in clocks:
        clock.end(part)
