"""What a round does before each turn, and what is left of a comparison that ends before its last round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.unit.test_goodput_report import EXPECTED, answered, limit, turn
from trireme_perf.errors import PerfError
from trireme_perf.goodput.answers import DifferenceError
from trireme_perf.goodput.contestants import Contestant, Running
from trireme_perf.goodput.run import Reference, Settings, _Run
from trireme_perf.goodput.turn import Turn
from trireme_perf.load.connections import Answer


class Scripted(_Run):
    """Rounds without servers; `fails` holds the errors by round, raised after the first contestant's turn."""

    def __init__(self, fails: dict[int, BaseException]) -> None:
        self.told: list[str] = []
        super().__init__(np.arange(1), Settings(rounds=3), self.told.append, None)
        self._fails = fails
        self._turns = {"fused": [], "ensemble": []}
        self._limits = {"fused": [], "ensemble": []}

    async def _round(self, contestants: list[Any], number: int) -> None:
        self._limits["fused"].append({"round": number})
        self._turns["fused"].append(number)  # type: ignore[arg-type]
        if number in self._fails:
            raise self._fails[number]
        self._turns["ensemble"].append(number)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PerfError("fused, round 3: no answer"), "fused, round 3: no answer"),
        (asyncio.CancelledError(), "round 3: stopped"),
    ],
)
def test_complete_rounds_are_kept(error: BaseException, reason: str) -> None:
    run = Scripted({2: error})
    measured = asyncio.run(run.all([]))
    assert measured.rounds == 2
    assert measured.limits == {"fused": [{"round": 0}, {"round": 1}], "ensemble": []}
    assert measured.turns == {"fused": [0, 1], "ensemble": [0, 1]}
    assert measured.ended_early == reason
    assert run.told == [reason]


def test_a_failure_in_the_first_round_is_raised() -> None:
    with pytest.raises(PerfError, match="no answer"):
        asyncio.run(Scripted({0: PerfError("no answer")}).all([]))


def test_all_rounds_are_kept_when_nothing_fails() -> None:
    measured = asyncio.run(Scripted({}).all([]))
    assert (measured.rounds, measured.ended_early) == (3, "")


class Unmeasured(_Run):
    """Turns that measure nothing."""

    async def _measure(self, contestant: Contestant, running: Running, number: int) -> Turn:
        return turn(1000.0)


async def test_the_limit_is_measured_right_before_every_turn_with_the_users_of_its_round() -> None:
    done: list[object] = []

    def measure_limit(seed: Sequence[int]) -> dict[str, Any]:
        done.append(seed[1])
        return limit(100.0 + len(done))

    @asynccontextmanager
    async def open_server(name: str) -> AsyncIterator[Running]:
        done.append(name)
        yield Running(None, SimpleNamespace(ask=None))  # type: ignore[arg-type]

    contestants = [Contestant(name, "", "own", partial(open_server, name)) for name in ("fused", "ensemble")]
    run = Unmeasured(np.arange(1), Settings(rounds=2), lambda line: None, Reference(measure_limit, {}))
    measured = await run.all(contestants)
    assert done == [0, "fused", 0, "ensemble", 1, "ensemble", 1, "fused"]
    assert {name: [one["us_per_user"] for one in each] for name, each in measured.limits.items()} == {
        "fused": [101, 107],
        "ensemble": [103, 105],
    }


async def test_an_answer_that_is_wrong_only_under_concurrency_is_found() -> None:
    under_way = most = 0

    async def ask(user_id: int) -> Answer:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        right = most == 1
        under_way -= 1
        return EXPECTED if right else answered([20, 10, 30, 40], [3, 2, 2, 1])

    run = _Run(np.arange(1), Settings(), lambda line: None, Reference(limit, dict.fromkeys(range(64), EXPECTED)))  # type: ignore[arg-type]
    contestant = Contestant("fused", "", "own", None)  # type: ignore[arg-type]
    with pytest.raises(DifferenceError, match="fused answers user 0 with item 20 at rank 1"):
        await run._check_answers(contestant, Running(None, SimpleNamespace(ask=ask)))  # type: ignore[arg-type]
    assert most == 32
