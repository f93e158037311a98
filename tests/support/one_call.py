"""One call of a new client, for threads or for asyncio, under one signature."""

from __future__ import annotations

import asyncio
from typing import Any

from trireme_client import AsyncClient, Client


def call_sync(url: str, method: str, *arguments: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
    with Client(url, **(client or {})) as made:
        return getattr(made, method)(*arguments, **options)


def call_async(url: str, method: str, *arguments: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, **(client or {})) as made:
            return await getattr(made, method)(*arguments, **options)

    return asyncio.run(run())
