"""What is left of a comparison that ends before its last round."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trireme_perf.errors import PerfError
from trireme_perf.goodput.run import Settings, _Run


class Scripted(_Run):
    """Rounds that take no servers: `fails` says in which one what is raised, after the first contestant's turn."""

    def __init__(self, fails: dict[int, BaseException]) -> None:
        self._settings, self._fails = Settings(rounds=3), fails
        self._turns, self._failed, self._expected = {"fused": [], "ensemble": []}, {}, {}
        self.told: list[str] = []
        self._tell = self.told.append

    async def _round(self, contestants: list[Any], number: int) -> dict[str, Any]:
        self._turns["fused"].append(number)  # type: ignore[arg-type]
        if number in self._fails:
            raise self._fails[number]
        self._turns["ensemble"].append(number)  # type: ignore[arg-type]
        return {"round": number}


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
    assert measured.limits == [{"round": 0}, {"round": 1}]
    assert measured.turns == {"fused": [0, 1], "ensemble": [0, 1]}
    assert measured.ended_early == reason
    assert run.told == [reason]


def test_a_failure_in_the_first_round_is_raised() -> None:
    with pytest.raises(PerfError, match="no answer"):
        asyncio.run(Scripted({0: PerfError("no answer")}).all([]))


def test_all_rounds_are_kept_when_nothing_fails() -> None:
    measured = asyncio.run(Scripted({}).all([]))
    assert (len(measured.limits), measured.ended_early) == (3, "")
