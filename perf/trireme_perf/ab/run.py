"""Both variants up at once, asked for the same lists, and then the same traffic in turn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_perf.ab.answers import compare_answers
from trireme_perf.ab.blocks import Block, Load, Side, check_rounds, in_turn
from trireme_perf.ab.variants import Variant
from trireme_perf.errors import PerfError
from trireme_perf.host.server import Server
from trireme_perf.host.triton import ready_address, serve_command
from trireme_perf.host.usage import pinned
from trireme_perf.load.arrivals import poisson_arrivals
from trireme_perf.load.connections import Answer, ClientConnection
from trireme_perf.load.probe import closed_loop, no_collection, open_loop, run_precisely
from trireme_perf.load.users import UserMix
from trireme_perf.stats.bootstrap import METRICS
from trireme_perf.stats.percentiles import percentile

__all__ = ["Judge", "Measured", "Settings", "measure", "start", "warm"]

CHECKED = 256  # users whose answers are compared
CHECKED_AT_ONCE = 8
WARM, WARM_CONCURRENCY = 300, 16
CAPACITY, CAPACITY_CONCURRENCY = 400, 4
LOAD = 0.4  # of the slower variant's capacity, unless a rate is given: some have to queue, and a hiccup passes
DRAIN_S = 10.0  # a machine that stands still for seconds is a latency, and no reason to give up
SEED = 20060508


@dataclass(frozen=True)
class Judge:
    """data: name of the labels. ndcg: NDCG@10 of a model's lists by user, float64 (users,), given the server's address and
    the model's name."""

    data: str
    ndcg: Callable[[str, str], NDArray[np.float64]]


@dataclass(frozen=True)
class Settings:
    """``rounds`` of one block of ``seconds`` on each variant; ``rate`` in users/s, None for 40 % of what the slower one can;
    ``metric`` of the latency decides; the first ``k`` items of answers are compared. All that ``repeats`` times, one after
    another, on the same servers."""

    rounds: int = 20
    seconds: float = 1.0
    rate: float | None = None
    metric: str = "p50"
    k: int = 10
    repeats: int = 1

    def __post_init__(self) -> None:
        check_rounds(self.rounds, self.seconds)
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise PerfError(f"rate is {self.rate:g}, must be more than 0")
        if self.metric not in METRICS:
            raise PerfError(f"metric is {self.metric!r}, allowed: {', '.join(METRICS)}")
        if self.k < 1:
            raise PerfError(f"k is {self.k}, must be at least 1")
        if self.repeats < 1:
            raise PerfError(f"repeats is {self.repeats}, must be at least 1")


@dataclass(frozen=True)
class Measured:
    """rate: users/s that were offered. answers: of ``compare_answers``. ndcg: by user, of both; None without labels."""

    rate: float
    rounds: list[tuple[Block, Block]]
    answers: dict[str, Any]
    list_lengths: tuple[int, int]
    ndcg: tuple[NDArray[np.float64], NDArray[np.float64]] | None


def measure(
    a: Variant,
    b: Variant,
    users: NDArray[np.int64],
    settings: Settings,
    judge: Judge | None,
    tell: Callable[[str], None],
) -> Measured:
    """Runs the experiment. Servers that it starts share one core, of which one of them at a time has use; the load generator,
    which is this process, has another.

    Args:
        users: int64 (users,), who ask.
        judge: where accuracy is to be measured too.
        tell: is told how it goes, line by line.

    Raises:
        PerfError: fewer than two cores, a server did not start, or a request failed.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise PerfError("this process may use 1 core; 2 are needed, one for the servers and one for the load")
    with tempfile.TemporaryDirectory(prefix="trireme-ab-") as logs, pinned(cores[0]):
        return run_precisely(_run((a, b), users, settings, judge, tell, cores[-1], Path(logs)))


async def start(
    stack: AsyncExitStack,
    repository: Path,
    core: int,
    log: Path,
    options: tuple[str, ...] = (),
    environment: Mapping[str, str] = {},
) -> tuple[Server, str]:
    """A server on ``core``, ready, and its address; it is stopped with the ``stack``. ``options``: of `trireme serve`;
    ``environment``: added to ours.

    Raises: StartError.
    """
    command = replace(serve_command(repository, options=options), environment=environment)
    server = Server(command, core, log)
    stack.callback(server.stop)
    return server, await ready_address(server)


async def warm(side: Side, users: UserMix) -> None:
    """Raises: AskError: a request failed."""
    await closed_loop(side.ask, users.take(WARM), WARM_CONCURRENCY)


async def _run(
    variants: tuple[Variant, Variant],
    user_ids: NDArray[np.int64],
    settings: Settings,
    judge: Judge | None,
    tell: Callable[[str], None],
    core: int,
    logs: Path,
) -> Measured:
    rng = np.random.default_rng(SEED)
    users = UserMix(user_ids, rng)
    async with AsyncExitStack() as stack:
        sides, connections, scores = [], [], []
        for name, variant in zip("AB", variants, strict=True):
            tell(f"{name}: {variant.text}")
            server, url = (
                await start(stack, variant.repository, core, logs / name) if variant.repository else (None, variant.url)
            )
            connection = await ClientConnection.open(url, variant.model, variant.coalescing)
            stack.push_async_callback(connection.close)
            connections.append(connection)
            sides.append(Side(name, connection.ask, server))
            if judge:
                tell(f"  {judge.data}: the lists of {name}")
                scores.append(judge.ndcg(url, variant.model))
        answers = await _answers(sides, users, min(CHECKED, len(user_ids)))
        for side in sides:
            await warm(side, users)
        rate = settings.rate or LOAD * min([await _capacity(side, users) for side in sides])
        number = settings.rounds * settings.repeats
        tell(f"{rate:,.0f} users/s, {number} rounds of 2 × {settings.seconds:g} s")
        rounds = await in_turn(
            (sides[0], sides[1]),
            number,
            rng,
            partial(_draw, rate, settings.seconds, users, rng),
            partial(_tell_round, tell, number),
        )
    return Measured(
        rate,
        rounds,
        compare_answers(*answers, settings.k),
        (connections[0].list_length, connections[1].list_length),
        (scores[0], scores[1]) if judge else None,
    )


def _draw(rate: float, seconds: float, users: UserMix, rng: np.random.Generator) -> Load:
    """Users who come at random moments; the same for all who are given this load."""
    arrivals = poisson_arrivals(rate, seconds, rng)
    chosen = users.take(len(arrivals))
    return lambda ask: open_loop(ask, chosen, arrivals, float("inf"), DRAIN_S)


async def _answers(sides: list[Side], users: UserMix, count: int) -> tuple[list[Answer], list[Answer]]:
    """Of every side to the same users."""
    chosen = users.take(count)
    every = []
    for side in sides:
        found: dict[int, Answer] = {}

        async def remember(user_id: int, side: Side = side, found: dict[int, Answer] = found) -> None:
            found[user_id] = await side.ask(user_id)

        await closed_loop(remember, chosen, CHECKED_AT_ONCE)
        every.append([found[user_id] for user_id in chosen])
    return every[0], every[1]


async def _capacity(side: Side, users: UserMix) -> float:
    """Users/s that it answers in a closed loop."""
    with no_collection():
        crowd = await closed_loop(side.ask, users.take(CAPACITY), CAPACITY_CONCURRENCY)
    return crowd.answered / crowd.wall_s


def _tell_round(tell: Callable[[str], None], rounds: int, number: int, blocks: tuple[Block, Block]) -> None:
    p50 = [f"{name} {percentile(block.seconds, 50) * 1e3:.2f}" for name, block in zip("AB", blocks, strict=True)]
    tell(f"  round {number + 1} of {rounds}: p50 {', '.join(p50)} ms")
