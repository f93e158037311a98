"""Who asks and when, and percentiles of what they waited."""

from __future__ import annotations

import numpy as np
import pytest

from trireme_perf.load.arrivals import poisson_arrivals
from trireme_perf.load.users import UserMix
from trireme_perf.stats.percentiles import FEWEST_FOR_P99, percentile, reported_p99


def test_arrivals_are_as_many_as_offered_and_as_irregular_as_poisson() -> None:
    arrivals = poisson_arrivals(1000, 20.0, np.random.default_rng(0))
    assert len(arrivals) == 20_000
    assert np.all(np.diff(arrivals) >= 0)
    assert arrivals[0] >= 0
    assert arrivals[-1] < 20
    gaps = np.diff(arrivals)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1, abs=0.05)  # exponential gaps


def test_arrivals_of_one_seed_are_the_same() -> None:
    first, second = (poisson_arrivals(50, 2.0, np.random.default_rng(7)) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_every_user_has_a_turn_before_one_comes_again() -> None:
    mix = UserMix(np.arange(10), np.random.default_rng(3))
    taken = [user for count in (3, 4, 8, 15) for user in mix.take(count)]
    for start in (0, 10, 20):
        assert sorted(taken[start : start + 10]) == list(range(10))
    assert taken[:10] != taken[10:20]


def test_percentile_agrees_with_the_share_that_is_late() -> None:
    seconds = np.concatenate([np.full(99, 0.019), [0.5]])
    assert percentile(seconds, 99) == 0.019  # 1 of 100 is late: still "p99 <= 20 ms"
    assert percentile(np.append(seconds, 0.5), 99) == 0.5


def test_a_p99_of_few_values_is_not_reported() -> None:
    values = np.arange(float(FEWEST_FOR_P99))
    assert reported_p99(values) == FEWEST_FOR_P99 - 2
    assert reported_p99(values[1:]) is None
