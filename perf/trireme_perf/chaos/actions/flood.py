"""A flood of requests of the class background, from a process of its own, in an open loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.synchronize import Event
from typing import Annotated, Literal

import grpc
from pydantic import Field
from tritonclient.grpc import service_pb2

from trireme_client import AsyncClient, Coalescing, Reason, Request, TriremeError
from trireme_perf.chaos.actions.callers import INFER, message
from trireme_perf.chaos.actions.disturber import disturbing
from trireme_perf.chaos.scene import Scene
from trireme_runtime.schema import BACKGROUND, CLASS, REASON, K

__all__ = ["background_flood"]

By = Literal["client", "plain"]
Ask = Callable[[Sequence[int]], Awaitable[Sequence[int]]]
"""Asks for some users and returns the reasons of their answers."""

TICK_S, DRAIN_S, LISTED = 0.002, 5.0, 10


@contextmanager
def background_flood(
    scene: Scene,
    times: Annotated[float, Field(gt=0, le=1000)] = 9.0,
    by: By = "plain",
    users: Annotated[int, Field(ge=1, le=64)] = 1,
) -> Iterator[None]:
    """Others ask in the background, whatever the server answers.

    Args:
        times: their users/s, as a multiple of what our clients ask for.
        by: ``client``: our client, whose calls share RPCs; ``plain``: RPCs that nothing holds back.
        users: of each call.
    """
    rate = times * scene.rate
    with disturbing(scene, _flood, by, scene.server.grpc, scene.model, scene.users, rate, users, scene.seed):
        yield


def _flood(
    stop: Event, by: By, url: str, model: str, who: Sequence[int], rate: float, users: int, seed: int
) -> Counter[str]:
    rng = random.Random(seed)

    async def run() -> Counter[str]:
        async with (_client if by == "client" else _plain)(url, model) as ask:
            return await _open_loop(stop, ask, lambda: rng.choices(who, k=users), rate / users)

    return asyncio.run(run())


async def _open_loop(stop: Event, ask: Ask, draw: Callable[[], Sequence[int]], calls_per_s: float) -> Counter[str]:
    """Makes so many calls per second until the end; counts users by the reason of their answer."""
    counts, flying = Counter[str](), set[asyncio.Task[None]]()

    async def one(users: Sequence[int]) -> None:
        try:
            counts.update(
                "full" if reason == Reason.NONE else Reason(reason).name.lower() for reason in await ask(users)
            )
        except (grpc.RpcError, TriremeError) as error:
            counts[type(error).__name__] += len(users)

    begin, sent = time.monotonic(), 0
    while not stop.is_set():
        while sent < calls_per_s * (time.monotonic() - begin):
            task = asyncio.create_task(one(draw()))
            flying.add(task)
            task.add_done_callback(flying.discard)
            sent += 1
        await asyncio.sleep(TICK_S)
    counts["calls"], counts["calls_per_s"] = sent, round(sent / (time.monotonic() - begin))
    if flying:
        await asyncio.wait(flying, timeout=DRAIN_S)
    counts["unanswered"] = len(flying)
    return counts


@asynccontextmanager
async def _client(url: str, model: str) -> AsyncIterator[Ask]:
    async with AsyncClient(url, model=model, coalescing=Coalescing()) as client:

        async def ask(users: Sequence[int]) -> list[int]:
            if len(users) == 1:
                return [(await client.recommend(users[0], LISTED, background=True)).reason]
            answers = await client.recommend_many([Request(user, LISTED, background=True) for user in users])
            return [answer.reason for answer in answers]

        await client.model_info()
        yield ask


@asynccontextmanager
async def _plain(url: str, model: str) -> AsyncIterator[Ask]:
    async with grpc.aio.insecure_channel(url) as channel:
        infer = channel.unary_unary(INFER, response_deserializer=service_pb2.ModelInferResponse.FromString)

        async def ask(users: Sequence[int]) -> bytes:
            request = message(model, *users)
            request.parameters[CLASS].string_param, request.parameters[K].int64_param = BACKGROUND, LISTED
            answer = await infer(request.SerializeToString())
            names = [output.name for output in answer.outputs]
            return bytes(answer.raw_output_contents[names.index(REASON.name)])

        yield ask
