"""The RPCs of a session over a blocking gRPC channel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any

import grpc
from grpc.experimental import ChannelOptions

from .codec import Codec
from .direct import DirectCalls
from .errors import TriremeError
from .rpc import Deadline, Flying, Rpc, Steps, T, staggered
from .session import CLOSE_GRACE, Session
from .workers import WORKERS, Job

# Seconds between two looks at whether the RPCs of a closed client have ended.
_LOOK_EVERY = 0.02


class SyncSession(Session):
    """A session for threads. Its channel is made at once, so that threads never make it twice."""

    def __init__(self, owner: str, url: str, **options: Any) -> None:
        super().__init__(grpc, owner, url, **options)
        # A thread of the client's own reads a stream; gRPC would start another one.
        self._channel_options.append((ChannelOptions.SingleThreadedUnaryStream, 1))
        self.waiting: dict[Any, threading.Event] = {}  # by what they wait for
        self._direct = DirectCalls()
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

        The first error ends the rest; the error of an RPC that keeps it stands in place of its answer.
        """
        try:
            if len(rpcs) == 1 and self.cancels:
                return [self._answer(rpcs[0], self._call, rpcs[0])]
            if len(rpcs) == 1 and self._direct.begin():
                try:
                    return [self._answer(rpcs[0], self._call_directly, rpcs[0])]
                finally:
                    self._direct.end()
            start = self._fly_alone if len(rpcs) == 1 else self._fly
            with closing(staggered(rpcs, start, self.leave)) as flights:
                return [self._answer(rpc, self._land, flying) for rpc, flying in zip(rpcs, flights, strict=True)]
        except (grpc.FutureCancelledError, ValueError):  # what gRPC raises for a channel that was closed meanwhile
            if self.closed:
                raise self.closed_meanwhile() from None
            raise

    def _answer(self, rpc: Rpc, wait: Callable[..., Any], *arguments: Any) -> Any:
        try:
            answer = wait(*arguments)
            if rpc.method == "ModelInfer":
                self.breaker.answered()
            return answer
        except grpc.RpcError as error:
            failure = self.failure(error, rpc.deadline)
        except TimeoutError:
            failure = self.timed_out(rpc.deadline.seconds)
        if isinstance(failure, TimeoutError):
            self._direct.late()
        self.noted(failure)
        if rpc.keeps_error:
            return failure
        raise failure

    def _call(self, rpc: Rpc) -> Any:
        """Returns the answer of one RPC: unlike a future, a blocking call needs no hand-over between threads."""
        with self.recorder(rpc) as recorder:
            return self.method(rpc)(**self.arguments(rpc, recorder))

    def _call_directly(self, rpc: Rpc) -> Any:
        """Returns the answer of one RPC that ends at its deadline, though the server does not survive many such ends."""
        calling = object()
        self.flying.add(calling)
        try:
            with self.recorder(rpc) as recorder:
                return self.method(rpc)(**self.arguments(rpc, recorder, ends=True))
        finally:
            self.flying.discard(calling)

    def start(self, rpc: Rpc) -> Any:
        """Starts an RPC; returns its gRPC future."""
        recorder = self.recorder(rpc)
        starting = object()
        self.flying.add(starting)  # before the server can know of it: another thread may be closing the client
        try:
            with recorder.starting():
                future = self.method(rpc).future(**self.arguments(rpc, recorder))
            self.flying.add(future)  # gRPC cancels what nobody refers to
        finally:
            self.flying.discard(starting)
        future.add_done_callback(self.flying.discard)
        return recorder.future(future)

    def _fly(self, rpc: Rpc) -> Flying:
        until = self.until(rpc)
        return Flying(self.start(rpc), until)

    def _fly_alone(self, rpc: Rpc) -> Flying:
        """Starts an RPC beside which this call makes no other."""
        job = Job()
        self.flying.add(job)
        job.add_done_callback(self.flying.discard)
        until = self.until(rpc)
        WORKERS.start(job, partial(self._call, rpc))
        return Flying(job, until)

    def _land(self, flying: Flying) -> Any:
        """Returns the answer of an RPC in flight.

        Raises:
            TimeoutError: it did not come in time.
            ClosedError: the client was closed meanwhile.
        """
        call, until = flying
        landed = self.waiting[call] = threading.Event()
        try:
            call.add_done_callback(lambda _: landed.set())
            if self.closed or not landed.wait(min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX)):
                self.leave(flying)
        finally:
            del self.waiting[call]
        if call.done():
            return call.result()
        raise self.closed_meanwhile() if self.closed else TimeoutError

    def leave(self, flying: Flying) -> None:
        call = flying.call
        if self.cancels:
            call.cancel()
        elif not call.done():
            self.left.add(call)
            call.add_done_callback(self.left.discard)

    def refresh(self) -> None:
        """Reads the model's dimensions in a thread."""
        threading.Thread(target=self._refresh, daemon=True).start()

    def _refresh(self) -> None:
        with suppress(TriremeError):
            self.run(self.codec_steps(Deadline(self.timeout.connect)))

    def probe(self) -> None:
        threading.Thread(target=self._probe, daemon=True).start()

    def _probe(self) -> None:
        try:
            self.run(self.probe_steps())
        except Exception:
            self.breaker.failed()
        else:
            self.breaker.answered()

    def ask_clock(self, codec: Codec) -> None:
        threading.Thread(target=self._ask_clock, args=(codec,), daemon=True).start()

    def _ask_clock(self, codec: Codec) -> None:
        with suppress(TriremeError):
            self.run(self.clock_steps(codec))

    def close_channel(self, channel: Any) -> None:
        """Closes a channel."""
        channel.close()

    def close(self) -> None:
        """Wakes whoever waits, and closes the channels: at once, or when the RPCs in flight have ended if the server does not
        survive that they are cancelled."""
        for landed in tuple(self.waiting.values()):
            landed.set()
        if self.cancels or not self.flying:
            self._close_channels()
        else:
            threading.Thread(target=self._close_later, daemon=True).start()

    def _close_later(self) -> None:
        until = time.monotonic() + CLOSE_GRACE
        while self.flying and time.monotonic() < until:
            time.sleep(_LOOK_EVERY)
        self._close_channels()

    def _close_channels(self) -> None:
        self.channel.close()
        if self.retired is not None:
            self.retired.close()
