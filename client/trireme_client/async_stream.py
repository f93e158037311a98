"""Calls that are answered up to two times, for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from .async_session import AsyncSession, wake
from .errors import TriremeError
from .model import STREAM
from .recommendations import Recommendations
from .recorder import NO_RPC
from .requests import CheckedRequest
from .rpc import Rpc
from .session import Limit
from .targets import Targets


async def stream_lists(
    targets: Targets,
    request: CheckedRequest,
    timeout: Limit,
    instead: Callable[[CheckedRequest, TriremeError], Recommendations],
) -> AsyncGenerator[Recommendations, None]:
    """See ``sync_stream.stream_lists``."""
    call = targets.begin(timeout)
    listed = False
    try:
        session: AsyncSession = call.target.session
        codec, rpc = await session.run(session.stream_steps(request, call.timeout))
        async with aclosing(_answers(session, rpc)) as answers:
            async for answer in answers:
                result = session.streamed(codec, answer, request)
                listed = True
                yield result
    except TriremeError as error:
        if listed:
            raise
        yield instead(request, error)
    finally:
        targets.end(call)


async def _answers(session: AsyncSession, rpc: Rpc) -> AsyncGenerator[Any, None]:
    """See ``sync_stream._answers``."""
    try:
        with _Stream(session, rpc) as stream:
            while (answer := await stream.next()) is not None:
                yield answer
        session.breaker.answered()
        return
    except grpc.RpcError as error:
        failure = session.failure(error, rpc.deadline, STREAM)
    except TimeoutError:
        failure = session.timed_out(rpc.deadline.seconds, STREAM)
    except grpc.aio.UsageError:  # what gRPC raises for a channel that was closed meanwhile
        if not session.closed:
            raise
        failure = session.closed_meanwhile()
    raise session.noted(failure)


class _Stream:
    """One RPC, whose answers a task reads to the end, whoever still waits for them."""

    def __init__(self, session: AsyncSession, rpc: Rpc) -> None:
        self._session = session
        self._until = session.until(rpc)
        self._arrived: deque[Any] = deque()
        self._changed: asyncio.Future[None] | None = None
        self._call = session.method(rpc)(**session.arguments(rpc, NO_RPC))

    def __enter__(self) -> _Stream:
        self._session.flying.add(self._call)
        self._call.add_done_callback(self._session.flying.discard)
        self._reading = self._session.spawn(self._read())
        self._reading.add_done_callback(self._ended)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._session.cancels:
            self._call.cancel()
        elif not self._reading.done():
            self._session.left.add(self._reading)
            self._reading.add_done_callback(self._session.left.discard)

    async def _read(self) -> None:
        async for answer in self._call:
            self._arrived.append(answer)
            self._wake()

    def _ended(self, reading: asyncio.Task[None]) -> None:
        if not reading.cancelled():
            reading.exception()  # which asyncio would report where nobody waits for it any more
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            wake(self._changed)

    async def next(self) -> Any:
        """See ``sync_stream._Stream.next``."""
        while True:
            if self._arrived:
                return self._arrived.popleft()
            if self._reading.done() and not self._reading.cancelled():
                self._reading.result()
                return None
            if self._session.closed:
                raise self._session.closed_meanwhile()
            if time.monotonic() >= self._until:
                raise TimeoutError
            self._changed = asyncio.get_running_loop().create_future()
            await self._session.wait(self._changed, self._until)
