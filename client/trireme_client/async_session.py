"""The RPCs of a session over gRPC's asyncio channel."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import closing, suppress
from typing import Any

import grpc

from .errors import TriremeError
from .rpc import Deadline, Rpc, Steps, T, staggered
from .session import Session


class AsyncSession(Session):
    """A session for the event loop of its first call, which is also when its channel is made."""

    def __init__(self, owner: str, url: str, **options: Any) -> None:
        super().__init__(grpc.aio, owner, url, **options)
        self._tasks: set[asyncio.Task[None]] = set()

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
            with closing(staggered(rpcs, self.start)) as calls:
                return [await self._answer(rpc, call) for rpc, call in zip(rpcs, calls, strict=True)]
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # Closing the channel cancels its calls but not the tasks that wait for them: those get an error.
            if self.closed and not _is_cancelling():
                raise self.closed_meanwhile() from None
            raise

    async def _answer(self, rpc: Rpc, call: Any) -> Any:
        try:
            return await call
        except grpc.RpcError as error:
            failure = self.failure(error, rpc.deadline)
        if rpc.keeps_error:
            return failure
        raise failure

    def start(self, rpc: Rpc) -> Any:
        """Starts an RPC; awaiting what this returns gives its answer."""
        recorder = self.recorder(rpc)
        with recorder.starting():
            call = self.method(rpc)(**self.arguments(rpc, recorder))
        return recorder.awaitable(call)

    def refresh(self) -> None:
        """Reads the model's dimensions in a task."""
        self.spawn(self._refresh())

    async def _refresh(self) -> None:
        with suppress(TriremeError):
            await self.run(self.codec_steps(Deadline(self.timeout.connect)))

    def close_channel(self, channel: Any) -> None:
        """Closes a channel in a task."""
        self.spawn(channel.close())

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Returns a task that is kept until it ends: the event loop itself holds only weak references."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel_tasks(self) -> None:
        """Cancels the tasks of ``spawn`` that have not ended."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Closes the channels, which cancels their RPCs, and ends the tasks."""
        self.cancel_tasks()
        for channel in (self.channel, self.retired):
            if channel is not None:
                await channel.close()


def _is_cancelling() -> bool:
    """Whether the current task is being cancelled. Python 3.10 does not report that; there it counts as no."""
    return bool(getattr(asyncio.current_task(), "cancelling", int)())
