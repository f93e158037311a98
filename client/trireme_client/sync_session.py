"""The RPCs of a session over a blocking gRPC channel."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import grpc

from .errors import TriremeError
from .rpc import Deadline, Rpc, Steps, T, staggered
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
        """Makes RPCs, a few at a time, and returns their answers in order.

        The first error cancels the rest; the error of an RPC that keeps it stands in place of its answer.
        """
        try:
            if len(rpcs) == 1:
                return [self._answer(rpcs[0], self._call, rpcs[0])]
            with closing(staggered(rpcs, self.start)) as calls:
                return [self._answer(rpc, call.result) for rpc, call in zip(rpcs, calls, strict=True)]
        except (grpc.FutureCancelledError, ValueError):  # what gRPC raises for a channel that was closed meanwhile
            if self.closed:
                raise self.closed_meanwhile() from None
            raise

    def _answer(self, rpc: Rpc, wait: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return wait(*arguments)
        except grpc.RpcError as error:
            failure = self.failure(error, rpc.deadline)
        if rpc.keeps_error:
            return failure
        raise failure

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

    def refresh(self) -> None:
        """Reads the model's dimensions in a thread."""
        threading.Thread(target=self._refresh, daemon=True).start()

    def _refresh(self) -> None:
        with suppress(TriremeError):
            self.run(self.codec_steps(Deadline(self.timeout.connect)))

    def close_channel(self, channel: Any) -> None:
        """Closes a channel."""
        channel.close()

    def close(self) -> None:
        """Closes the channels, which cancels their RPCs."""
        self.channel.close()
        if self.retired is not None:
            self.retired.close()
