"""Rounds of blocks: both sides get the same work, in an order that chance decides; what goes wrong is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from trireme_perf.ab.blocks import Block, Load, Side, check_rounds, contrast_client_cpu, contrast_server_cpu, in_turn
from trireme_perf.errors import PerfError
from trireme_perf.load.probe import closed_loop, open_loop


def side(name: str, log: list[tuple[str, int]]) -> Side:
    async def ask(user_id: int) -> None:
        log.append((name, user_id))

    return Side(name, ask, None)


async def run_rounds(rounds: int, log: list[tuple[str, int]]) -> list[tuple[Block, Block]]:
    users = iter(range(1000))

    def draw() -> Load:
        chosen = [next(users), next(users)]
        return lambda ask: closed_loop(ask, chosen, 1)

    return await in_turn(
        (side("A", log), side("B", log)), rounds, np.random.default_rng(0), draw, lambda number, blocks: None
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


async def test_the_cpu_of_a_server_that_is_not_ours_is_unknown() -> None:
    rounds = await run_rounds(10, [])
    assert contrast_server_cpu(rounds) is None
    client = contrast_client_cpu(rounds)
    assert client is not None
    assert client.a > 0


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
        return lambda ask: open_loop(ask, [1, 2], np.array([0.0, 0.001]), float("inf"))

    sides = (Side("A", failing(0.0, None), None), Side("B", failing(after_s, error), None))
    with pytest.raises(PerfError) as raised:
        await in_turn(sides, 1, np.random.default_rng(0), draw, lambda number, blocks: None)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("rounds", "seconds", "message"),
    [(9, 1.0, "rounds is 9"), (10, 0.0, "seconds is 0"), (10, np.nan, "seconds is nan")],
)
def test_too_little_is_refused(rounds: int, seconds: float, message: str) -> None:
    with pytest.raises(PerfError, match=message):
        check_rounds(rounds, seconds)
