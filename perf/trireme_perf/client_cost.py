"""What a call costs the process that makes it: CPU time per user of the clients, against plain tritonclient."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio

from trireme_client import AsyncClient, Client, Coalescing
from trireme_export.perf_input import read_perf_input

__all__ = ["measure_client_cost"]

CALLERS = 64
THREADS = 32
K = 10
TIMEOUT_S = 60.0

Ask = Callable[[int], Awaitable[Any]]


def measure_client_cost(
    url: str, repository: Path, model: str, *, requests: int = 4096, rounds: int = 5
) -> dict[str, Any]:
    """CPU microseconds per user in this process, of four ways to ask for `requests` users one by one.

    `tritonclient` is tritonclient.grpc.aio used as documented, `async` an AsyncClient, `async_coalescing` one that
    coalesces, and `threads_coalescing` a Client that does, in 32 threads. 64 callers (32 in threads) ask again as soon as
    they are answered. Users come from `<repository>/perf_input.json`. The rounds of all four take turns; a client is
    connected and warm before its time counts. The server must run in another process.

    Returns for each its median `us_per_user`, the `spread` of the rounds ((max - min) / median), `users_per_rpc`, and
    `ratio`: how many times cheaper it is than `tritonclient`.
    """
    users = cycle(read_perf_input(repository).tolist())
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in _CONTESTANTS}
    for _ in range(rounds):
        for name, contestant in _CONTESTANTS.items():
            chosen = [next(users) for _ in range(requests)]
            before = _counts(url, model)
            seconds = contestant(url, model, chosen)
            asked, rpcs = (after - early for after, early in zip(_counts(url, model), before, strict=True))
            samples[name].append((seconds / requests * 1e6, asked / rpcs))
    middle = {name: statistics.median(cost for cost, _ in rows) for name, rows in samples.items()}
    return {
        "model": model,
        "requests": requests,
        "rounds": rounds,
        "clients": {
            name: {
                "us_per_user": middle[name],
                "spread": (max(rows)[0] - min(rows)[0]) / middle[name],
                "users_per_rpc": statistics.median(size for _, size in rows),
                "ratio": middle["tritonclient"] / middle[name],
            }
            for name, rows in samples.items()
        },
    }


def _plain(url: str, model: str, users: Sequence[int]) -> float:
    async def run() -> float:
        async with tritonclient.grpc.aio.InferenceServerClient(url) as client:

            async def ask(user: int) -> Any:
                user_id = tritonclient.grpc.InferInput("user_id", [1, 1], "INT64")
                user_id.set_data_from_numpy(np.array([[user]], np.int64))
                outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in ("item_id", "score", "rung")]
                answer = await client.infer(model, [user_id], outputs=outputs)
                return answer.as_numpy("item_id")[0, :K], answer.as_numpy("score")[0, :K], answer.as_numpy("rung")[0, 0]

            return await _closed_loop(ask, users)

    return asyncio.run(run())


def _async(coalescing: Coalescing | None, url: str, model: str, users: Sequence[int]) -> float:
    async def run() -> float:
        async with AsyncClient(url, model=model, timeout=TIMEOUT_S, coalescing=coalescing) as client:
            return await _closed_loop(partial(client.recommend, k=K), users)

    return asyncio.run(run())


async def _closed_loop(ask: Ask, users: Sequence[int]) -> float:
    """CPU seconds for all users, asked by CALLERS tasks."""

    async def caller(remaining: Iterator[int]) -> None:
        for user in remaining:
            await ask(user)

    async def callers(chosen: Sequence[int]) -> None:
        remaining = iter(chosen)
        await asyncio.gather(*(caller(remaining) for _ in range(CALLERS)))

    await callers(users[:CALLERS])  # connects, and reads what is read once
    start = time.process_time()
    await callers(users)
    return time.process_time() - start


def _threads(url: str, model: str, users: Sequence[int]) -> float:
    def caller(mine: Sequence[int]) -> None:
        for user in mine:
            client.recommend(user, K)

    with (
        Client(url, model=model, timeout=TIMEOUT_S, coalescing=Coalescing()) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        list(pool.map(caller, [users[:1]] * THREADS))
        start = time.process_time()
        list(pool.map(caller, [users[first::THREADS] for first in range(THREADS)]))
        return time.process_time() - start


_CONTESTANTS: dict[str, Callable[[str, str, Sequence[int]], float]] = {
    "tritonclient": _plain,
    "async": partial(_async, None),
    "async_coalescing": partial(_async, Coalescing()),
    "threads_coalescing": _threads,
}


def _counts(url: str, model: str) -> tuple[int, int]:
    """Users and RPCs that the model has answered, of all its versions."""
    with tritonclient.grpc.InferenceServerClient(url) as client:
        stats = client.get_inference_statistics(model).model_stats
        return sum(row.inference_count for row in stats), sum(row.inference_stats.success.count for row in stats)
