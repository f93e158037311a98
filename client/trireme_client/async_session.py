"""The RPCs of a session over gRPC's asyncio channel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import closing, suppress
from typing import Any

import grpc

from .codec import Codec
from .errors import TriremeError
from .rpc import Deadline, Flying, Rpc, Steps, T, staggered
from .session import CLOSE_GRACE, Session

# Seconds between two looks at whether the RPCs of a closed client have ended.
_LOOK_EVERY = 0.02


class AsyncSession(Session):
    """A session for the event loop of its first call, which is also when its channel is made."""

    def __init__(self, owner: str, url: str, **options: Any) -> None:
        super().__init__(grpc.aio, owner, url, **options)
        self._tasks: set[asyncio.Task[None]] = set()
        self._landed: set[asyncio.Future[None]] = set()

    async def run(self, steps: Steps[T]) -> T:
        """Makes the RPCs of the steps, and returns their result."""
        try:
            rpcs = next(steps)
            while True:
                rpcs = steps.send(await self.exchange(rpcs))
        except StopIteration as finished:
            result: T = finished.value
            return result

    async def exchange(self, rpcs: list[Rpc]) -> list[Any]:
        """See ``SyncSession.exchange``."""
        try:
            with closing(staggered(rpcs, self._fly, self.leave)) as flights:
                return [await self._answer(rpc, flying) for rpc, flying in zip(rpcs, flights, strict=True)]
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # Closing the channel cancels its calls but not the tasks that wait for them: those get an error.
            if self.closed and not _is_cancelling():
                raise self.closed_meanwhile() from None
            raise

    async def _answer(self, rpc: Rpc, flying: Flying) -> Any:
        try:
            answer = await (flying.call if self.cancels else self._land(flying))
            if rpc.method == "ModelInfer":
                self.breaker.answered()
            return answer
        except grpc.RpcError as error:
            failure = self.failure(error, rpc.deadline)
        except TimeoutError:
            failure = self.timed_out(rpc.deadline.seconds)
        self.noted(failure)
        if rpc.keeps_error:
            return failure
        raise failure

    def start(self, rpc: Rpc) -> Any:
        """Starts an RPC; awaiting what this returns gives its answer."""
        recorder = self.recorder(rpc)
        with recorder.starting():
            call = self.method(rpc)(**self.arguments(rpc, recorder))
        self.flying.add(call)  # gRPC cancels what nobody refers to
        call.add_done_callback(self.flying.discard)
        return recorder.awaitable(call)

    def _fly(self, rpc: Rpc) -> Flying:
        until = self.until(rpc)
        return Flying(self.start(rpc), until)

    async def _land(self, flying: Flying) -> Any:
        """Returns the answer of an RPC in flight; what ends this wait does not end the RPC.

        Raises:
            TimeoutError: it did not come in time.
            ClosedError: the client was closed meanwhile.
        """
        call, until = flying
        landed = asyncio.get_running_loop().create_future()
        call.add_done_callback(lambda _: wake(landed))
        try:
            await self.wait(landed, until)
        except asyncio.CancelledError:
            self.leave(flying)
            raise
        if call.done():
            return await call
        self.leave(flying)
        raise self.closed_meanwhile() if self.closed else TimeoutError

    async def wait(self, landed: asyncio.Future[None], until: float) -> None:
        """Waits until ``wake`` is called with ``landed``, the client is closed, or that moment has come."""
        self._landed.add(landed)
        timer = asyncio.get_running_loop().call_later(max(0.0, until - time.monotonic()), wake, landed)
        try:
            await landed
        finally:
            timer.cancel()
            self._landed.discard(landed)

    def leave(self, flying: Flying) -> None:
        call = flying.call
        if self.cancels:
            call.cancel()
        elif not call.done() and call not in self.left:
            self.left.add(call)
            self.spawn(self._drain(call))

    async def _drain(self, call: Any) -> None:
        """Waits for the end of an RPC that nobody else waits for."""
        try:
            with suppress(grpc.RpcError):
                await call
        finally:
            self.left.discard(call)

    def refresh(self) -> None:
        """Reads the model's dimensions in a task."""
        self.spawn(self._refresh())

    async def _refresh(self) -> None:
        with suppress(TriremeError):
            await self.run(self.codec_steps(Deadline(self.timeout.connect)))

    def probe(self) -> None:
        self.spawn(self._probe())

    async def _probe(self) -> None:
        try:
            await self.run(self.probe_steps())
        except Exception:
            self.breaker.failed()
        else:
            self.breaker.answered()

    def ask_clock(self, codec: Codec) -> None:
        self.spawn(self._ask_clock(codec))

    async def _ask_clock(self, codec: Codec) -> None:
        with suppress(TriremeError):
            await self.run(self.clock_steps(codec))

    def close_channel(self, channel: Any) -> None:
        """Closes a channel in a task."""
        self.spawn(channel.close())

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Returns a task that is kept until it ends: the event loop itself holds only weak references."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wakes whoever waits, ends the tasks, and closes the channels: at once, or when the RPCs in flight have ended if the
        server does not survive that they are cancelled."""
        for landed in self._landed:
            wake(landed)
        if self.flying and not self.cancels:
            self.spawn(self._close_later())
        else:
            await self._close_channels()

    async def _close_later(self) -> None:
        until = time.monotonic() + CLOSE_GRACE
        while self.flying and time.monotonic() < until:
            await asyncio.sleep(_LOOK_EVERY)
        await self._close_channels()

    async def _close_channels(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for channel in (self.channel, self.retired):
            if channel is not None:
                await channel.close()


def wake(landed: asyncio.Future[None]) -> None:
    """Ends a wait, if that has not ended."""
    if not landed.done():
        landed.set_result(None)


def _is_cancelling() -> bool:
    """Whether the current task is being cancelled. Python 3.10 does not report that; there it counts as no."""
    return bool(getattr(asyncio.current_task(), "cancelling", int)())
