"""The bootstrap of an experiment: its arithmetic, that chance alone is not taken for a difference, and that one is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from trireme_perf.stats.bootstrap import (
    FEWEST_ROUNDS,
    METRICS,
    Contrast,
    contrast,
    contrast_pairs,
    estimate_mean,
    estimate_median,
)
from trireme_perf.stats.percentiles import percentile

Rounds = list[np.ndarray]
FIGURES = {
    "p50": lambda values: percentile(values, 50),
    "p99": lambda values: percentile(values, 99),
    "mean": lambda values: float(values.mean()),
}
latencies = st.lists(
    st.lists(st.floats(0.1, 1e3), min_size=1, max_size=8).map(np.array), min_size=FEWEST_ROUNDS, max_size=FEWEST_ROUNDS
)


def block(rng: np.random.Generator, level: float, requests: int) -> np.ndarray:
    """Latencies that follow each other closely (a queue), with now and then a hiccup that many requests share."""
    queue = lfilter([1], [1, -0.9], rng.standard_normal(requests))
    values = level * np.exp(0.1 * queue + 0.3 * rng.standard_normal(requests))
    for _ in range(rng.poisson(0.5)):
        first = rng.integers(requests)
        values[first : first + rng.integers(1, requests // 10)] += rng.exponential(5 * level)
    return values


def simulate(seed: int, slower: float, rounds: int = FEWEST_ROUNDS, requests: int = 100) -> tuple[Rounds, Rounds]:
    """A short experiment on a machine whose speed drifts; B takes ``slower`` times as long as A."""
    rng = np.random.default_rng(seed)
    drift = lfilter([1], [1, -0.8], 0.1 * rng.standard_normal(2 * rounds))
    a: Rounds = []
    b: Rounds = []
    for number in range(rounds):
        for which, position in enumerate(rng.permutation(2)):
            level = 4.0 * np.exp(drift[2 * number + position])
            (b if which else a).append(block(rng, level * (slower if which else 1), requests))
    return a, b


@pytest.mark.parametrize("metric", METRICS)
@given(a=latencies, b=latencies)
@settings(max_examples=10, deadline=None)
def test_figures_are_of_all_requests_together(metric: str, a: Rounds, b: Rounds) -> None:
    found = contrast(a, b, metric)
    of_a, of_b = (FIGURES[metric](np.concatenate(rounds)) for rounds in (a, b))
    assert (found.a, found.b) == pytest.approx((of_a, of_b))
    assert found.difference.value == pytest.approx(of_b - of_a, abs=1e-9)
    assert found.ratio.value == pytest.approx(of_b / of_a)
    for one in (found.difference, found.ratio):
        assert one.low <= one.high
        assert one.error >= 0


@pytest.mark.parametrize("metric", METRICS)
@given(rounds=latencies, factor=st.floats(0.5, 2))
@settings(max_examples=10, deadline=None)
def test_a_constant_factor_has_no_spread(metric: str, rounds: Rounds, factor: float) -> None:
    ratio = contrast(rounds, [factor * values for values in rounds], metric).ratio
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((factor,) * 3)
    assert ratio.error == pytest.approx(0, abs=1e-9)


def test_resampled_percentiles_are_those_of_the_chosen_rounds() -> None:
    """Against a bootstrap that copies the rounds: bounds between the extremes of any choice, and as far apart."""
    a, b = simulate(1, 1.2)
    found = contrast(a, b, "p99").difference
    rng = np.random.default_rng(0)
    choices = rng.integers(len(a), size=(2000, len(a)))
    copied = np.array(
        [
            FIGURES["p99"](np.concatenate([b[i] for i in chosen]))
            - FIGURES["p99"](np.concatenate([a[i] for i in chosen]))
            for chosen in choices
        ]
    )
    assert found.error == pytest.approx(copied.std(), rel=0.1)
    # A t interval of 10 rounds is wider than a normal one: read at .0003, not at .005.
    assert found.low <= np.quantile(copied, 0.005)
    assert found.high >= np.quantile(copied, 0.995)


def verdicts(seeds: range, slower: float, metric: str, **sizes: int) -> list[Contrast]:
    found = [contrast(*simulate(seed, slower, **sizes), metric) for seed in seeds]
    return [one for one in found if one.difference.excludes(0)]


@pytest.mark.parametrize("metric", METRICS)
def test_at_most_5_of_120_short_experiments_without_a_difference_show_one(metric: str) -> None:
    assert len(verdicts(range(120), 1.0, metric)) <= 5


def test_5_percent_are_found() -> None:
    found = verdicts(range(10), 1.05, "p50", rounds=240)
    assert len(found) >= 8
    assert all(one.difference.value > 0 for one in found)


def test_what_is_detectable_is_detected() -> None:
    """At the smallest detectable difference four in five experiments show it; at a third of it few do."""
    detectable = (
        np.median([contrast(*simulate(seed, 1.0, 20), "p50").difference.detectable for seed in range(10)]) / 4.0
    )
    assert len(verdicts(range(100, 160), 1 + detectable, "p50", rounds=20)) >= 0.7 * 60
    assert len(verdicts(range(100, 160), 1 + detectable / 3, "p50", rounds=20)) <= 0.3 * 60


def test_median_of_independent_values() -> None:
    values = np.random.default_rng(1).normal(5, 1, 100)
    found = estimate_median(values)
    assert found.value == np.median(values)
    assert found.error == pytest.approx(1.25 / 10, rel=0.3)  # of a normal distribution, asymptotically
    assert found.low < 5 < found.high


@given(values=st.lists(st.floats(-1, 1), min_size=2, max_size=50).map(np.array))
@settings(max_examples=10, deadline=None)
def test_mean_of_independent_values(values: np.ndarray) -> None:
    found = estimate_mean(values)
    assert found.value == pytest.approx(values.mean(), abs=1e-12)
    assert found.error == pytest.approx(values.std() / len(values) ** 0.5, rel=0.1, abs=1e-9)
    assert found.low <= found.value + 1e-9
    assert found.high >= found.value - 1e-9


def test_figures_of_a_round_are_compared_before_rounds_are() -> None:
    """The machine is twice as slow in half of the rounds: the ratio of two medians would know nothing of that."""
    rng = np.random.default_rng(3)
    phases = np.where(rng.random(21) < 0.5, 700.0, 1400.0)
    found = contrast_pairs([(phase * rng.normal(1, 0.001), 1.02 * phase * rng.normal(1, 0.001)) for phase in phases])
    assert found.ratio.value == pytest.approx(1.02, abs=0.001)
    assert 1.018 < found.ratio.low <= found.ratio.value <= found.ratio.high < 1.022
    assert found.difference.low > 0
