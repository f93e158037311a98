"""Which probes count, and what confirms a goodput, on a machine whose processor others use, too."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.test_goodput_report import EXPECTED, probe
from trireme_perf.goodput import turn
from trireme_perf.goodput.contestants import Running
from trireme_perf.goodput.probe import Probe, summary
from trireme_perf.goodput.search import PRECISION
from trireme_perf.goodput.turn import CONFIRM_S, CONFIRMATIONS, PATIENCE, TRIES, Load, _Measurement
from trireme_perf.host.usage import Usage
from trireme_perf.load.connections import Answer
from trireme_perf.load.probe import Latencies
from trireme_perf.load.users import UserMix


class Scripted(_Measurement):
    """Probes that come from a list; the last one again and again."""

    def __init__(self, probes: list[Probe]) -> None:
        connection = SimpleNamespace(ask=None)
        super().__init__(Running(None, connection), Load(1.0, 0.02, None, None), lambda probe: None)  # type: ignore[arg-type]
        self._script, self.least_s = probes, []

    async def _probe(self, rate: float, lost_s: float, least_s: float = 0.0) -> Probe:
        self.least_s.append(least_s)
        return self._script[min(len(self.least_s), len(self._script)) - 1]


MET, MISSED = probe(100, steal_share=0.0), probe(100, steal_share=0.0, meets_slo=False)
LATE = probe(100, steal_share=0.0, generator_late=True)
DISTURBED, LUCKY = probe(100, steal_share=0.2, meets_slo=False), probe(100, steal_share=0.2)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "PAUSE_S", 0.0)


@pytest.mark.parametrize(
    ("probes", "meets", "made", "under_steal"),
    [
        ([MET], True, 1, False),
        ([MISSED, MET], True, 2, False),
        ([MISSED], False, TRIES, False),
        ([DISTURBED, MISSED, DISTURBED, DISTURBED, MET], True, 5, False),
        ([DISTURBED, MISSED], False, 1 + TRIES, False),
        ([LUCKY, MISSED], False, 1 + TRIES, False),
        ([LUCKY, LUCKY, MET], True, 3, False),
        ([DISTURBED], False, PATIENCE + TRIES, True),
        ([LUCKY], True, PATIENCE + 1, True),
        ([probe(100, steal_share=0.0, others_share=0.3), MISSED], False, 1 + TRIES, False),
        ([replace(MET, others_share=None)], True, 1, False),
        ([LATE, MET], True, 2, False),
        ([LATE], False, 2 * TRIES, False),
    ],
)
def test_a_disturbed_or_late_probe_does_not_count_whatever_came_of_it(
    probes: list[Probe], meets: bool, made: int, under_steal: bool
) -> None:
    script = Scripted(probes)
    assert asyncio.run(script._meets(100)) is meets
    assert len(script.least_s) == made
    assert script._under_steal is under_steal


@pytest.mark.parametrize(
    ("probes", "confirms", "made"),
    [
        ([MET], True, CONFIRMATIONS),
        ([MET, MET, MISSED], False, 3),
        ([MISSED, MET], False, 1),
        ([MET, LUCKY, DISTURBED, MET], True, CONFIRMATIONS + 2),
        ([LUCKY, MISSED], False, 2),
        ([MET, LATE], False, 3),
    ],
)
def test_a_goodput_is_confirmed_by_every_one_of_several_longer_probes(
    probes: list[Probe], confirms: bool, made: int
) -> None:
    script = Scripted(probes)
    assert CONFIRMATIONS >= 3
    assert CONFIRM_S >= 5
    assert asyncio.run(script._confirms(100)) is confirms
    assert script.least_s == [CONFIRM_S] * made


@pytest.mark.parametrize(
    ("latency_s", "wall_s", "meets"),
    [
        (np.full(300, 0.15), 3.15, True),
        (np.linspace(0.0, 0.19, 300), 3.19, False),
        (np.full(300, 0.25), 3.25, False),
    ],
    ids=["slow but steady", "falls behind", "late"],
)
def test_a_slow_server_keeps_up_and_an_overloaded_one_does_not(
    latency_s: np.ndarray, wall_s: float, meets: bool
) -> None:
    latencies = Latencies(latency_s, 300, 300, aborted=False, wall_s=wall_s, errors=0, first_error="")
    usage = Usage(wall_s, 0.1, 0.1, 0.0, 0.0)
    assert summary(100, 3.0, 0.2, latencies, usage).meets_slo is meets


@pytest.mark.parametrize(("lag_ms", "late"), [(0.9, False), (1.1, True)])
def test_a_load_that_is_sent_late_by_more_than_a_twentieth_of_the_slo_passes_nothing(lag_ms: float, late: bool) -> None:
    lag_s = np.concatenate([np.zeros(290), np.full(10, lag_ms / 1e3)])  # p99 is among the last ten
    latencies = Latencies(np.full(300, 0.005), 300, 300, False, 3.0, 0, "", lag_s)
    found = summary(100, 3.0, 0.02, latencies, Usage(3.0, 0.1, 0.1, 0.0, 0.0))
    assert found.lag_p99_ms == pytest.approx(lag_ms)
    assert found.meets_slo
    assert (found.passes, found.limited_by_load_generator) == (not late, late)


class Lucky(_Measurement):
    """A server that meets the SLO up to 1,000 users/s for a short time, and up to 900 for a longer one."""

    def __init__(self, late: bool) -> None:
        async def ask(user_id: int) -> Answer:
            return EXPECTED

        self._late = late
        users = UserMix(np.arange(10), np.random.default_rng(0))
        load = Load(1.0, 0.02, users, np.random.default_rng(0))
        super().__init__(Running(None, SimpleNamespace(ask=ask)), load, lambda probe: None)  # type: ignore[arg-type]

    async def _probe(self, rate: float, lost_s: float, least_s: float = 0.0) -> Probe:
        met = rate <= (900 if least_s else 1000)
        self._probes.append(probe(rate, steal_share=0.0, meets_slo=met, generator_late=self._late and not met))
        return self._probes[-1]


@pytest.mark.parametrize("late", [False, True])
def test_the_goodput_of_a_turn_is_a_rate_that_was_confirmed(late: bool) -> None:
    found = asyncio.run(Lucky(late).run(990.0))
    assert 900 / PRECISION < found.goodput <= 900
    assert found.at_goodput is not None
    assert found.quoted is not None
    assert (found.at_goodput.offered, found.quoted.offered) == (found.goodput, 0.8 * found.goodput)
    assert found.limited_by_load_generator is late
    assert [one.offered for one in found.probes].count(found.goodput) == CONFIRMATIONS
