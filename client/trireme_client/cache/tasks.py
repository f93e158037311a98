"""How tasks of asyncio wait for the answers of a cache."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ..errors import TriremeError
from ..recommendations import Recommendations
from ..recorder import NO_CALL, Recorder
from ..requests import CheckedRequest
from ..rpc import T
from ..session import Limit
from .answers import AnswerCache, Ask, Step, Steps, Wait

AskServer = Callable[[CheckedRequest, Recorder, Limit], Awaitable[Recommendations]]


class TaskCache(AnswerCache):
    """The cache of a client for asyncio."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tasks: set[asyncio.Task[None]] = set()

    async def recommend(
        self, request: CheckedRequest, recorder: Recorder, timeout: Limit, ask: AskServer
    ) -> Recommendations:
        """See ``ThreadCache.recommend``."""
        found = self.look(request, recorder, timeout)
        if found is None:
            return await self._run(self.steps(request, recorder, timeout), partial(ask, request, recorder))
        answer, stale = found
        if stale and (steps := self.renewal(request)) is not None:
            task = asyncio.create_task(self._renewed(steps, partial(ask, request, NO_CALL)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        recorder.ended("cache")
        return answer

    async def _renewed(self, steps: Steps[Any], ask: Callable[[Limit], Awaitable[Recommendations]]) -> None:
        with suppress(TriremeError):
            await self._run(steps, ask)

    async def _run(self, steps: Steps[T], ask: Callable[[Limit], Awaitable[Recommendations]]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._take(step, ask)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as finished:
            result: T = finished.value
            return result

    async def _take(self, step: Step, ask: Callable[[Limit], Awaitable[Recommendations]]) -> Any:
        if isinstance(step, Ask):
            return await ask(step.timeout)
        if isinstance(step, Wait):
            return await _waited(step.flight.add_done_callback, step.seconds)
        job = self.redis.read(step.key)
        in_time = await _waited(lambda wake: job.add_done_callback(lambda _: wake()), self.redis.timeout_s)
        return self.redis.result(job, in_time)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        super().close()


async def _waited(add_done_callback: Callable[[Callable[[], object]], object], seconds: float | None) -> bool:
    """Returns whether something ended within so many seconds; it may end in another thread."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    add_done_callback(partial(_call_in, loop, ended))
    done, _ = await asyncio.wait({ended}, timeout=None if seconds is None else max(0.0, seconds))
    return bool(done)


def _call_in(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(_set, ended)


def _set(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
