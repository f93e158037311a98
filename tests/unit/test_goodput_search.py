"""The search for goodput on a simulated server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from trireme_perf.goodput.search import PRECISION, SLOWEST, confirm_goodput, find_goodput
from trireme_perf.load.arrivals import poisson_arrivals
from trireme_perf.stats.percentiles import percentile

SERVICE_S = 0.001
SLO_S = 0.020


def queue_latencies(arrivals: np.ndarray, service_s: float) -> np.ndarray:
    """A single server with constant service time (M/D/1), by Lindley's recursion."""
    latencies, free = [], 0.0
    for arrival in arrivals:
        free = max(free, arrival) + service_s
        latencies.append(free - arrival)
    return np.array(latencies)


class SimulatedServer:
    def __init__(self, service_s: float = SERVICE_S) -> None:
        self.service_s = service_s
        self.rates: list[float] = []
        self.rng = np.random.default_rng(1)

    async def meets(self, rate: float) -> bool:
        self.rates.append(rate)
        latencies = queue_latencies(poisson_arrivals(rate, 30.0, self.rng), self.service_s)
        return percentile(latencies, 99) <= SLO_S


@pytest.mark.parametrize(("start", "step"), [(700, 1.5), (20, 1.5), (30_000, 1.5), (870, 1.1), (600, 1.1)])
async def test_goodput_of_a_queue_is_found_from_anywhere(start: float, step: float) -> None:
    server = SimulatedServer()
    met, missed = await find_goodput(server.meets, start, step=step)
    # By the queue's exponential tail, P(wait > 19 services) is 1 % at a load of about 0.89.
    assert 800 < met < 960
    assert met < missed <= met * PRECISION
    assert {met, missed} <= set(server.rates)
    assert len(server.rates) <= 14


async def test_a_good_guess_takes_three_probes() -> None:
    rates = []

    async def meets(rate: float) -> bool:
        rates.append(rate)
        return rate <= 1000

    assert await find_goodput(meets, 990, step=1.1) == pytest.approx((990, 990 * 1.1**0.5))
    assert len(rates) == 3


async def test_a_server_that_is_always_late_has_no_goodput() -> None:
    server = SimulatedServer(service_s=2 * SLO_S)
    assert await find_goodput(server.meets, 20.0, step=1.5) == (0, SLOWEST)


def confirming(most: float) -> tuple[list[float], Callable[[float], Awaitable[bool]]]:
    """The rates that were tried, and a server that takes up to ``most``."""
    rates = []

    async def confirms(rate: float) -> bool:
        rates.append(rate)
        return rate <= most

    return rates, confirms


async def test_a_rate_that_met_the_slo_by_luck_is_stepped_down_until_it_is_confirmed() -> None:
    rates, confirms = confirming(900)
    met, missed = await confirm_goodput(confirms, 1000, 1050)
    assert rates == pytest.approx([1000, 1000 / PRECISION, 1000 / PRECISION**2.1, 1000 / PRECISION**3.31])
    assert (met, missed) == (rates[-1], rates[-2])


async def test_a_machine_that_has_become_ten_times_slower_costs_few_steps() -> None:
    rates, confirms = confirming(100)
    met, missed = await confirm_goodput(confirms, 1000, 1050)
    assert len(rates) <= 20
    assert 0.75 * 100 < met <= 100 < missed


async def test_a_rate_that_is_confirmed_at_once_stays() -> None:
    async def confirms(rate: float) -> bool:
        return True

    assert await confirm_goodput(confirms, 1000, 1050) == (1000, 1050)


async def test_without_a_rate_that_is_confirmed_there_is_no_goodput() -> None:
    rates = []

    async def confirms(rate: float) -> bool:
        rates.append(rate)
        return False

    assert await confirm_goodput(confirms, 10.2, 11) == (0, SLOWEST)
    assert rates == [10.2, SLOWEST]
    assert await confirm_goodput(confirms, 0, SLOWEST) == (0, SLOWEST)
    assert rates == [10.2, SLOWEST]
