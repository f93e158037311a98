"""What counts as a miss of the SLO on a machine whose processor others use, too."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.unit.test_goodput_report import probe
from trireme_perf.goodput import turn
from trireme_perf.goodput.turn import PATIENCE, TRIES, Load, Probe, _Measurement, _summary
from trireme_perf.host.usage import Usage
from trireme_perf.load.probe import Latencies


class Scripted(_Measurement):
    """Probes that come from a list; the last one again and again."""

    def __init__(self, probes: list[Probe]) -> None:
        self._load = Load(1.0, 0.02, None, None)  # type: ignore[arg-type]
        self._script, self.made = probes, 0

    async def _probe(self, rate: float, lost_s: float) -> Probe:
        self.made += 1
        return self._script[min(self.made, len(self._script)) - 1]


MET, MISSED = probe(100, steal_share=0.0), probe(100, steal_share=0.0, meets_slo=False)
DISTURBED = probe(100, steal_share=0.2, meets_slo=False)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "PAUSE_S", 0.0)


@pytest.mark.parametrize(
    ("probes", "meets", "made"),
    [
        ([MET], True, 1),
        ([MISSED, MET], True, 2),
        ([MISSED], False, TRIES),
        ([DISTURBED, MISSED, DISTURBED, DISTURBED, MET], True, 5),
        ([DISTURBED, MISSED], False, 1 + TRIES),
        ([DISTURBED], False, PATIENCE + TRIES),
        ([probe(100, steal_share=0.2)], True, 1),
    ],
)
def test_a_miss_with_stolen_time_does_not_count(probes: list[Probe], meets: bool, made: int) -> None:
    script = Scripted(probes)
    assert asyncio.run(script._meets(100)) is meets
    assert script.made == made


def test_latency_is_quoted_from_an_undisturbed_probe() -> None:
    script = Scripted([DISTURBED, DISTURBED, MET])
    assert asyncio.run(script._undisturbed(80)) is MET
    assert script.made == 3


def test_without_a_quiet_moment_the_least_disturbed_probe_is_quoted() -> None:
    script = Scripted([probe(80, steal_share=0.5), probe(80, steal_share=0.1), probe(80, steal_share=0.3)])
    assert asyncio.run(script._undisturbed(80)).steal_share == 0.1
    assert script.made == PATIENCE + 1


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
    assert _summary(100, 3.0, 0.2, latencies, usage).meets_slo is meets
