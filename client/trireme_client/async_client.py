"""The client for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import Any, Literal, overload

from .async_coalescer import AsyncCoalescer
from .async_session import AsyncSession
from .base import BaseClient
from .errors import TriremeError
from .model import ModelInfo
from .recommendations import Recommendations
from .requests import Anonymous, Ids, Request, check_arguments, check_requests


class AsyncClient(BaseClient):
    """``Client`` for asyncio: the same arguments, results and errors.

    Use it in an ``async with`` block, or call ``close`` at the end. It belongs to the event loop of its first call; any
    number of tasks may share it. A task that is cancelled stops waiting for its RPCs.
    """

    _session: AsyncSession
    _session_type = AsyncSession
    _coalescer: AsyncCoalescer | None
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
        with self._session.recorders.recommend(ledger) as recorder:
            request = check_arguments(user_id, k, history, exclude, background)
            recorder.ended("validate")
            try:
                if self._coalescer is not None:
                    return recorder.answered(await self._coalescer.recommend(request, timeout, recorder))
                (result,) = await self._session.run(self._session.recommend_steps([request], timeout, recorder))
            except TriremeError as error:
                result = self._session.instead(request, error)
            return recorder.answered(result)

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
        with self._session.recorders.recommend_many() as recorder:
            checked = check_requests(requests, return_errors)
            steps = self._session.recommend_many_steps(checked, timeout, recorder, return_errors)
            return await self._session.run(steps)

    async def model_info(self, *, timeout: float | None | EllipsisType = ...) -> ModelInfo:
        """See ``Client.model_info``."""
        return await self._session.run(self._session.model_info_steps(timeout))

    async def close(self) -> None:
        """Closes the connection; calls in other tasks raise ClosedError. Closing again does nothing."""
        self._session.closed = True
        if self._coalescer is not None:
            self._coalescer.close()
        await self._session.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
