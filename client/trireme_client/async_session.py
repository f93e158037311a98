"""The RPCs of a session over gRPC's asyncio channel."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import grpc

from .rpc import Rpc, Steps, T, staggered
from .session import Session


class AsyncSession(Session):
    """A session for the event loop of its first call, which is also when its channel is made."""

    def __init__(self, owner: str, url: str, **options: Any) -> None:
        super().__init__(grpc.aio, owner, url, **options)

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
        """Makes RPCs, a few at a time, and returns their answers in order. The first error cancels the rest."""
        try:
            with closing(staggered(rpcs, self.start)) as calls:
                return [await call for call in calls]
        except grpc.RpcError as error:
            raise self.failure(error, rpcs[0].deadline) from None
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # Closing the channel cancels its calls but not the tasks that wait for them: those get an error.
            if self.closed and not _is_cancelling():
                raise self.closed_meanwhile() from None
            raise

    def start(self, rpc: Rpc) -> Any:
        """Starts an RPC; awaiting what this returns gives its answer."""
        recorder = self.recorder(rpc)
        with recorder.starting():
            call = self.method(rpc)(**self.arguments(rpc, recorder))
        return recorder.awaitable(call)

    async def close(self) -> None:
        """Closes the channel, which cancels its RPCs."""
        if self.channel is not None:
            await self.channel.close()


def _is_cancelling() -> bool:
    """Whether the current task is being cancelled. Python 3.10 does not report that; there it counts as no."""
    return bool(getattr(asyncio.current_task(), "cancelling", int)())
