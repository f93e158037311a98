"""The client for asyncio: the RPCs of `base` over gRPC's asyncio channel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from .async_coalescer import AsyncCoalescer
from .base import MAX_IN_FLIGHT, BaseClient, Rpc, Steps, T
from .ledger import CallClock
from .model import ModelInfo
from .options import CHANNEL_OPTIONS, DEFAULT_TIMEOUT, TLS, Coalescing, Timeout, check_coalescing
from .recommendations import Recommendations
from .requests import Ids, Request, check_arguments, check_requests
from .telemetry import Telemetry

if TYPE_CHECKING:
    from .spans import CallSpan, RpcSpan


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same arguments, results and errors. Use it in an `async with` block, or call
    `close` at the end.

    Belongs to the event loop of its first call, which is also when its channel is made; any number of tasks may share
    it. A task that is cancelled cancels its RPCs.
    """

    _channel: grpc.aio.Channel | None = None
    _stub: GRPCInferenceServiceStub | None = None

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        model: str = "recommend",
        model_version: str = "",
        timeout: Timeout | float | None = DEFAULT_TIMEOUT,
        tls: TLS | None = None,
        headers: Mapping[str, str] | None = None,
        coalescing: Coalescing | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__(
            url,
            model=model,
            model_version=model_version,
            timeout=timeout,
            tls=tls,
            headers=headers,
            telemetry=telemetry,
        )
        checked = check_coalescing(coalescing)
        self._coalescer = None if checked is None else AsyncCoalescer(self, checked, self._start, self._run)

    async def recommend(
        self,
        user_id: int | None = None,
        k: int = 10,
        *,
        history: Sequence[int] | Ids | None = None,
        timeout: float | None | EllipsisType = ...,
        ledger: bool = False,
    ) -> Recommendations:
        """See `Client.recommend`."""
        if self._spans is None:
            return await self._recommend(user_id, k, history, timeout, ledger)
        with self._spans.recommend() as caller:
            result = await self._recommend(user_id, k, history, timeout, ledger, caller)
            return result if caller is None else caller.answered(result)

    async def _recommend(
        self,
        user_id: int | None,
        k: int,
        history: Sequence[int] | Ids | None,
        timeout: float | None | EllipsisType,
        ledger: bool,
        caller: CallSpan | None = None,
    ) -> Recommendations:
        clock = CallClock() if ledger else None
        request = check_arguments(user_id, k, history)
        if clock is not None:
            clock.end("validate")
        if self._coalescer is not None:
            return await self._coalescer.recommend(request, timeout, clock, caller)
        if clock is not None:
            return await self._run(self._ledger_steps(request, timeout, clock, caller))
        return (await self._run(self._recommend_steps([request], timeout, caller)))[0]

    async def recommend_many(
        self, requests: Iterable[Request], *, timeout: float | None | EllipsisType = ...
    ) -> list[Recommendations]:
        """See `Client.recommend_many`."""
        if self._spans is None:
            return await self._run(self._recommend_steps(check_requests(requests), timeout))
        with self._spans.recommend_many() as caller:
            return await self._run(self._recommend_steps(check_requests(requests), timeout, caller))

    async def model_info(self, *, timeout: float | None | EllipsisType = ...) -> ModelInfo:
        """See `Client.model_info`."""
        return await self._run(self._model_info_steps(timeout))

    async def close(self) -> None:
        """Closes the connection; calls under way in other tasks raise ClosedError. Closing again does nothing."""
        self._closed = True
        if self._coalescer is not None:
            self._coalescer.close()
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
        """Makes the RPCs, MAX_IN_FLIGHT at a time; their answers in order. The first error cancels the rest."""
        waiting: deque[Any] = deque()
        answers = []
        try:
            for rpc in rpcs:
                if len(waiting) == MAX_IN_FLIGHT:
                    answers.append(await waiting[0])
                    waiting.popleft()
                waiting.append(self._start(rpc))
            while waiting:
                answers.append(await waiting[0])
                waiting.popleft()
            return answers
        except grpc.RpcError as error:
            raise self._failure(error, rpcs[0].deadline) from None
        except (asyncio.CancelledError, grpc.aio.UsageError):
            # Closing the channel cancels its calls, and not the tasks that wait for them: for those it is an error.
            if self._closed and not _is_cancelling():
                raise self._closed_meanwhile() from None
            raise
        finally:
            for call in waiting:
                call.cancel()

    def _start(self, rpc: Rpc) -> Any:
        """A gRPC call under way; awaiting it gives its answer."""
        if self._stub is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._url, options=CHANNEL_OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self._url, self._credentials, options=CHANNEL_OPTIONS)
            self._stub = GRPCInferenceServiceStub(self._channel)
        span = self._rpc_span(rpc)
        if span is None:
            return getattr(self._stub, rpc.method)(**self._call_arguments(rpc, None))
        with span.unless_started():
            call = getattr(self._stub, rpc.method)(**self._call_arguments(rpc, span))
        return _TracedCall(call, span)


class _TracedCall:
    """A gRPC call under way whose span ends when its answer came, whenever that is awaited."""

    def __init__(self, call: grpc.aio.UnaryUnaryCall, span: RpcSpan) -> None:
        self._call = call
        self._span = span
        call.add_done_callback(lambda _: span.came())

    def __await__(self) -> Generator[Any, None, Any]:
        with self._span:
            return (yield from self._call.__await__())

    def cancel(self) -> None:
        # False where it has its answer already, which nobody will look at.
        self._span.end("CANCELLED" if self._call.cancel() else "OK")


def _is_cancelling() -> bool:
    """Whether somebody cancels the current task. Python 3.10 cannot tell; there it counts as no."""
    return bool(getattr(asyncio.current_task(), "cancelling", int)())
