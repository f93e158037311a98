"""Coalescing for asyncio: callers await futures, and each RPC is a task. All of it runs in one event loop."""

from __future__ import annotations

import asyncio
import math

import grpc

from .async_session import AsyncSession
from .coalescer import Coalescer, Result
from .flights import Call, Flight
from .options import Coalescing
from .recommendations import Recommendations
from .recorder import Recorder
from .requests import CheckedRequest
from .rpc import Deadline, Rpc
from .session import Limit

# Minimum seconds between two looks at the deadlines: under overload every call has one of its own.
_ALARM_STEP = 0.005

# Turns of the event loop until an RPC that was started is written: one for our task, then one for gRPC's.
_TURNS_TO_SEND = 2


class AsyncCoalescer(Coalescer[AsyncSession]):
    """Joins the calls of tasks."""

    def __init__(self, session: AsyncSession, options: Coalescing) -> None:
        super().__init__(session, options)
        self._flush_scheduled = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    async def recommend(self, request: CheckedRequest, timeout: Limit, recorder: Recorder) -> Recommendations:
        """Returns the result of a request that may share its RPC with others."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        call = self._join(request, timeout, waiter, recorder)
        if call.deadline < self._alarm_at:
            self._set_alarm(call.deadline)
        self._schedule_flush(loop)
        try:
            result: Recommendations = await waiter
        except asyncio.CancelledError:
            self._leave(call)
            raise
        recorder.ended("wake")
        return result

    def close(self) -> None:
        """Makes every call that waits or is in flight raise ClosedError."""
        self._close()
        if self._alarm is not None:
            self._alarm.cancel()

    def _schedule_flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sends at the end of this turn of the event loop, so that calls made in the same turn share RPCs."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self._flush()
        if self.flights.pending:
            turn_at = self.flights.next_turn(self._clock())
            if turn_at < self._alarm_at:
                self._set_alarm(turn_at)

    def _send(self, flight: Flight, rpc: Rpc) -> None:
        flight.rpc = task = self._session.spawn(self._exchange(flight, rpc))
        task.add_done_callback(lambda task: self._ended(flight, task))

    def _ended(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """Ends a flight whose callers are all gone, or whose client was closed: perhaps before its task ever ran.

        Its answer may have come already, but not yet have been handed to its callers: they are not in flight any more.
        """
        if task.cancelled():
            self.flights.gave_up(flight)
            for call in flight.calls:
                self._settle(call, self._session.closed_meanwhile())
            self._schedule_flush(task.get_loop())

    async def _exchange(self, flight: Flight, rpc: Rpc) -> None:
        try:
            message = await self._session.start(rpc)
            self._landed(flight, message)
            if self.flights.pending:
                # The server has nothing to do now: the next RPC leaves before the answers of this one are read.
                self._flush()
                for _ in range(_TURNS_TO_SEND):
                    await asyncio.sleep(0)
            self._hand_out(flight, self._read(flight, message))
        except grpc.RpcError as error:
            self._refused(flight, self._session.failure(error, rpc.deadline))
        except Exception as error:
            self._refused(flight, error)
        finally:
            # After the woken callers have run, so that their next calls leave together with those that wait.
            self._schedule_flush(asyncio.get_running_loop())

    def _load(self, deadline: Deadline, until: float) -> None:
        self._session.spawn(self._read_dimensions(deadline, until))

    async def _read_dimensions(self, deadline: Deadline, until: float) -> None:
        try:
            await self._session.run(self._session.codec_steps(deadline))
            self._loaded(None, until)
            self._look_at_deadlines()
        except Exception as error:
            self._loaded(error, until)
        finally:
            self._schedule_flush(asyncio.get_running_loop())

    def _wake(self, call: Call, result: Result) -> None:
        waiter: asyncio.Future[Recommendations] = call.waiter
        if waiter.done():  # its task was cancelled and does not know it yet
            return
        if isinstance(result, BaseException):
            waiter.set_exception(result)
        else:
            waiter.set_result(result)

    def _look_at_deadlines(self) -> None:
        """Ends the calls whose deadline has passed, and sends what may leave now.

        One timer serves all calls. It is set to the earliest deadline and left alone when that call is answered: with
        equal time limits it fires once per limit, not once per call.
        """
        now = self._clock()
        for call in self.flights.overdue(now):
            self._abandon(call, late=True)
            self._wake(call, self._session.timed_out(call.seconds))
        self._flush()
        self._set_alarm(self.flights.next_look(now))

    def _set_alarm(self, moment: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = moment
        self._alarm = None
        if moment < math.inf:
            seconds = max(_ALARM_STEP, moment - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._look_at_deadlines)
