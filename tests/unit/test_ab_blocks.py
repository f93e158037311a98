"""Rounds of blocks: both sides get the same work, in an order that chance decides; what goes wrong is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from trireme_perf.ab.blocks import Block, Course, Load, Side, in_turn
from trireme_perf.errors import PerfError
from trireme_perf.host.usage import Usage
from trireme_perf.load.probe import open_loop


def side(name: str, log: list[tuple[str, int]]) -> Side:
    async def ask(user_id: int) -> None:
        log.append((name, user_id))

    return Side(name, ask, None)


async def run_rounds(rounds: int, log: list[tuple[str, int]]) -> list[tuple[Block, Block]]:
    users = iter(range(1000))

    def draw() -> Load:
        chosen = [next(users), next(users)]
        return lambda side: side.closed_loop(chosen, 1)

    sides = (side("A", log), side("B", log))
    return await in_turn(
        sides, rounds, np.random.default_rng(0), draw, lambda number, blocks: None, Course(pause_s=0.0)
    )


async def test_both_sides_get_the_same_work_in_random_order() -> None:
    log: list[tuple[str, int]] = []
    rounds = await run_rounds(12, log)
    assert len(rounds) == 12
    assert all(len(block.seconds) == 2 for pair in rounds for block in pair)
    first = []
    for number in range(12):
        names = [name for name, _ in log[4 * number : 4 * number + 4]]
        users = [user for _, user in log[4 * number : 4 * number + 4]]
        assert users == [2 * number, 2 * number + 1] * 2
        assert sorted(names) == ["A", "A", "B", "B"]
        assert names[0] == names[1]
        first.append(names[0])
    assert set(first) == {"A", "B"}


class Server:
    """Stands for processes whose CPU time grows by ``us`` with every user who is asked."""

    def __init__(self, us: float) -> None:
        self._us = us
        self.asked: list[int] = []

    async def ask(self, user_id: int) -> None:
        self.asked.append(user_id)

    def check(self) -> None:
        """It lives."""

    def meter(self) -> Server:
        self._before = len(self.asked)
        return self

    def read(self) -> Usage:
        spent = (len(self.asked) - self._before) * self._us / 1e6
        return Usage(1.0, spent, 0.0, 0.01, 0.0)


async def test_turns_of_a_round_are_one_block_and_each_server_pays_for_its_own() -> None:
    servers = Server(700), Server(721)
    sides: Any = tuple(Side(name, server.ask, server) for name, server in zip("AB", servers, strict=True))  # type: ignore[arg-type]
    users = iter(range(1000))

    def draw() -> Load:
        chosen = [next(users) for _ in range(5)]
        return lambda side: side.closed_loop(chosen, 2)

    rounds = await in_turn(sides, 3, np.random.default_rng(0), draw, lambda number, blocks: None, Course(4, 0.0))
    assert sorted(servers[0].asked) == sorted(servers[1].asked) == list(range(3 * 4 * 5))
    for a, b in rounds:
        assert len(a.seconds) == len(b.seconds) == 4 * 5
        assert (a.server_us, b.server_us) == pytest.approx((700, 721))
        assert a.client_us > 0


async def test_the_cpu_of_a_server_that_is_not_ours_is_unknown() -> None:
    rounds = await run_rounds(2, [])
    assert {(block.server_us, block.steal_share) for pair in rounds for block in pair} == {(None, None)}
    assert all(block.client_us > 0 for pair in rounds for block in pair)


def failing(after_s: float, error: Exception | None) -> Callable[[int], Awaitable[None]]:
    async def ask(user_id: int) -> None:
        await asyncio.sleep(after_s)
        if error:
            raise error

    return ask


@pytest.mark.parametrize(
    ("after_s", "error", "message"),
    [
        (0.0, RuntimeError("no"), "B: RuntimeError: no"),
        (60.0, None, "B left 2 of 2 requests of a block unanswered; a lower rate is needed"),
    ],
)
async def test_a_request_without_answer_ends_the_experiment(
    after_s: float, error: Exception | None, message: str
) -> None:
    def draw() -> Load:
        return lambda side: open_loop(side.ask, [1, 2], np.array([0.0, 0.001]), float("inf"))

    sides = (Side("A", failing(0.0, None), None), Side("B", failing(after_s, error), None))
    with pytest.raises(PerfError) as raised:
        await in_turn(sides, 1, np.random.default_rng(0), draw, lambda number, blocks: None)
    assert str(raised.value) == message
