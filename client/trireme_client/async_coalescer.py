"""Coalescing for asyncio: callers await futures, and each RPC is a task. All of it runs in one event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
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

# Seconds between two looks at the deadlines, at least: under overload every call has one of its own.
_ALARM_STEP = 0.005

# Turns of the event loop until an RPC that was started is written: that of our task, then that of gRPC's own.
_TURNS_TO_SEND = 2


class AsyncCoalescer(Coalescer):
    """start: makes an RPC, which is then awaited; run: takes steps that make RPCs."""

    def __init__(
        self,
        client: BaseClient,
        options: Coalescing,
        start: Callable[[Rpc], Awaitable[Any]],
        run: Callable[[Steps[Any]], Awaitable[Any]],
    ) -> None:
        super().__init__(client, options)
        self._start = start
        self._run = run
        self._tasks: set[asyncio.Task[None]] = set()
        self._flush_scheduled = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    async def recommend(
        self,
        request: CheckedRequest,
        timeout: float | None | EllipsisType,
        clock: CallClock | None = None,
        caller: CallSpan | None = None,
    ) -> Recommendations:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        call = self._join(request, timeout, waiter, clock, caller)
        leave_by = self._window.leave_by(call)
        if leave_by < self._alarm_at:
            self._set_alarm(leave_by)
        self._schedule_flush(loop)
        try:
            return with_ledger(await waiter, clock)
        except asyncio.CancelledError:
            self._leave(call)
            raise

    def close(self) -> None:
        """Every call that waits or travels raises ClosedError."""
        self._close()
        if self._alarm is not None:
            self._alarm.cancel()
        for task in self._tasks:
            task.cancel()

    def _schedule_flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sends at the end of this turn of the event loop, so that callers who come in the same turn travel together."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _send(self, flight: Flight, rpc: Rpc) -> None:
        flight.rpc = task = self._spawn(self._exchange(flight, rpc))
        task.add_done_callback(lambda task: self._ended(flight, task))

    def _ended(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """All of its callers are gone, or the client was closed. Perhaps before the task ever ran: so it is noticed here."""
        if task.cancelled():
            self._window.gave_up(flight)
            self._schedule_flush(task.get_loop())

    async def _exchange(self, flight: Flight, rpc: Rpc) -> None:
        try:
            message = await self._start(rpc)
            self._landed(flight, message)
            if self._window.pending:
                # The server has nothing to do now: the next RPC goes first, and then the answers of this one are read.
                self._flush()
                for _ in range(_TURNS_TO_SEND):
                    await asyncio.sleep(0)
            for call, result in zip(flight.calls, self._read(flight.calls, message), strict=True):
                self._settle(call, result)
        except grpc.RpcError as error:
            self._refused(flight, self._client._failure(error, rpc.deadline))
        except Exception as error:
            self._refused(flight, error)
        finally:
            # After the callers that were woken: what they ask next leaves with those that wait.
            self._schedule_flush(asyncio.get_running_loop())

    def _load(self, deadline: Deadline, until: float) -> None:
        self._spawn(self._read_dimensions(deadline, until))

    async def _read_dimensions(self, deadline: Deadline, until: float) -> None:
        try:
            await self._run(self._client._codec_steps(deadline))
            self._loaded(None, until)
            self._look_at_deadlines()
        except Exception as error:
            self._loaded(error, until)
        finally:
            self._schedule_flush(asyncio.get_running_loop())

    def _wake(self, call: Call, result: Result) -> None:
        waiter: asyncio.Future[Recommendations] = call.waiter
        if waiter.done():  # its task was cancelled and has not been told yet
            return
        if isinstance(result, BaseException):
            waiter.set_exception(result)
        else:
            waiter.set_result(result)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        """A task that is kept until it ends: the event loop itself holds only weak references."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _look_at_deadlines(self) -> None:
        """Ends the calls whose deadline has passed and sends those that are in a hurry.

        One timer serves all calls. It is set to the earliest deadline and not touched when that call is answered: with
        equal time limits it goes off once per limit, not once per call.
        """
        window, now = self._window, self._clock()
        travelling = [call for flight in window.flights for call in flight.calls if not call.settled]
        for call in [*window.waiting(), *travelling]:
            if call.deadline <= now:
                self._leave(call)
                self._wake(call, self._client._timed_out(call.seconds))
        self._flush(hurry=any(window.leave_by(call) <= now for call in window.waiting()))
        moments = [call.deadline for call in travelling if not call.settled]
        for call in window.waiting():
            leave_by = window.leave_by(call)
            moments.append(leave_by if leave_by > now else call.deadline)
        self._set_alarm(min(moments, default=math.inf))

    def _set_alarm(self, moment: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = moment
        self._alarm = None
        if moment < math.inf:
            seconds = max(_ALARM_STEP, moment - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._look_at_deadlines)
