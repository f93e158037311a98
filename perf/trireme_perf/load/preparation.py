"""What comes before a measurement: a warm server, its answers to compare, and a first idea of its capacity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from trireme_perf.load.connections import Answer
from trireme_perf.load.probe import Ask, closed_loop, no_collection
from trireme_perf.load.users import UserMix

__all__ = ["answers_to", "capacity", "warm_up"]

WARM, WARM_CONCURRENCY = 300, 16


async def warm_up(ask: Ask, users: UserMix) -> None:
    """Sends requests, some at once, that are not measured. Raises: AskError: one failed."""
    await closed_loop(ask, users.take(WARM), WARM_CONCURRENCY)


async def answers_to(
    ask: Callable[[int], Awaitable[Answer]], user_ids: Sequence[int], concurrency: int
) -> dict[int, Answer]:
    """Returns the answer to each of the users. Raises: AskError: a request failed."""
    answers: dict[int, Answer] = {}

    async def remember(user_id: int) -> None:
        answers[user_id] = await ask(user_id)

    await closed_loop(remember, user_ids, concurrency)
    return answers


async def capacity(ask: Ask, users: Sequence[int], concurrency: int) -> float:
    """Returns the users/s that a closed loop reaches. Raises: AskError: a request failed."""
    with no_collection():
        crowd = await closed_loop(ask, users, concurrency)
    return crowd.answered / crowd.wall_s
