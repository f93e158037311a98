"""Coalescing for threads: callers wait on locks of their own, and gRPC's thread brings the answers.

It has no thread of its own: whoever joins, and whoever brings an answer, sends what may leave.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from .coalescer import Coalescer, Result
from .flights import Call, Flight
from .options import Coalescing
from .recommendations import Recommendations
from .recorder import Recorder
from .requests import CheckedRequest
from .rpc import Deadline, Rpc
from .session import Limit
from .sync_session import SyncSession


class SyncCoalescer(Coalescer[SyncSession]):
    """Joins the calls of threads."""

    def __init__(self, session: SyncSession, options: Coalescing) -> None:
        super().__init__(session, options)
        # Reentrant: gRPC reports an RPC that ends at once in the thread that starts it.
        self._lock = threading.RLock()

    def recommend(self, request: CheckedRequest, timeout: Limit, recorder: Recorder) -> Recommendations:
        """Returns the result of a request that may share its RPC with others."""
        waiter = threading.Lock()
        waiter.acquire()
        with self._lock:
            call = self._join(request, timeout, waiter, recorder)
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
        recorder.ended("wake")
        return call.result

    def close(self) -> None:
        """Makes every call that waits or is in flight raise ClosedError."""
        with self._lock:
            self._close()

    def _wait(self, call: Call) -> None:
        """Returns when the call has its result; raises TimeoutError at its deadline."""
        while not call.waiter.acquire(timeout=self._patience(call)):
            with self._lock:
                now = self._clock()
                if call.settled:
                    continue
                if call.deadline <= now:
                    self.flights.end(call)
                    self._abandon(call, late=True)
                    raise self._session.timed_out(call.seconds)
                self._flush()

    def _patience(self, call: Call) -> float:
        """Returns the seconds until the next look at a call: at its deadline, or when an RPC counts as stuck."""
        now = self._clock()
        moment = call.deadline
        if call.flight is None:
            with self._lock:
                moment = min(moment, self.flights.next_turn(now))
        if call.connecting:  # its deadline may become an earlier one
            moment = min(moment, now + (self._session.timeout.request or math.inf))
        return min(max(0.0, moment - now), threading.TIMEOUT_MAX)

    def _send(self, flight: Flight, rpc: Rpc) -> None:
        try:
            flight.rpc = self._session.start(rpc)
        except Exception as error:  # gRPC's for a channel that was closed
            self._refused(flight, error)
        else:
            flight.rpc.add_done_callback(partial(self._done, flight, rpc))

    def _done(self, flight: Flight, rpc: Rpc, future: Any) -> None:
        try:
            self._arrived(flight, rpc, future)
        except Exception as error:  # none is known; without this, one would leave its callers waiting
            self._end(partial(self._refused, flight, error))

    def _arrived(self, flight: Flight, rpc: Rpc, future: Any) -> None:
        try:
            message = future.result()
        except grpc.FutureCancelledError:  # all of its callers are gone, or the client was closed
            self._end(partial(self.flights.gave_up, flight))
        except grpc.RpcError as error:
            self._end(partial(self._refused, flight, self._session.failure(error, rpc.deadline)))
        else:
            # The next RPC leaves before this answer is read, so that the server does not wait for that.
            self._end(partial(self._landed, flight, message))
            results = self._read(flight, message)
            with self._lock:
                self._hand_out(flight, results)

    def _end(self, note: Callable[[], None]) -> None:
        with self._lock:
            note()
            self._flush()

    def _load(self, deadline: Deadline, until: float) -> None:
        # In a separate thread, since a caller may have less time than the others that wait for the same.
        threading.Thread(target=self._read_dimensions, args=(deadline, until), daemon=True).start()

    def _read_dimensions(self, deadline: Deadline, until: float) -> None:
        failure: BaseException | None = None
        try:
            self._session.run(self._session.codec_steps(deadline))
        except Exception as error:
            failure = error
        self._end(partial(self._loaded, failure, until))

    def _wake(self, call: Call, result: Result) -> None:
        call.result = result
        call.waiter.release()
