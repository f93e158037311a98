"""What is left of a comparison that ends before its last round."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from trireme_perf.errors import PerfError
from trireme_perf.goodput.run import Settings, _Run


class Scripted(_Run):
    """Rounds without servers; `fails` holds the errors by round, raised after the first contestant's turn."""

    def __init__(self, fails: dict[int, BaseException]) -> None:
        self.told: list[str] = []
        super().__init__(np.arange(1), Settings(rounds=3), self.told.append, None)
        self._fails = fails
        self._turns = {"fused": [], "ensemble": []}

    async def _round(self, contestants: list[Any], number: int) -> None:
        self._limits.append({"round": number})
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
    assert measured.limits == [{"round": 0}, {"round": 1}]
    assert measured.turns == {"fused": [0, 1], "ensemble": [0, 1]}
    assert measured.ended_early == reason
    assert run.told == [reason]


def test_a_failure_in_the_first_round_is_raised() -> None:
    with pytest.raises(PerfError, match="no answer"):
        asyncio.run(Scripted({0: PerfError("no answer")}).all([]))


def test_all_rounds_are_kept_when_nothing_fails() -> None:
    measured = asyncio.run(Scripted({}).all([]))
    assert (measured.rounds, measured.ended_early) == (3, "")
