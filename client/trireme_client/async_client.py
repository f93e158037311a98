"""The client for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import EllipsisType
from typing import Any, Literal, overload

from .async_coalescer import AsyncCoalescer
from .async_session import AsyncSession
from .async_stream import stream_lists
from .base import BaseClient
from .cache.tasks import TaskCache
from .errors import TriremeError
from .many import Many
from .model import ModelInfo
from .options import check_grace
from .recommendations import Recommendations
from .recorder import Recorder
from .requests import (
    Anonymous,
    CheckedRequest,
    ContextValue,
    Ids,
    Request,
    check_arguments,
    check_requests,
)
from .rpc import T
from .session import Limit
from .targets import Call, Target


class AsyncClient(BaseClient):
    """``Client`` for asyncio: the same arguments, results and errors.

    Use it in an ``async with`` block, or call ``close`` at the end. It belongs to the event loop of its first call; any
    number of tasks may share it. A task that is cancelled stops waiting for its RPCs.
    """

    _session_type = AsyncSession
    _coalescer_type = AsyncCoalescer
    _cache_type = TaskCache

    async def recommend(
        self,
        user_id: int | Anonymous | None = None,
        k: int = 10,
        *,
        history: Sequence[int] | Ids | None = None,
        exclude: Sequence[int] | Ids | None = None,
        background: bool = False,
        context: Mapping[str, ContextValue] | None = None,
        timeout: float | None | EllipsisType = ...,
        ledger: bool = False,
    ) -> Recommendations:
        """See ``Client.recommend``."""
        with self._recorders.recommend(ledger) as recorder:
            request = self._note(check_arguments(user_id, k, history, exclude, background, context=context))
            recorder.ended("validate")
            try:
                if request.context:
                    self._check_names([request], await self._context_names(timeout))
                if self._cache is None:
                    result = await self._served(request, recorder, timeout)
                else:
                    result = await self._cache.recommend(request, recorder, timeout, self._served)
            except TriremeError as error:
                result = self._instead(request, error)
            return recorder.answered(result)

    def recommend_stream(
        self,
        user_id: int | Anonymous | None = None,
        k: int = 10,
        *,
        history: Sequence[int] | Ids | None = None,
        exclude: Sequence[int] | Ids | None = None,
        background: bool = False,
        context: Mapping[str, ContextValue] | None = None,
        timeout: float | None | EllipsisType = ...,
    ) -> AsyncGenerator[Recommendations, None]:
        """See ``Client.recommend_stream``."""
        request = self._note(check_arguments(user_id, k, history, exclude, background, context=context))
        return stream_lists(self._targets, request, timeout, self._instead)

    async def _served(self, request: CheckedRequest, recorder: Recorder, timeout: Limit) -> Recommendations:
        """Returns the answer of a server, by one or more tries."""
        call = self._targets.begin(timeout)
        try:
            return await self._ask(request, recorder, call)
        except TriremeError as error:
            return await self._again(partial(self._ask, request, recorder), call, error)
        finally:
            self._targets.end(call)

    def _ask(self, request: CheckedRequest, recorder: Recorder, call: Call) -> Coroutine[Any, Any, Recommendations]:
        """Returns what awaits the answer of one try."""
        hedges = self._hedges_for(recorder)
        if hedges is not None:
            return self._hedged(request, recorder, call, hedges.delay())
        return self._ask_at(call.target, request, recorder, call.timeout)

    def _ask_at(
        self, target: Target, request: CheckedRequest, recorder: Recorder, timeout: Limit
    ) -> Coroutine[Any, Any, Recommendations]:
        if target.coalescer is not None:
            shared: Coroutine[Any, Any, Recommendations] = target.coalescer.recommend(request, timeout, recorder)
            return shared
        return self._ask_alone(target.session, request, recorder, timeout)

    async def _ask_alone(
        self, session: AsyncSession, request: CheckedRequest, recorder: Recorder, timeout: Limit
    ) -> Recommendations:
        result: Recommendations
        (result,) = await session.run(session.recommend_steps([request], timeout, recorder))
        return result

    async def _again(self, ask: Callable[[Call], Awaitable[T]], call: Call, error: TriremeError) -> T:
        while True:
            pause = call.again(error)
            if pause:
                await asyncio.sleep(pause)
            try:
                return await ask(call)
            except TriremeError as another:
                error = another

    async def _hedged(
        self, request: CheckedRequest, recorder: Recorder, call: Call, delay: float | None
    ) -> Recommendations:
        """Returns the answer of one server, or of the faster one of two if the first takes longer than the delay."""
        began = time.monotonic()

        def start(target: Target, timeout: Limit) -> asyncio.Task[Recommendations]:
            task = asyncio.create_task(self._ask_at(target, request, recorder, timeout))
            task.add_done_callback(_forget)
            task.add_done_callback(lambda _: self._targets.release(target))
            return task

        self._targets.hold(call.target)
        tries = {start(call.target, call.timeout): call.target}
        try:
            await asyncio.wait(tries, timeout=delay)
            if not any(task.done() for task in tries) and (second := self._second(call, delay)) is not None:
                tries[start(*second)] = second[0]
            winner = await _first_answer(tries)
            result = winner.result()
        finally:
            for task in tries:
                task.cancel()
        self._answered(call, tries[winner], time.monotonic() - began)
        return result

    @overload
    async def recommend_many(
        self,
        requests: Iterable[Request],
        *,
        timeout: float | None | EllipsisType = ...,
        return_errors: Literal[False] = False,
    ) -> list[Recommendations]: ...
    @overload
    async def recommend_many(
        self, requests: Iterable[Request], *, timeout: float | None | EllipsisType = ..., return_errors: Literal[True]
    ) -> list[Recommendations | TriremeError]: ...
    async def recommend_many(
        self,
        requests: Iterable[Request],
        *,
        timeout: float | None | EllipsisType = ...,
        return_errors: bool = False,
    ) -> list[Any]:
        """See ``Client.recommend_many``."""
        with self._recorders.recommend_many() as recorder:
            checked = check_requests(requests, return_errors)
            if any(isinstance(each, CheckedRequest) and each.context for each in checked):
                checked = self._check_names(checked, await self._context_names(timeout), return_errors)
            many = Many(self._noted(checked), self._cache)
            keeps_errors = return_errors or self._falls_back
            try:
                await self._tried(partial(self._ask_many, many, recorder, keeps_errors), timeout)
            except TriremeError as error:
                many.failed(error, self._falls_back)
            return many.results(self._instead, return_errors)

    async def _ask_many(self, many: Many, recorder: Recorder, keeps_errors: bool, call: Call) -> None:
        session = call.target.session
        steps = session.recommend_steps(many.asked, call.timeout, recorder, keeps_errors)
        many.came(await session.run(steps))

    async def _context_names(self, timeout: Limit) -> Collection[str]:
        """Returns the names that a context may have, which the first call that needs them reads from the server."""
        names = self._known_names()
        return (await self.model_info(timeout=timeout)).context if names is None else names

    async def model_info(self, *, timeout: float | None | EllipsisType = ...) -> ModelInfo:
        """See ``Client.model_info``."""
        return await self._tried(self._read_info, timeout)

    async def _read_info(self, call: Call) -> ModelInfo:
        session = call.target.session
        info: ModelInfo = await session.run(session.model_info_steps(call.timeout))
        return info

    async def _tried(self, ask: Callable[[Call], Awaitable[T]], timeout: Limit) -> T:
        """Returns what one try of a call of several RPCs gives, or another one."""
        call = self._targets.begin(timeout, each_rpc=True)
        try:
            return await ask(call)
        except TriremeError as error:
            return await self._again(ask, call, error)
        finally:
            self._targets.end(call)

    async def close(self, grace: float = 0.0) -> None:
        """Closes the connections. Closing again does nothing.

        Args:
            grace: seconds in which calls in other tasks may end; no new ones begin. Those that have not ended by then raise
                ClosedError.
        """
        grace, idle = check_grace(grace), asyncio.Event()
        self._targets.drain(idle.set)
        if grace > 0:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(idle.wait(), grace)
        for target in self._targets.all:
            target.session.closed = True
            if target.coalescer is not None:
                target.coalescer.close()
            await target.session.close()
        if self._cache is not None:
            self._cache.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


async def _first_answer(tries: Iterable[asyncio.Task[Recommendations]]) -> asyncio.Task[Recommendations]:
    """Returns the first task that ends with an answer, or the last one that ends if none does."""
    pending = set(tries)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        answered = [task for task in done if task.exception() is None]
        if answered or not pending:
            return (answered or list(done))[0]


def _forget(task: asyncio.Task[Recommendations]) -> None:
    """Looks at the error of a task that nobody waits for, which asyncio would report otherwise."""
    if not task.cancelled():
        task.exception()
