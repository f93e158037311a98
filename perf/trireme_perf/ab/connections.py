"""How a variant is asked: by the clients of this project, or by plain tritonclient."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
from numpy.typing import NDArray

from trireme_client import ANONYMOUS, Client, Coalescing, Recommendations, Telemetry
from trireme_perf.ab.variants import Variant
from trireme_perf.load.connections import Answer, ClientConnection
from trireme_perf.load.probe import AskError, Latencies, closed_loop

__all__ = ["Asker", "connect"]

OUTPUTS = ("item_id", "score", "rung")
TIMEOUT_S = 60.0
THREADS = 32
#: The fewest and the most answers in which items are looked for, items of a history, and choices of items to ask with.
FEWEST, MOST, HISTORY, CHOICES = 16, 200, 50, 256


class Asker:
    """Asks one variant. ``list_length``: of the model.

    Args:
        ask: returns the answer to a user.
        close: ends the connection.
    """

    def __init__(
        self, ask: Callable[[int], Awaitable[Answer]], close: Callable[[], Awaitable[None]], list_length: int
    ) -> None:
        self.ask, self.close, self.list_length = ask, close, list_length

    async def closed_loop(self, users: Sequence[int], concurrency: int) -> Latencies:
        """Asks for all users, ``concurrency`` at a time. Raises: AskError: a request failed."""
        return await closed_loop(self.ask, users, concurrency)


async def connect(stack: AsyncExitStack, variant: Variant, url: str, telemetry: Telemetry | None = None) -> Asker:
    """Opens the connection of a variant to the server at ``url``; it is closed with the ``stack``."""
    if variant.client == "tritonclient":
        asker = await _plain(url, variant.model)
    elif variant.client == "threads":
        asker = _Threads(variant, url, telemetry)
    else:
        opened = await ClientConnection.open(url, variant.model, variant.coalescing, telemetry)
        ask = await _with_items(opened, variant) if variant.history or variant.exclude else opened.ask
        asker = Asker(partial(ask, ledger=variant.ledger), opened.close, opened.list_length)
    stack.push_async_callback(asker.close)
    return asker


async def _with_items(opened: ClientConnection, variant: Variant) -> Callable[..., Awaitable[Answer]]:
    """Asks with histories and exclusions of items that the server itself has recommended; a user always has the same ones.

    They are chosen beforehand, since a caller has them: choosing 1,000 takes a good part of a request.
    """
    rng = np.random.default_rng(0)
    items = await _recommended(opened, variant.exclude, rng)
    choices = [rng.permutation(items) for _ in range(CHOICES)]
    histories = [chosen[:HISTORY].tolist() for chosen in choices]
    excluded = [np.resize(chosen, variant.exclude).tolist() or None for chosen in choices]
    asks_with_history = rng.random(CHOICES) < variant.history

    async def ask(user_id: int, *, ledger: bool) -> Answer:
        place = user_id % CHOICES
        history = histories[place] if asks_with_history[place] else None
        return await opened.ask(user_id, ledger=ledger, history=history, exclude=excluded[place])

    return ask


async def _recommended(opened: ClientConnection, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns at least ``wanted`` items, if so many come up in ``MOST`` answers."""
    known: set[int] = set()
    for asked in range(MOST):
        if asked >= FEWEST and len(known) >= wanted:
            break
        history = rng.permutation(sorted(known))[: 1 + asked % 4].tolist() or None  # of other items, other answers
        answer = await opened.ask(None if history else ANONYMOUS, history=history)
        known.update(answer.item_id[answer.item_id >= 0].tolist())
    return np.array(sorted(known))


async def _plain(url: str, model: str) -> Asker:
    """tritonclient.grpc.aio, used as it is documented."""
    client = tritonclient.grpc.aio.InferenceServerClient(url)

    async def ask(user_id: int) -> Answer:
        tensor = tritonclient.grpc.InferInput("user_id", [1, 1], "INT64")
        tensor.set_data_from_numpy(np.array([[user_id]], np.int64))
        outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in OUTPUTS]
        found = await client.infer(model, [tensor], outputs=outputs)
        item_id, score, rung = (found.as_numpy(name)[0] for name in OUTPUTS)
        return Answer(item_id, score, int(rung[0]))

    return Asker(ask, client.close, len((await ask(-1)).item_id))


class _Threads(Asker):
    """The client of threads: its closed loop runs in threads of its own, as many as there are callers."""

    def __init__(self, variant: Variant, url: str, telemetry: Telemetry | None) -> None:
        coalescing = Coalescing() if variant.coalescing else None
        self._client = Client(url, model=variant.model, timeout=TIMEOUT_S, coalescing=coalescing, telemetry=telemetry)
        self._pool = ThreadPoolExecutor(THREADS)
        self._ledger = variant.ledger
        super().__init__(self._ask, self._close, self._client.model_info().list_length)

    async def closed_loop(self, users: Sequence[int], concurrency: int) -> Latencies:
        start = time.perf_counter()
        with ThreadPoolExecutor(concurrency) as pool:
            mine = [users[first::concurrency] for first in range(concurrency)]
            each = await asyncio.gather(
                *(asyncio.wrap_future(pool.submit(self._one_after_another, one)) for one in mine)
            )
        seconds = np.array([spent for one in each for spent in one])
        return Latencies(seconds, len(users), len(seconds), False, time.perf_counter() - start, 0, "")

    def _one_after_another(self, users: Sequence[int]) -> list[float]:
        seconds = []
        for user in users:
            sent = time.perf_counter()
            try:
                self._recommend(user)
            except Exception as error:
                raise AskError(f"user {user}: {type(error).__name__}: {error}") from error
            seconds.append(time.perf_counter() - sent)
        return seconds

    def _recommend(self, user_id: int) -> Recommendations:
        return self._client.recommend(user_id, self.list_length, ledger=self._ledger)

    async def _ask(self, user_id: int) -> Answer:
        found = await asyncio.get_running_loop().run_in_executor(self._pool, self._recommend, user_id)
        return Answer(found.item_ids, found.scores, int(found.rung))

    async def _close(self) -> None:
        self._pool.shutdown()
        self._client.close()
