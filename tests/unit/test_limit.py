"""The limit is CPU time, and of the users that are served."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from trireme_perf.limit import in_process
from trireme_perf.limit.in_process import measure_funnel
from trireme_perf.load.users import UserMix
from trireme_runtime.stages.chain import Run


class Funnel:
    """Takes 2 ms of CPU time a user, and as much again on the clock while others have the core; two stages share it 1 : 3."""

    stages = (SimpleNamespace(name="feature_transform"), SimpleNamespace(name="user_tower"))

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.slept: list[float] = []

    def run(self, user_id: np.ndarray) -> Run:
        self.asked += user_id[:, 0].tolist()
        return Run((), (1000 * len(user_id), 3000 * len(user_id)))


@pytest.fixture
def funnel(monkeypatch: pytest.MonkeyPatch) -> Funnel:
    funnel = Funnel()
    clocks = {"process_time": lambda: 0.002 * len(funnel.asked), "perf_counter": lambda: 0.004 * len(funnel.asked)}
    monkeypatch.setattr(in_process, "time", SimpleNamespace(**clocks, sleep=funnel.slept.append))
    return funnel


def test_the_limit_is_what_the_computation_takes_of_the_core(funnel: Funnel) -> None:
    mix = UserMix(np.arange(1000), np.random.default_rng(0))
    rows = measure_funnel(funnel, mix, batches=(1, 32), rounds=2)
    for row in rows:
        assert row["us_per_user"] == pytest.approx(2000)
        assert row["users_per_s"] == pytest.approx(500)
        assert row["stages"] == pytest.approx({"feature_transform": 500, "user_tower": 1500})


def test_the_limit_is_that_of_all_users_each_before_one_comes_again(funnel: Funnel) -> None:
    mix = UserMix(np.arange(500), np.random.default_rng(0))
    measure_funnel(funnel, mix, batches=(1, 32), rounds=2)
    assert len(funnel.asked) == 3 * 2 * 128
    assert sorted(funnel.asked[:500]) == list(range(500))


def test_a_pause_comes_before_every_call(funnel: Funnel) -> None:
    mix = UserMix(np.arange(1000), np.random.default_rng(0))
    measure_funnel(funnel, mix, batches=(32,), rounds=2, pause_s=0.002)
    assert funnel.slept == [0.002] * 3 * 4
