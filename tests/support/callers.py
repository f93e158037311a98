"""Concurrent callers of one client, the same for threads and for asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from trireme_client import AsyncClient, Client, Recommendations

WAIT = 20  # seconds; whatever has not come by then will not come


class Callers(ABC):
    """Makes each call beside the others, and returns its future."""

    client: Any

    @abstractmethod
    def call(
        self, method: str, *arguments: Any, within: AbstractContextManager[Any] | None = None, **options: Any
    ) -> Future[Any]:
        """Calls a method of the client, in a context if one is given."""

    @abstractmethod
    def close(self) -> None:
        """Closes the client."""

    @abstractmethod
    def end(self) -> None:
        """Closes the client and waits for its callers."""

    def ask(self, *arguments: Any, **options: Any) -> Future[Recommendations]:
        return self.call("recommend", *arguments, **options)


class Threads(Callers):
    """Callers in threads of their own."""

    def __init__(self, url: str, **options: Any) -> None:
        self._pool = ThreadPoolExecutor(128)
        self.client = Client(url, **{"timeout": 30, **options})

    def call(
        self, method: str, *arguments: Any, within: AbstractContextManager[Any] | None = None, **options: Any
    ) -> Future[Any]:
        def run() -> Any:
            with within or nullcontext():
                return getattr(self.client, method)(*arguments, **options)

        return self._pool.submit(run)

    def close(self) -> None:
        self.client.close()

    def end(self) -> None:
        self.close()
        self._pool.shutdown()


class Tasks(Callers):
    """Callers as tasks of one event loop, which runs in a thread."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.client = AsyncClient(url, **{"timeout": 30, **options})

    def call(
        self, method: str, *arguments: Any, within: AbstractContextManager[Any] | None = None, **options: Any
    ) -> Future[Any]:
        async def run() -> Any:
            with within or nullcontext():
                return await getattr(self.client, method)(*arguments, **options)

        return self._submit(run())

    def close(self) -> None:
        self._submit(self.client.close()).result(WAIT)

    def end(self) -> None:
        self.close()
        self._submit(self._settle()).result(WAIT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _settle(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def _submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def until(condition: Callable[[], bool]) -> None:
    """Returns once the condition holds, which nothing but looking at it can show."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.002)
