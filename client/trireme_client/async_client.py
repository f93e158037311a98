"""The client for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from types import EllipsisType
from typing import Any, Literal, overload

from .async_coalescer import AsyncCoalescer
from .async_session import AsyncSession
from .base import BaseClient
from .errors import TriremeError
from .many import Many
from .model import ModelInfo
from .options import check_grace
from .recommendations import Recommendations
from .recorder import Recorder
from .requests import Anonymous, CheckedRequest, Ids, Request, check_arguments, check_requests
from .rpc import T
from .session import Limit
from .targets import Attempt


class AsyncClient(BaseClient):
    """``Client`` for asyncio: the same arguments, results and errors.

    Use it in an ``async with`` block, or call ``close`` at the end. It belongs to the event loop of its first call; any
    number of tasks may share it. A task that is cancelled stops waiting for its RPCs.
    """

    _session_type = AsyncSession
    _coalescer_type = AsyncCoalescer

    async def recommend(
        self,
        user_id: int | Anonymous | None = None,
        k: int = 10,
        *,
        history: Sequence[int] | Ids | None = None,
        exclude: Sequence[int] | Ids | None = None,
        background: bool = False,
        timeout: float | None | EllipsisType = ...,
        ledger: bool = False,
    ) -> Recommendations:
        """See ``Client.recommend``."""
        with self._recorders.recommend(ledger) as recorder:
            request = check_arguments(user_id, k, history, exclude, background)
            recorder.ended("validate")
            try:
                result = await self._tried(partial(self._hedged, request, recorder), timeout)
            except TriremeError as error:
                result = self._instead(request, error)
            return recorder.answered(result)

    async def _hedged(self, request: CheckedRequest, recorder: Recorder, attempt: Attempt) -> Recommendations:
        """Returns the answer of one server, or of the faster one of two if the first takes long."""
        delay = self._hedge_delay(recorder)
        if delay is None:
            return await self._ask(request, recorder, attempt)
        began = time.monotonic()
        tries = {self._start(request, recorder, attempt): attempt}
        second = None
        try:
            await asyncio.wait(tries, timeout=delay)
            if not any(task.done() for task in tries) and (second := self._second(attempt, delay)) is not None:
                tries[self._start(request, recorder, second)] = second
            winner = await _first_answer(tries)
            result = winner.result()
        finally:
            if second is not None:
                self._targets.release(second.target)
            for task in tries:
                task.cancel()
        self._answered(tries[winner], attempt, time.monotonic() - began)
        return result

    def _start(self, request: CheckedRequest, recorder: Recorder, attempt: Attempt) -> asyncio.Task[Recommendations]:
        task = asyncio.create_task(self._ask(request, recorder, attempt))
        task.add_done_callback(_forget)
        return task

    async def _ask(self, request: CheckedRequest, recorder: Recorder, attempt: Attempt) -> Recommendations:
        session, coalescer = attempt.target.session, attempt.target.coalescer
        if coalescer is not None:
            shared: Recommendations = await coalescer.recommend(request, attempt.timeout, recorder)
            return shared
        result: Recommendations
        (result,) = await session.run(session.recommend_steps([request], attempt.timeout, recorder))
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
            many = Many(check_requests(requests, return_errors))
            keeps_errors = return_errors or self._falls_back
            try:
                await self._tried(partial(self._ask_many, many, recorder, keeps_errors), timeout, each_rpc=True)
            except TriremeError as error:
                many.failed(error, self._falls_back)
            return many.results(self._instead, return_errors)

    async def _ask_many(self, many: Many, recorder: Recorder, keeps_errors: bool, attempt: Attempt) -> None:
        session = attempt.target.session
        steps = session.recommend_steps(many.asked, attempt.timeout, recorder, keeps_errors)
        many.came(await session.run(steps))

    async def model_info(self, *, timeout: float | None | EllipsisType = ...) -> ModelInfo:
        """See ``Client.model_info``."""
        return await self._tried(self._read_info, timeout, each_rpc=True)

    async def _read_info(self, attempt: Attempt) -> ModelInfo:
        session = attempt.target.session
        info: ModelInfo = await session.run(session.model_info_steps(attempt.timeout))
        return info

    async def _tried(self, ask: Callable[[Attempt], Awaitable[T]], timeout: Limit, each_rpc: bool = False) -> T:
        """Returns what one try of a call, or another one, gives."""
        with closing(self._targets.attempts(timeout, each_rpc)) as attempts:
            attempt = next(attempts)
            while True:
                if attempt.pause:
                    await asyncio.sleep(attempt.pause)
                try:
                    return await ask(attempt)
                except TriremeError as error:
                    attempt = attempts.throw(error)

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
