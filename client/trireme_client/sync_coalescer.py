"""Coalescing for threads: callers wait on locks of their own, and gRPC's thread brings the answers.

There is no thread of its own: whoever joins, and whoever brings an answer, sends what may leave.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import grpc

from .base import BaseClient, Deadline, Rpc, Steps
from .coalescer import Coalescer, Result, with_ledger
from .ledger import CallClock
from .options import Coalescing
from .recommendations import Recommendations
from .requests import CheckedRequest
from .window import Call, Flight

if TYPE_CHECKING:
    from .spans import CallSpan


class SyncCoalescer(Coalescer):
    """start: makes an RPC, as a gRPC future; run: takes steps that make RPCs, and returns when they are done."""

    def __init__(
        self,
        client: BaseClient,
        options: Coalescing,
        start: Callable[[Rpc], Any],
        run: Callable[[Steps[Any]], Any],
    ) -> None:
        super().__init__(client, options)
        self._start = start
        self._run = run
        # Reentrant: gRPC tells of an RPC that ends at once in the thread that starts it.
        self._lock = threading.RLock()

    def recommend(
        self,
        request: CheckedRequest,
        timeout: float | None | EllipsisType,
        clock: CallClock | None = None,
        caller: CallSpan | None = None,
    ) -> Recommendations:
        waiter = threading.Lock()
        waiter.acquire()
        with self._lock:
            call = self._join(request, timeout, waiter, clock, caller)
            self._flush()
        try:
            self._wait(call)
        except BaseException:  # KeyboardInterrupt in the main thread
            with self._lock:
                self._leave(call)
            raise
        if isinstance(call.result, BaseException):
            raise call.result
        assert call.result is not None
        return with_ledger(call.result, clock)

    def close(self) -> None:
        """Every call that waits or travels raises ClosedError."""
        with self._lock:
            self._close()

    def _wait(self, call: Call) -> None:
        """Returns when the call has its result, a TimeoutError at its deadline."""
        while not call.waiter.acquire(timeout=self._patience(call)):
            with self._lock:
                now = self._clock()
                if call.settled:
                    continue
                if call.deadline <= now:
                    self._leave(call)
                    raise self._client._timed_out(call.seconds)
                self._flush(hurry=self._window.leave_by(call) <= now)

    def _patience(self, call: Call) -> float:
        """Seconds to wait before looking again: until the deadline, or earlier until a waiting call is in a hurry."""
        now = self._clock()
        moment = call.deadline
        if call.flight is None and self._window.leave_by(call) > now:
            moment = self._window.leave_by(call)
        if call.connecting:  # its deadline may become an earlier one
            moment = min(moment, now + (self._client._timeout.request or math.inf))
        return min(max(0.0, moment - now), threading.TIMEOUT_MAX)

    def _send(self, flight: Flight, rpc: Rpc) -> None:
        try:
            flight.rpc = self._start(rpc)
        except Exception as error:  # gRPC's for a channel that was closed
            self._refused(flight, error)
        else:
            flight.rpc.add_done_callback(partial(self._done, flight, rpc))

    def _done(self, flight: Flight, rpc: Rpc, future: Any) -> None:
        try:
            message = future.result()
        except grpc.FutureCancelledError:  # all of its callers are gone, or the client was closed
            self._end(partial(self._window.gave_up, flight))
        except grpc.RpcError as error:
            self._end(partial(self._refused, flight, self._client._failure(error, rpc.deadline)))
        else:
            # The next RPC leaves before this answer is read, so that the server does not wait for that.
            self._end(partial(self._landed, flight, message))
            results = self._read(flight.calls, message)
            with self._lock:
                for call, result in zip(flight.calls, results, strict=True):
                    self._settle(call, result)

    def _end(self, tell: Callable[[], None]) -> None:
        with self._lock:
            tell()
            self._flush()

    def _load(self, deadline: Deadline, until: float) -> None:
        # In a thread of its own, since a caller may have less time than the others that wait for the same.
        threading.Thread(target=self._read_dimensions, args=(deadline, until), daemon=True).start()

    def _read_dimensions(self, deadline: Deadline, until: float) -> None:
        failure: BaseException | None = None
        try:
            self._run(self._client._codec_steps(deadline))
        except Exception as error:
            failure = error
        self._end(partial(self._loaded, failure, until))

    def _wake(self, call: Call, result: Result) -> None:
        call.result = result
        call.waiter.release()
