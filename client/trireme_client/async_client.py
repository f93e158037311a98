"""The client for asyncio: the RPCs of `base` over a `grpc.aio` channel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from types import EllipsisType, TracebackType
from typing import Any

import grpc
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from .base import MAX_IN_FLIGHT, BaseClient, Rpc, Steps, T
from .model import ModelInfo
from .options import CHANNEL_OPTIONS
from .recommendations import Recommendations
from .requests import Ids, Request, check_request, check_requests


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same arguments, methods and errors. Use it in an `async with` block.

    Safe to share between the tasks of one event loop, and meant to be: they use one connection, which belongs to the
    loop of the first call. Cancelling a call cancels its RPCs and touches no other call.
    """

    _channel: grpc.aio.Channel | None = None
    _stub: Any = None

    async def recommend(
        self,
        user_id: int | None = None,
        k: int = 10,
        *,
        history: Sequence[int] | Ids | None = None,
        timeout: float | None | EllipsisType = ...,
    ) -> Recommendations:
        """See `Client.recommend`."""
        steps = self._recommend_steps([check_request(Request(user_id, k, history))], timeout)
        return (await self._run(steps))[0]

    async def recommend_many(
        self, requests: Iterable[Request], *, timeout: float | None | EllipsisType = ...
    ) -> list[Recommendations]:
        """See `Client.recommend_many`."""
        return await self._run(self._recommend_steps(check_requests(requests), timeout))

    async def model_info(self, *, timeout: float | None | EllipsisType = ...) -> ModelInfo:
        """See `Client.model_info`."""
        return await self._run(self._model_info_steps(timeout))

    async def close(self) -> None:
        """Closes the connection; calls under way raise ClosedError. Closing again does nothing."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            rpcs = next(steps)
            while True:
                rpcs = steps.send(await self._exchange(rpcs))
        except StopIteration as finished:
            result: T = finished.value
            return result

    async def _exchange(self, rpcs: list[Rpc]) -> list[Any]:
        """Makes the RPCs, MAX_IN_FLIGHT at a time, and returns their answers in order. The first error ends it."""
        if len(rpcs) == 1:
            return [await self._call(rpcs[0])]
        places = asyncio.Semaphore(MAX_IN_FLIGHT)

        async def take_turns(rpc: Rpc) -> Any:
            async with places:
                return await self._call(rpc)

        tasks = [asyncio.ensure_future(take_turns(rpc)) for rpc in rpcs]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(self, rpc: Rpc) -> Any:
        method = getattr(self._connected(), rpc.method)
        try:
            return await method(rpc.message, timeout=rpc.deadline.remaining(), metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error, rpc.deadline) from None
        except (asyncio.CancelledError, grpc.aio.UsageError):
            if not self._closed:
                raise
            raise self._closed_meanwhile() from None

    def _connected(self) -> Any:
        """The stub; its channel is made by the first call, inside the running loop that it will belong to."""
        if self._stub is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._url, options=CHANNEL_OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self._url, self._credentials, options=CHANNEL_OPTIONS)
            self._stub = GRPCInferenceServiceStub(self._channel)
        return self._stub
