"""Costs of two sides that take turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from trireme_perf.ab.blocks import Side
from trireme_perf.errors import PerfError
from trireme_perf.load.users import UserMix
from trireme_perf.overhead import turns
from trireme_perf.overhead.turns import Cost, Turns, median_ratio, take_turns


@dataclass
class Usage:
    server_cpu_s: float


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
        return Usage((len(self.asked) - self._before) * self._us / 1e6)


def sides(*servers: Any) -> Any:
    return tuple((Side(str(number), server.ask, server), server) for number, server in enumerate(servers))


def test_both_are_asked_the_same_users_and_pay_for_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SETTLE_S", 0)
    a, b = Server(700), Server(721)
    users = UserMix(np.arange(50), np.random.default_rng(1))
    told: list[tuple[Cost, Cost]] = []
    rounds = asyncio.run(
        take_turns(sides(a, b), 3, Turns(4, 5, 2), users, np.random.default_rng(2), lambda _, costs: told.append(costs))
    )
    assert told == rounds
    assert Counter(a.asked) == Counter(b.asked)
    assert len(a.asked) == 3 * 4 * 5
    for first, second in rounds:
        assert (first.server_us, second.server_us) == pytest.approx((700, 721))
        assert first.client_us > 0


def test_a_failed_request_ends_it() -> None:
    class Failing(Server):
        async def ask(self, user_id: int) -> None:
            raise PerfError("no")

    users = UserMix(np.arange(5), np.random.default_rng(1))
    with pytest.raises(PerfError, match="PerfError: no"):
        asyncio.run(
            take_turns(
                sides(Server(1), Failing(1)), 1, Turns(1, 1, 1), users, np.random.default_rng(2), lambda _, costs: None
            )
        )


def test_sides_of_a_round_are_compared_before_rounds_are() -> None:
    """The machine is twice as slow in half of the rounds: the ratio of two medians of costs would know nothing of that."""
    rng = np.random.default_rng(3)
    phases = np.where(rng.random(21) < 0.5, 700.0, 1400.0)
    pairs = [(phase * rng.normal(1, 0.001), 1.02 * phase * rng.normal(1, 0.001)) for phase in phases]
    ratio = median_ratio(pairs)
    assert ratio.value == pytest.approx(1.02, abs=0.001)
    assert 1.018 < ratio.low <= ratio.value <= ratio.high < 1.022
