"""The limit is CPU time, and of the users that are served."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from trireme_perf.limit import in_process
from trireme_perf.limit.in_process import measure_funnel
from trireme_perf.load.users import UserMix


class Nothing(NamedTuple):
    pass


class Stage:
    """Takes 2 ms of CPU time a user, and as much again on the clock while others have the core."""

    name = "feature_transform"

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.slept: list[float] = []

    def __call__(self, user_id: np.ndarray, history: Any) -> Nothing:
        self.asked += user_id[:, 0].tolist()
        return Nothing()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    clocks = {"process_time": lambda: 0.002 * len(stage.asked), "perf_counter": lambda: 0.004 * len(stage.asked)}
    monkeypatch.setattr(in_process, "time", SimpleNamespace(**clocks, sleep=stage.slept.append))
    return stage


def test_the_limit_is_what_the_computation_takes_of_the_core(stage: Stage) -> None:
    mix = UserMix(np.arange(1000), np.random.default_rng(0))
    rows = measure_funnel(SimpleNamespace(stages=[stage]), mix, batches=(1, 32), rounds=2)
    for row in rows:
        assert row["us_per_user"] == pytest.approx(2000)
        assert row["users_per_s"] == pytest.approx(500)


def test_the_limit_is_that_of_all_users_each_before_one_comes_again(stage: Stage) -> None:
    mix = UserMix(np.arange(500), np.random.default_rng(0))
    measure_funnel(SimpleNamespace(stages=[stage]), mix, batches=(1, 32), rounds=2)
    assert len(stage.asked) == 3 * 2 * 128
    assert sorted(stage.asked[:500]) == list(range(500))


def test_a_pause_comes_before_every_call(stage: Stage) -> None:
    mix = UserMix(np.arange(1000), np.random.default_rng(0))
    measure_funnel(SimpleNamespace(stages=[stage]), mix, batches=(32,), rounds=2, pause_s=0.002)
    assert stage.slept == [0.002] * 3 * 4
