"""The RPCs of a session over a blocking gRPC channel."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import grpc

from .rpc import Rpc, Steps, T, staggered
from .session import Session


class SyncSession(Session):
    """A session for threads. Its channel is made at once, so that threads never make it twice."""

    def __init__(self, owner: str, url: str, **options: Any) -> None:
        super().__init__(grpc, owner, url, **options)
        self.open()

    def run(self, steps: Steps[T]) -> T:
        """Makes the RPCs of the steps, and returns their result."""
        try:
            rpcs = next(steps)
            while True:
                rpcs = steps.send(self.exchange(rpcs))
        except StopIteration as finished:
            result: T = finished.value
            return result

    def exchange(self, rpcs: list[Rpc]) -> list[Any]:
        """Makes RPCs, a few at a time, and returns their answers in order. The first error cancels the rest."""
        try:
            if len(rpcs) == 1:
                return [self._call(rpcs[0])]
            with closing(staggered(rpcs, self.start)) as calls:
                return [call.result() for call in calls]
        except grpc.RpcError as error:
            raise self.failure(error, rpcs[0].deadline) from None
        except (grpc.FutureCancelledError, ValueError):  # what gRPC raises for a channel that was closed meanwhile
            if self.closed:
                raise self.closed_meanwhile() from None
            raise

    def _call(self, rpc: Rpc) -> Any:
        """Returns the answer of one RPC: unlike a future, a blocking call needs no hand-over between threads."""
        with self.recorder(rpc) as recorder:
            return self.method(rpc)(**self.arguments(rpc, recorder))

    def start(self, rpc: Rpc) -> Any:
        """Starts an RPC; returns its gRPC future."""
        recorder = self.recorder(rpc)
        with recorder.starting():
            future = self.method(rpc).future(**self.arguments(rpc, recorder))
        return recorder.future(future)

    def close(self) -> None:
        """Closes the channel, which cancels its RPCs."""
        self.channel.close()
